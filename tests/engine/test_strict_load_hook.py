"""A checkpoint that fits in part stops a test, through mmdet's Runner."""

from types import SimpleNamespace

import pytest
import torch
from mmdet.models import DetTTAModel
from mmengine.config import Config
from mmengine.runner import Runner

from mmpaca.engine import StrictLoadHook

TINY = dict(
    embed_dims=(8, 8, 8, 8), num_heads=(1, 1, 1, 1), mlp_ratios=(1, 1, 1, 1), depths=(1, 1, 1, 1)
)


@pytest.fixture
def runner(tmp_path, root, shapes):
    """Called with a checkpoint: the Runner that tools/test.py would build."""
    serial = iter(range(100))

    def build(**options) -> Runner:
        cfg = Config.fromfile(root / 'configs/demo/mask-rcnn_paca-demo_shapes.py')
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.dataset.data_root = str(shapes)
            loader.update(num_workers=0, persistent_workers=False)
        for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
            evaluator.ann_file = str(shapes / 'annotations/val.json')
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = f'{tmp_path.name}_{next(serial)}'
        cfg.model.backbone.arch = TINY
        cfg.model.neck.in_channels = [8] * 4
        cfg.merge_from_dict(options)
        return Runner.from_cfg(cfg)

    return build


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
