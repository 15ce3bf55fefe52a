"""Exported backbones compute what PaCaViT computes, at any size; the command that writes them."""

import json
import sys

import onnx
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmpaca.__main__ import main
from mmpaca.apis import export
from mmpaca.models import PaCaViT

# As few blocks as show the variant: PyTorch takes seconds for each.
ONE = dict(embed_dims=(8,), num_heads=(2,), mlp_ratios=(2,), depths=(1,))
TWO = dict(embed_dims=(8, 12), num_heads=(2, 3), mlp_ratios=(2, 2), depths=(1, 1))
OPTIONAL = dict(
    layer_scale_init_value=0.5, cluster_pos_embed=True, sub_norm=True, pos_embed_size=40
)
VARIANTS = dict(
    # Its own clusters, those of the block before, its own.
    every_second=dict(arch=dict(ONE, depths=(3,)), num_clusters=3, cluster_interval=2),
    mlp=dict(arch=ONE, num_clusters=3, clustering='mlp', post_norm=True, in_channels=4),
    linear=dict(arch=ONE, num_clusters=3, clustering='linear', **OPTIONAL),
    self_attention=dict(arch=ONE, num_clusters=0),
)  # and the teacher: that of the command's test
SIZES = ((1, 40, 40), (3, 96, 17), (2, 31, 111))


def check_calls(program: torch.export.ExportedProgram) -> None:
    """What runs it needs nothing of ours."""
    called = {node.target for node in program.graph.nodes if node.op == 'call_function'}
    assert {getattr(target, 'namespace', 'aten') for target in called} == {'aten'}


@pytest.mark.parametrize('variant', VARIANTS)
def test_any_batch_and_size(variant):
    torch.manual_seed(0)
    settings = VARIANTS[variant]
    model = PaCaViT(out_indices=range(len(settings['arch']['depths'])), **settings)
    program = export.trace(model)
    check_calls(program)
    runs = [
        export.run_pt2(export.write_pt2(program, {})),
        export.run_onnx(export.write_onnx(program, {})),
    ]
    for batch, *size in SIZES:
        image = torch.randn(batch, settings.get('in_channels', 3), *size)
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
    """A config with a backbone that is quickly traced, has a teacher, and its checkpoint."""
    config = tmp_path / 'tiny.py'
    config.write_text(
        f"_base_ = '{root}/configs/demo/mask-rcnn_paca-demo_shapes.py'\n"
        f'arch = dict(_delete_=True, teacher_depths=(1, 1), **{TWO})\n'
        'backbone = dict(arch=arch, num_clusters=3, out_indices=(0, 1))\n'
        'model = dict(backbone=backbone, neck=dict(in_channels=[8, 12]))\n'
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(config).model)
        torch.save(dict(state_dict=model.state_dict()), tmp_path / 'tiny.pth')
        yield config, tmp_path / 'tiny.pth', model.backbone.eval()


def test_command(root, detector, tmp_path, monkeypatch, capsys):
    config, checkpoint, backbone = detector
    out = tmp_path / 'out'
    command = ['export', str(config), str(checkpoint), str(out), '--backbone', '--device', 'cpu']
    assert main([*command, '--shape', '64', '96']) == 0
    printed = capsys.readouterr().out
    assert 'any batch size, at least (9, 9) pixels' in printed  # two patches in stage 2
    for name in ('backbone.pt2', 'backbone.onnx'):
        assert all(f'{name} at {size}' in printed for size in ('1x3x64x96', '1x3x96x64', '2x3x33x34'))  # fmt: skip
    extra = {'metadata.json': ''}
    program = torch.export.load(out / 'backbone.pt2', extra_files=extra)
    check_calls(program)
    content = (out / 'backbone.onnx').read_bytes()
    run_pt2, run_onnx = program.module(), export.run_onnx(content)
    for batch, *size in (*SIZES, (2, 72, 100)):
        image = torch.randn(batch, 3, *size)
        with torch.no_grad():
            expected = backbone(image)
        assert export.largest_error(run_pt2(image), expected)[1] < 1e-6
        assert max(export.largest_error(run_onnx(image), expected)) < 1e-5
    model = onnx.load_from_string(content)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert (about['mean'], about['std']) == ('123.675, 116.28, 103.53', '58.395, 57.12, 57.375')
    assert about['channels'] == 'RGB' and json.loads(extra['metadata.json']) == about
    assert [value.name for value in model.graph.output] == ['feat0', 'feat1']
    (image_input,) = model.graph.input
    dims = [dim.dim_param or dim.dim_value for dim in image_input.type.tensor_type.shape.dim]
    assert dims == ['batch', 3, 'height', 'width']

    # A file that computes something else is not written.
    monkeypatch.setattr(export, 'trace', lambda backbone: program)
    (out / 'backbone.pt2').write_bytes(b'older')
    monkeypatch.setattr(
        export, 'run_pt2', lambda content: lambda image: [m + 1e-2 for m in backbone(image)]
    )
    assert main([*command, '--shape', '64', '96']) == 1
    assert 'backbone.pt2 is not written: at 1x3x64x96 it differs' in capsys.readouterr().err
    assert (out / 'backbone.pt2').read_bytes() == b'older'

    assert main([*command, '--shape', '8']) == 1
    assert '--shape 8 8 is too small, give at least (9, 9)' in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    assert main(command) == 1
    assert "pip install 'mmpaca[export]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['--opset', '2'], '--opset 2 is invalid, give 7 to'),
        (['--opset', '999'], '--opset 999 is invalid, give 7 to'),
        (['--device', 'foo'], '--device foo: give cpu, cuda or cuda:N'),
        (['--device', 'cuda:99'], '--device cuda:99: this machine has'),
    ],
)
def test_impossible_options_are_refused_before_the_work(root, capsys, arguments, says):
    config = root / 'configs/demo/mask-rcnn_paca-demo_shapes.py'
    assert main(['export', str(config), 'nowhere.pth', 'out', '--backbone', *arguments]) == 1
    assert capsys.readouterr().err.startswith(f'error: {says}')
