"""Hooks in default_hooks: merged, switched off one by one, and beside custom hooks."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook

from mmpaca import engine

OURS = {
    'AtomicCheckpointHook',
    'BadDataSummaryHook',
    'CheckInvalidGradHook',
    'ClusterRecordHook',
    'ConfigCheckHook',
    'ExactResumeHook',
    'PreemptionHook',
    'ResumeCheckHook',
    'StrictLoadHook',
    'TolerantOutputHook',
    'WorkDirLockHook',
}


def names(runner) -> list[str]:
    return [type(hook).__name__ for hook in runner.hooks]


def test_custom_hooks_replace_none(runner):
    built = runner(custom_hooks=[dict(type='EMAHook')])
    assert OURS | {'EMAHook'} <= set(names(built))
    assert len(names(built)) == len(set(names(built)))
    order = names(built)
    # The EMA copies weights that were checked, and statistics of steps that were not skipped.
    assert order.index('StrictLoadHook') < order.index('EMAHook')
    assert order.index('CheckInvalidGradHook') < order.index('EMAHook')
    assert order[-1] == 'ExactResumeHook'
    assert order.index('AtomicCheckpointHook') > order.index('ParamSchedulerHook')


@pytest.mark.parametrize(
    'path',
    [
        'classification/paca-t_8xb128_in1k.py',
        'demo/paca-demo_digits.py',
        'demo/mask-rcnn_paca-t_overfit.py',
        'mask_rcnn_paca.py',
        'paca_vit/atss_paca-t_1x_coco.py',
        'paca_vit/dino-4scale_paca-t_8xb2-12e_coco.py',
        'paca_vit/mask2former_paca-t_8xb2-lsj-50e_coco-panoptic.py',
        'paca_vit/mask2former_paca-t_8xb2-lsj-50e_coco.py',
        'paca_vit/rtmdet-ins_m_paca-t_8xb32-300e_coco.py',
    ],
)
def test_all_configs_have_them(root, path):
    cfg = Config.fromfile(root / 'configs' / path)
    types = {hook.type.removeprefix('mmpaca.') for hook in cfg.default_hooks.values()}
    assert types >= OURS
    custom = [hook.type for hook in cfg.get('custom_hooks', [])]
    assert custom == (['EMAHook', 'PipelineSwitchHook'] if 'rtmdet' in path else [])


@pytest.mark.parametrize('name', sorted(OURS - {'AtomicCheckpointHook'}))
def test_each_can_be_switched_off(name):
    """A disabled hook never looks at its runner."""
    hook = getattr(engine, name)(enabled=False)
    for stage in ('before_checkpoint', *hook.stages):
        arguments = (dict(),) if 'load' in stage or 'save' in stage else ()
        arguments = (0,) if 'iter' in stage else arguments
        if hasattr(hook, stage) and name in getattr(type(hook), stage).__qualname__:
            if name == 'ClusterRecordHook' and stage.startswith('before'):
                continue  # reads the evaluator only
            getattr(hook, stage)(None, *arguments)


def test_lists_of_the_last_version_still_work():
    for name in ('mmpaca_hooks', 'mmpaca_cls_hooks'):
        text = (
            f"_base_ = 'mmpaca::mask_rcnn_paca.py'\ncustom_hooks = [*_base_.{name}, dict(type='A')]"
        )
        cfg = Config.fromstring(text, '.py')
        assert [hook.type for hook in cfg.custom_hooks] == [
            'A'
        ] and 'strict_load' in cfg.default_hooks


def test_hooks_repeated_in_custom_hooks_are_preferred(runner):
    training = runner(
        custom_hooks=[
            dict(type='mmpaca.StrictLoadHook', strict=False),
            dict(type='mmpaca.FiniteHook', max_skips=9),
        ],
        train_cfg=dict(max_iters=1, val_interval=9),
    )
    said = []
    training.logger.warning = said.append
    training.train()
    enabled = [hook for hook in training.hooks if getattr(hook, 'enabled', False)]
    (strict,) = (hook for hook in enabled if isinstance(hook, engine.StrictLoadHook))
    (finite,) = (hook for hook in enabled if isinstance(hook, engine.CheckInvalidGradHook))
    assert not strict.strict and finite.max_skips == 9
    assert sum('only the latter is used' in line for line in said) == 2


def test_finetuning_trains_with_an_average_of_weights(runner, tmp_path):
    """From four classes to three, with nothing in the config but classes and num_classes."""
    weights = runner().model.state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 'trained.pth')
    classes = ('circle', 'square', 'triangle')
    options = {
        'load_from': str(tmp_path / 'trained.pth'),
        'model.roi_head.bbox_head.num_classes': 3,
        'model.roi_head.mask_head.num_classes': 3,
        'train_dataloader.dataset.metainfo.classes': classes,
        'val_dataloader.dataset.metainfo.classes': classes,
        'train_cfg': dict(max_iters=2, val_interval=2),
        'custom_hooks': [dict(type='EMAHook')],
        'optim_wrapper.optimizer.lr': 0.0,
    }
    training = runner(**options)
    training.train()
    trained = training.model.state_dict()
    (average,) = (hook.ema_model.module for hook in training.hooks if isinstance(hook, EMAHook))
    average = average.state_dict()
    assert trained['roi_head.bbox_head.fc_cls.weight'].shape == (4, 256)
    for name, value in training.model.named_parameters():
        assert torch.allclose(average[name], value), name
        if value.shape == weights[name].shape:
            assert torch.equal(value, weights[name]), name
    with pytest.raises(RuntimeError, match='4 wrong shape'):
        runner(**{**options, 'test_dataloader.dataset.metainfo.classes': classes}).test()
