"""A checkpoint that fits in part stops a test, through mmdet's Runner."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.models import DetTTAModel
from mmengine.runner import Runner

from mmpaca.engine import StrictLoadHook


def test_what_fits_passes_and_the_rest_stops(runner, tmp_path):
    weights = runner().model.state_dict()

    def test(weights: dict, **options) -> Runner:
        torch.save(dict(state_dict=weights), tmp_path / 'given.pth')
        tester = runner(load_from=str(tmp_path / 'given.pth'), **options)
        tester.load_or_resume()
        return tester

    loaded = test(weights).model.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in weights.items())
    # As DistributedDataParallel saves it.
    test({f'module.{k}': v for k, v in weights.items()})

    only_backbone = {k: v for k, v in weights.items() if k.startswith('backbone.')}
    with pytest.raises(
        RuntimeError, match='MaskRCNN .beside its backbone.: 0 of .*missing: neck.lateral_convs.0'
    ):
        test(only_backbone)
    other_classes = {**weights, 'roi_head.bbox_head.fc_cls.weight': torch.zeros(3, 256)}
    with pytest.raises(
        RuntimeError,
        match=r'1 wrong shape: roi_head.bbox_head.fc_cls.weight \(3, 256\) instead of \(5, 256\)',
    ):
        test(other_classes)
    with pytest.raises(RuntimeError, match='1 unexpected: neck.extra'):
        test({**weights, 'neck.extra': torch.zeros(1)})

    lenient = [dict(type='mmpaca.StrictLoadHook', strict=False)]
    loaded = test(other_classes, custom_hooks=lenient).model.state_dict()
    assert torch.equal(
        loaded['neck.lateral_convs.0.conv.weight'], weights['neck.lateral_convs.0.conv.weight']
    )
    # The backbone is never lenient: random weights there are never what one wants.
    with pytest.raises(RuntimeError, match="under 'backbone.'"):
        test({k: v for k, v in weights.items() if 'attn.q' not in k}, custom_hooks=lenient)


def test_test_time_augmentation_wraps_the_same_model(runner):
    model = runner().model
    wrapped = SimpleNamespace(model=DetTTAModel(module=model))
    weights = model.state_dict()
    hook = StrictLoadHook()
    hook.after_load_checkpoint(wrapped, dict(state_dict=weights))
    del weights['neck.lateral_convs.0.conv.weight']
    with pytest.raises(RuntimeError, match='1 missing: neck.lateral_convs.0.conv.weight'):
        hook.after_load_checkpoint(wrapped, dict(state_dict=weights))
