"""Exported backbones compute what PaCaViT computes, at any size; the command that writes them."""

import json
import runpy
import sys

import onnx
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmpaca import export
from mmpaca.models import PaCaViT

ARCH = dict(embed_dims=(8, 12), num_heads=(2, 3), mlp_ratios=(2, 2), depths=(2, 1))
OPTIONAL = dict(
    layer_scale_init_value=0.5, cluster_pos_embed=True, sub_norm=True, pos_embed_size=40
)
VARIANTS = dict(
    stagewise=dict(num_clusters=3),
    blockwise=dict(num_clusters=3, clustering='mlp', cluster_interval=1),
    self_attention=dict(num_clusters=(3, 0), clustering='linear', post_norm=True, **OPTIONAL),
    teacher=dict(arch=dict(ARCH, teacher_depths=(1, 1)), num_clusters=3),
)


@pytest.mark.parametrize('variant', VARIANTS)
def test_any_batch_and_size(variant):
    torch.manual_seed(0)
    model = PaCaViT(**dict(dict(arch=ARCH, out_indices=(0, 1)), **VARIANTS[variant]))
    program = export.trace(model)
    # What runs it needs nothing of ours.
    called = {node.target for node in program.graph.nodes if node.op == 'call_function'}
    assert {getattr(target, 'namespace', 'aten') for target in called} == {'aten'}
    runs = [
        export.run_pt2(export.write_pt2(program, {})),
        export.run_onnx(export.write_onnx(program, {})),
    ]
    for size in ((1, 3, 40, 40), (3, 3, 96, 17), (2, 3, 31, 111)):
        image = torch.randn(size)
        with torch.no_grad():
            expected = model(image)
            for run in runs:
                absolute, relative = export.largest_error(run(image), expected)
                assert absolute < 1e-5 and relative < 1e-5


def test_largest_error():
    given = [torch.tensor([1.0, 2.0]), torch.tensor([[10.0]])]
    expected = [torch.tensor([1.5, 2.0]), torch.tensor([[11.0]])]
    assert export.largest_error(given, expected) == (1.0, 0.25)
    with pytest.raises(ValueError, match=r'shapes \[\(2,\)\] instead of \[\(2,\), \(1, 1\)\]'):
        export.largest_error(given[:1], expected)


@pytest.fixture
def detector(root, tmp_path):
    """A config with a backbone that is quickly traced, and its checkpoint."""
    config = tmp_path / 'tiny.py'
    config.write_text(
        f"_base_ = '{root}/configs/demo/mask-rcnn_paca-demo_shapes.py'\n"
        'arch = dict(embed_dims=(8,) * 4, num_heads=(1,) * 4, mlp_ratios=(1,) * 4, '
        'depths=(1,) * 4)\n'
        'backbone = dict(arch=dict(_delete_=True, **arch), num_clusters=(4, 0, 0, 0))\n'
        'model = dict(backbone=backbone, neck=dict(in_channels=[8] * 4))\n'
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(config).model)
        torch.save(dict(state_dict=model.state_dict()), tmp_path / 'tiny.pth')
        yield config, tmp_path / 'tiny.pth', model.backbone.eval()


def test_command(root, detector, tmp_path, monkeypatch, capsys):
    config, checkpoint, backbone = detector
    out = tmp_path / 'out'
    command = ('export.py', config, checkpoint, out, '--shape', '64', '96', '--device', 'cpu')
    monkeypatch.setattr(sys, 'argv', [str(part) for part in command])
    programs = []

    def trace(backbone: torch.nn.Module) -> torch.export.ExportedProgram:
        return programs[0] if programs else programs.append(original(backbone)) or programs[0]

    original = export.trace
    monkeypatch.setattr(export, 'trace', trace)

    def main() -> None:
        runpy.run_path(str(root / 'tools/deploy/export.py'), run_name='__main__')

    main()
    printed = capsys.readouterr().out
    for name in ('backbone.pt2', 'backbone.onnx'):
        assert all(f'{name} at {size}' in printed for size in ('1x3x64x96', '1x3x96x64', '2x3x33x34'))  # fmt: skip
    image = torch.randn(2, 3, 72, 100)
    with torch.no_grad():
        expected = backbone(image)
    extra = {'metadata.json': ''}
    program = torch.export.load(out / 'backbone.pt2', extra_files=extra)
    assert export.largest_error(program.module()(image), expected)[1] < 1e-6
    content = (out / 'backbone.onnx').read_bytes()
    assert export.largest_error(export.run_onnx(content)(image), expected)[1] < 1e-5
    model = onnx.load_from_string(content)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert (about['mean'], about['std']) == ('123.675, 116.28, 103.53', '58.395, 57.12, 57.375')
    assert about['channels'] == 'RGB' and json.loads(extra['metadata.json']) == about
    assert [value.name for value in model.graph.output] == [f'feat{i}' for i in range(4)]
    (image_input,) = model.graph.input
    dims = [dim.dim_param or dim.dim_value for dim in image_input.type.tensor_type.shape.dim]
    assert dims == ['batch', 3, 'height', 'width']

    # A file that computes something else does not stay, and neither takes an older one's place.
    (out / 'backbone.onnx').write_bytes(b'older')
    monkeypatch.setattr(
        export, 'run_onnx', lambda content: lambda image: [m + 1e-2 for m in backbone(image)]
    )
    with pytest.raises(SystemExit, match=r'backbone\.onnx is not written: at 1x3x64x96 it differs'):
        main()
    assert (out / 'backbone.onnx').read_bytes() == b'older'

    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    with pytest.raises(SystemExit, match='pip install onnx onnxruntime onnxscript'):
        main()
