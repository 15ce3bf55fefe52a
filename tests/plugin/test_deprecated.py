"""Names of 0.1 still work, with a DeprecationWarning that gives the new name."""

import importlib

import pytest
from mmengine.registry import Registry

from mmpaca import registry
from mmpaca.plugin import deprecated


@pytest.mark.parametrize('old', deprecated._MODULES)
def test_old_modules(old, monkeypatch):
    monkeypatch.delitem(importlib.sys.modules, old, raising=False)
    new = importlib.import_module(deprecated._MODULES[old])
    with pytest.warns(DeprecationWarning, match=f'{old} is deprecated, use {new.__name__}'):
        module = importlib.import_module(old)
    defined = (
        next(
            name
            for name, value in vars(new).items()
            if getattr(value, '__module__', '') == new.__name__
        )
        if not old.endswith('cifar')
        else 'CIFAR100'
    )
    assert getattr(module, defined) is getattr(new, defined)


@pytest.mark.parametrize(
    ('kind', 'config', 'new'),
    [
        (registry.HOOKS, dict(type='mmpaca.NeckHook'), 'ConfigCheckHook'),
        (registry.HOOKS, dict(type='mmpaca.EvaluatorCheckHook'), 'ConfigCheckHook'),
        (registry.HOOKS, dict(type='mmpaca.FiniteHook', max_skips=3), 'CheckInvalidGradHook'),
        (registry.HOOKS, dict(type='mmpaca.ResumeHook'), 'ExactResumeHook'),
        (registry.HOOKS, dict(type='mmpaca.BadDataHook'), 'BadDataSummaryHook'),
        (registry.HOOKS, dict(type='mmpaca.CheckpointHook', interval=7), 'AtomicCheckpointHook'),
        (
            registry.TRANSFORMS,
            dict(type='mmpaca.LoadImageFromFile', max_pixels=9),
            'LoadVerifiedImageFromFile',
        ),
    ],
)
def test_old_names_in_a_config(kind: Registry, config, new):
    with pytest.warns(DeprecationWarning, match=f"use type='mmpaca.{new}'"):
        built = kind.build(config)
    assert isinstance(built, kind.get(new))
    for name, value in config.items():
        assert name == 'type' or getattr(built, name) == value


def test_old_dataset(shapes):
    config = dict(
        data_root=f'{shapes}/',
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        metainfo=dict(classes=('circle', 'square', 'triangle', 'star')),
    )
    with pytest.warns(DeprecationWarning, match="use type='mmpaca.TolerantCocoDataset'"):
        old = registry.DATASETS.build(dict(type='mmpaca.CocoDataset', **config))
    assert len(old) == len(
        registry.DATASETS.build(dict(type='mmpaca.TolerantCocoDataset', **config))
    )


def test_local_cifar_still_does_not_download(tmp_path, monkeypatch):
    from mmpretrain.registry import DATASETS

    monkeypatch.delitem(importlib.sys.modules, 'mmpaca.datasets.cifar', raising=False)

    with (
        pytest.warns(DeprecationWarning),
        pytest.raises((FileNotFoundError, RuntimeError), match='Cannot find|not found|download'),
    ):
        DATASETS.build(
            dict(
                type='mmpaca.datasets.cifar.LocalCIFAR100',
                data_root=str(tmp_path),
                download=False,
                lazy_init=False,
            )
        )


def test_our_configs_use_no_old_name(root):
    for path in (root / 'configs').rglob('*.py'):
        used = [old for old in deprecated._CLASSES if f"'mmpaca.{old}'" in path.read_text()]
        assert used == [], path
