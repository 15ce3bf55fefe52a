"""Configs whose parts do not match stop a run before the first iteration."""

import contextlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import mmdet
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.dataset import RepeatDataset
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmpaca.apis.configs import find_config
from mmpaca.checkpoint import load_from_local
from mmpaca.datasets import CLASSES
from mmpaca.engine import ConfigCheckHook
from mmpaca.engine.hooks import config_check_hook
from mmpaca.models import PaCaViT


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (
            {'val_dataloader.dataset.ann_file': 'annotations/train.json'},
            ValueError,
            '8 of the 16 images of val_dataloader, first 000010.png, are not in '
            'val_evaluator.ann_file: set val_evaluator.ann_file',
        ),
        (
            {'val_dataloader.dataset.metainfo.classes': ('circle', 'square', 'triangle', 'stars')},
            ValueError,
            r"val.json: it has the categories \['circle', 'square', 'triangle', 'star'\], not "
            r"\['stars'\]: set dataset.metainfo.classes",
        ),
        (
            {'val_dataloader.dataset.metainfo.classes': ('star', 'triangle', 'square', 'circle')},
            ValueError,
            'categories are in the order .*, the classes in the order .*: sort the categories',
        ),
        (
            {'model.roi_head.bbox_head.num_classes': 3},
            AssertionError,
            r'`num_classes` \(3\) in Shared2FCBBoxHead',
        ),
    ],
)
def test_training_stops_before_it_begins(runner, options, error, message):
    training = runner(**options, **{'train_cfg.max_iters': 2})
    with pytest.raises(error, match=message):
        training.train()
    assert training.iter == 0


def test_testing_too(runner):
    options = {
        'test_dataloader.dataset.ann_file': 'annotations/train.json',
        'test_dataloader.dataset.data_prefix.img': 'train/',
    }
    with pytest.raises(ValueError, match='8 of the 16 images of test_dataloader'):
        runner(**options).test()


@pytest.mark.parametrize(
    ('scheduler', 'length', 'message'),
    [
        (
            dict(type='LinearLR', by_epoch=False, end=1000),
            2000,
            '1000 of 2000 iterations.*end=200 ',
        ),
        (dict(type='LinearLR', by_epoch=False, end=600), 2000, None),
        (dict(type='LinearLR', by_epoch=True, end=2), 4, '2 of 4 epochs.*end=2 '),
        (dict(type='mmpaca.LinearWarmupLR', by_epoch=False, end=100), 100, None),
        (dict(type='ConstantLR', by_epoch=False, end=100), 100, None),
    ],
)
def test_a_long_warmup_is_named(scheduler, length, message):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1)
    runner = SimpleNamespace(
        cfg={},
        model=nn.Module(),
        val_loop=None,
        max_iters=length,
        max_epochs=length,
        param_schedulers=[PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer))],
        logger=SimpleNamespace(warning=(said := []).append),
    )
    ConfigCheckHook().before_train(runner)
    assert len(said) == (message is not None)
    assert not said or re.search(message, said[0])


def test_class_weights_follow_the_number_of_classes():
    """As in Mask2Former, whose config lists a weight per class."""
    loss = SimpleNamespace(class_weight=[2.0] * 80 + [0.1])
    head = nn.Module()
    head.num_classes, head.loss_cls, head.class_weight = 4, loss, loss.class_weight
    model = nn.ModuleDict(dict(panoptic_head=head))
    said = []
    runner = SimpleNamespace(model=model, hooks=[], logger=SimpleNamespace(info=said.append))
    for _ in range(2):  # the second time it matches
        ConfigCheckHook().before_run(runner)
        assert loss.class_weight == head.class_weight == [2.0] * 4 + [0.1]
    assert len(said) == 1 and 'panoptic_head.loss_cls.class_weight' in said[0]
    loss.class_weight = [1.0, 2.0, 1.0]
    with pytest.raises(ValueError, match='has 3 values for 4 classes: give 5'):
        ConfigCheckHook().before_run(runner)


def test_mmdets_dataset_with_categories_in_another_order(shapes, tmp_path):
    """mmdet would train with the labels of other classes."""
    coco = json.loads((shapes / 'annotations/train.json').read_text())
    coco['categories'].reverse()
    (tmp_path / 'reversed.json').write_text(json.dumps(coco))
    for path, message in (
        (shapes / 'annotations/train.json', None),
        (tmp_path / 'reversed.json', 'reversed.json: its categories are in the order'),
    ):
        data = CocoDataset(
            ann_file=str(path), data_prefix=dict(img=str(shapes / 'train')), metainfo=dict(classes=CLASSES)
        )  # fmt: skip
        loader = SimpleNamespace(dataset=RepeatDataset(data, 2))
        runner = SimpleNamespace(cfg=dict(default_scope='mmdet'), train_dataloader=loader)
        with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
            config_check_hook._check_train_categories(runner)


def config_of(name: str) -> Config:
    stock = Path(mmdet.__file__).parent / '.mim/configs' / name
    return Config.fromfile(stock if stock.is_file() else find_config(name))


@pytest.fixture(scope='module')
def official(tmp_path_factory) -> Path:
    """A file with the authors' names, of which the first tells them."""
    path = tmp_path_factory.mktemp('official') / 'official.pth'
    torch.save({'stage1.0.attn.q.weight': torch.ones(8, 8), 'head.bias': torch.ones(2)}, path)
    return path


@pytest.mark.parametrize(
    ('config', 'given'),
    [
        ('mask-rcnn_paca-s_1x_coco', None),
        ('rtmdet-ins_l_paca-s_8xb32-300e_coco', None),
        ('mask-rcnn_paca-demo_shapes', None),
        ('faster_rcnn/faster-rcnn_r50-caffe_fpn_1x_coco.py', 'BGR, mean [103.53, 116.28, 123.675], std [1.0, 1.0, 1.0]'),
        ('rtmdet/rtmdet_l_8xb32-300e_coco.py', 'BGR, mean [103.53, 116.28, 123.675], std [57.375, 57.12, 58.395]'),
        ('yolox/yolox_s_8xb8-300e_coco.py', 'BGR, mean [0.0], std [1.0]'),
        ('soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py', 'BGR, mean [103.53, 116.28, 123.675], std [1.0, 1.0, 1.0]'),
        ('paca-t_cifar100_224', None),  # its dataset gives RGB
    ],
)  # fmt: skip
def test_pretrained_weights_and_the_preprocessing(config, given, official):
    """Stock detectors normalise as their own weights need it; the authors' need ImageNet's."""
    arch = dict(embed_dims=(8,), num_heads=(1,), mlp_ratios=(1,), depths=(1,))
    init_cfg = dict(type='Pretrained', checkpoint=str(official))
    cfg = config_of(config)
    cfg.pop('default_scope')  # no check but this one
    runner = SimpleNamespace(
        cfg=cfg, val_loop=None, param_schedulers=None, _has_loaded=False,
        model=nn.ModuleDict(dict(backbone=PaCaViT(arch, out_indices=(0,), init_cfg=init_cfg))),
        logger=SimpleNamespace(warning=(said := []).append),
    )  # fmt: skip
    ConfigCheckHook().before_train(runner)
    ConfigCheckHook().after_load_checkpoint(runner, load_from_local(official))
    runner._has_loaded = True  # other weights than init_cfg's
    ConfigCheckHook().before_train(runner)
    expected = 'RGB, mean [123.675, 116.28, 103.53], std [58.395, 57.12, 57.375]'
    sources = (f'init_cfg of the backbone, {official},', 'the checkpoint') if given else ()
    for line, source in zip(said, sources, strict=True):
        assert line == (
            f'The weights of {source} were trained on images with {expected}, but '
            f'data_preprocessor gives {given}: set data_preprocessor=dict(mean=[123.675, 116.28, '
            '103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)'
        )


def test_a_checkpoint_of_mmengine_says_its_preprocessing(official):
    """In its config; ``after_load_checkpoint`` gets it for load_from, resuming and testing."""

    def lines(config: Config, checkpoint: dict) -> list[str]:
        logger = SimpleNamespace(warning=(said := []).append)
        runner = SimpleNamespace(cfg=config, logger=logger)
        ConfigCheckHook().after_load_checkpoint(runner, checkpoint)
        ConfigCheckHook(enabled=False).after_load_checkpoint(runner, checkpoint)
        return said

    shapes, digits = config_of('mask-rcnn_paca-demo_shapes'), config_of('paca-demo_digits')
    yolox = config_of('yolox/yolox_s_8xb8-300e_coco.py')
    of_digits, of_yolox = (dict(meta=dict(cfg=c.pretty_text)) for c in (digits, yolox))
    assert lines(shapes, of_digits) == lines(yolox, of_yolox) == []
    (line,) = lines(digits, of_yolox)
    assert line.endswith('set data_preprocessor=dict(mean=[0.0], std=[1.0], to_rgb=False)')
    for meta in (
        {},
        dict(cfg='model = 3'),
        dict(cfg='x ='),
        dict(data_preprocessor=dict(mean=3, std=4)),
    ):
        assert lines(shapes, dict(meta=meta)) == []
