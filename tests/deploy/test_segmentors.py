"""Segmentors of mmseg: the label map of the graph, and of the file, is that of mmseg's predict."""

import json

import numpy as np
import onnx
import pytest
import torch
from detectors import CHANNELS, CONV, PACA
from mmengine.config import Config

from mmpaca.__main__ import main
from mmpaca.apis import deploy
from mmpaca.apis.deploy import ExportOptions, find_postprocessing, open_model
from mmpaca.apis.verification import generated_pictures, open_onnx, predict
from mmpaca.deploy import build_graph
from mmpaca.deploy.onnx_file import trace
from mmpaca.deploy.pipeline import read_pipeline
from mmpaca.deploy.torch_file import METADATA, complete

pytest.importorskip('mmseg')
CLASSES = ('sky', 'road', 'tree', 'car', 'person')
ALL = dict(in_channels=CHANNELS['ConvStages'], in_index=[0, 1, 2, 3])
HEADS = dict(
    paca=dict(type='PaCaSegHead', in_channels=ALL['in_channels']),
    uper=dict(type='UPerHead', pool_scales=(1, 2, 3, 6), **ALL),
    psp=dict(type='PSPHead', in_channels=8, in_index=3, pool_scales=(1, 3)),
    fcn=dict(type='FCNHead', in_channels=8, in_index=2, num_convs=1),
    one=dict(type='FCNHead', in_channels=8, in_index=2, num_convs=1, out_channels=1, threshold=0.4),
    segformer=dict(type='SegformerHead', **ALL),
)


def config(name, backbone=CONV, **preprocessor) -> Config:
    """Config of a small segmentor."""
    classes = CLASSES[:2] if name == 'one' else CLASSES
    head = dict(HEADS[name], channels=8, num_classes=len(classes), norm_cfg=dict(type='BN'))
    if name == 'one':
        head['loss_decode'] = dict(type='CrossEntropyLoss', use_sigmoid=True)
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[120.0, 110, 100],
            std=[60.0, 50, 40],
            bgr_to_rgb=True,
            **preprocessor,
        ),
        backbone=backbone,
        decode_head=head,
        test_cfg=dict(mode='whole'),
    )
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(128, 96), keep_ratio=True),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ]
    dataset = dict(type='CityscapesDataset', metainfo=dict(classes=classes), pipeline=pipeline)
    loader = dict(dataset=dataset)
    return Config(dict(default_scope='mmseg', model=model, test_dataloader=loader))


@torch.no_grad()
def segmentor(cfg, checkpoint=None):
    """A predictor whose random weights find several classes."""
    torch.manual_seed(0)
    predictor = open_model(cfg, checkpoint, ExportOptions())
    for module in predictor.model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    last = predictor.model.decode_head.conv_seg
    seen = []
    handle = last.register_forward_hook(lambda *args: seen.append(args[2]))
    predict(predictor, generated_pictures(96, 128))
    handle.remove()
    factor = 1 / seen[0].std((0, 2, 3))
    last.weight *= factor[:, None, None, None]
    last.bias.copy_((last.bias - seen[0].mean((0, 2, 3))) * factor)
    return predictor


@pytest.mark.parametrize('name', HEADS)
def test_label_maps(name):
    cfg = config(name, PACA if name == 'paca' else CONV, test_cfg=dict(size_divisor=32))
    predictor = segmentor(cfg)
    graph = build_graph(predictor.model)
    steps = read_pipeline(cfg.test_dataloader.dataset.pipeline)
    run = complete(graph, graph.outputs, steps, find_postprocessing(predictor.model))
    classes = set()
    for images in (generated_pictures(60, 90, 2), generated_pictures(150, 130)):
        given = run(images)['label_map']
        expected = np.stack(predict(predictor, images))
        assert given.dtype == np.uint8 and given.shape == expected.shape == images.shape[:3]
        assert (given != expected).mean() < 1e-3
        classes.update(expected.flat)
    assert len(classes) > 1


def test_files(tmp_path, capsys, monkeypatch):
    cfg = config('paca')
    cfg.dump(tmp_path / 'tiny.py')
    torch.save(dict(state_dict=segmentor(cfg).model.state_dict()), tmp_path / 'tiny.pth')
    model = [str(tmp_path / name) for name in ('tiny.py', 'tiny.pth')]
    programs = []

    def trace_once(graph, size):
        if not programs:
            programs.append(trace(graph, size))
        return programs[0]

    monkeypatch.setattr(deploy, 'trace', trace_once)
    for out in ('tiny.pt2', 'tiny.onnx'):
        assert main(['export', *model, str(tmp_path / out)]) == 0
        printed = capsys.readouterr().out.splitlines()
        (row,) = (line.split() for line in printed if line.startswith('generated'))
        assert row[-1] == '0.00%'
    file = onnx.load(tmp_path / 'tiny.onnx')
    about = {entry.key: entry.value for entry in file.metadata_props}
    assert (about['mmpaca.task'], about['mmpaca.channels']) == ('segmentation', 'RGB')
    assert json.loads(about['mmpaca.classes']) == list(CLASSES)
    images = generated_pictures(48, 200)
    given = open_onnx(file.SerializeToString())(images)['label_map'][0]
    predictor = segmentor(cfg)
    assert (given != predict(predictor, images)[0]).mean() < 1e-3

    extra = {METADATA: ''}
    program = torch.export.load(tmp_path / 'tiny.pt2', extra_files=extra)
    assert json.loads(extra[METADATA])['mmpaca.outputs'] == '["label_map"]'
    (logits,) = program.module()(torch.rand(3, 3, 65, 101) * 255, torch.ones(4))
    assert logits.shape == (3, 5, 65, 101)
    # The last map is one pixel, which a guard of torch.export refuses for some models.
    (logits,) = program.module(check_guards=False)(torch.rand(1, 3, 20, 24) * 255, torch.ones(4))
    assert logits.shape == (1, 5, 20, 24) and logits.isfinite().all()


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (
            dict(test_cfg=dict(mode='slide')),
            "model.test_cfg.mode='slide' is not exported, only 'wh",
        ),
        (dict(decode_head=dict(align_corners=True)), 'FCNHead with align_corners=True is not exp'),
        (dict(decode_head=dict(type='ASPPHead', num_convs=None)), 'ASPPHead is not exported; cov'),
        (dict(data_preprocessor=dict(test_cfg=dict(size=(8, 8)))), 'only size_divisor is'),
    ],
)
def test_what_is_not_covered_is_named(change, says):
    cfg = config('fcn')
    cfg.merge_from_dict(dict(model=change))
    if cfg.model.decode_head.num_convs is None:
        del cfg.model.decode_head.num_convs
    with pytest.raises(ValueError, match=says):
        build_graph(open_model(cfg, None, ExportOptions()).model)
