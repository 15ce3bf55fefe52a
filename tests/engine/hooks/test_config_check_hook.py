"""Configs whose parts do not match stop a run before the first iteration."""

import contextlib
import json
import re
from types import SimpleNamespace

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.dataset import RepeatDataset
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmpaca.datasets import CLASSES
from mmpaca.engine import ConfigCheckHook
from mmpaca.engine.hooks import config_check_hook


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
