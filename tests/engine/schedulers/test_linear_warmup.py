"""A warm-up as long as the recipe says, but at most a tenth of the run."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim.scheduler import LinearLR

from mmpaca.engine import LinearWarmupLR


def rates(steps: int, scheduler: type, **options) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    warmup = scheduler(optimizer, by_epoch=False, start_factor=0.001, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        warmup.step()
    return found


def test_on_coco_it_is_mmengines():
    coco = 12 * 117266 // 16
    ours = rates(1100, LinearWarmupLR, num_iters=1000, end=coco)
    assert ours == rates(1100, LinearLR, begin=0, end=1000)
    assert (
        ours[0] == 0.001 and ours[999] == pytest.approx(1) and ours[500] == pytest.approx(0.5, 0.01)
    )


@pytest.mark.parametrize(('run', 'full'), [(600, 59), (100, 9), (12, 1), (2, 1)])
def test_on_little_data_it_is_a_tenth(run, full):
    found = rates(run, LinearWarmupLR, num_iters=1000, end=run)
    assert found[0] == 0.001
    assert found[full] == pytest.approx(1) and all(r < 0.999 for r in found[:full])


def test_invalid_arguments():
    for options, message in (
        (dict(by_epoch=True), 'by_epoch=True'),
        (dict(by_epoch=False, num_iters=0), 'num_iters=0'),
        (dict(by_epoch=False, max_share=0), 'max_share=0'),
    ):
        with pytest.raises(ValueError, match=message):
            LinearWarmupLR(None, end=10, **options)


def test_the_recipe_for_finetuning(root, runner, tmp_path):
    """One line on top of any config: layer-wise rates, and a schedule as long as the run."""
    base = root / 'configs/_base_/schedules/finetune.py'
    recipe = Config.fromfile(base).finetune
    training = runner(
        optim_wrapper=recipe[0],
        param_scheduler=recipe[1],
        train_cfg=dict(max_iters=20, val_interval=99),
    )
    training.train_loop  # noqa: B018  (built as in train(), before the schedulers)
    training.optim_wrapper = training.build_optim_wrapper(training.optim_wrapper)
    warmup, cosine = training.build_param_scheduler(training.param_schedulers)
    assert (warmup.end, cosine.end, cosine.T_max) == (2, 20, 20)
    groups = training.optim_wrapper.optimizer.param_groups
    scales = sorted({group['lr_scale'] for group in groups})
    assert scales[-1] == 1 and scales[0] == pytest.approx(0.8 ** (len(scales) - 1))


def test_the_example_of_an_own_dataset(root):
    cfg = Config.fromfile(root / 'configs/finetune/mask-rcnn_paca-s_own-data.py')
    coco = Config.fromfile(root / 'configs/mask_rcnn_paca.py')
    assert cfg.optim_wrapper.optimizer == coco.optim_wrapper.optimizer
    assert cfg.optim_wrapper.constructor == 'LayerDecayOptimWrapperConstructor'
    assert [s.type for s in cfg.param_scheduler] == ['mmpaca.LinearWarmupLR', 'CosineAnnealingLR']
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == len(cfg.classes) == 4
    for loader, name in ((cfg.train_dataloader, 'train'), (cfg.test_dataloader, 'val')):
        assert loader.dataset.metainfo.classes == cfg.classes
        assert loader.dataset.data_root == cfg.data_root
        assert loader.dataset.ann_file == f'annotations/{name}.json'
    assert cfg.test_evaluator.ann_file == 'data/own/annotations/val.json'
    assert cfg.load_from.endswith('1x_coco.pth') and cfg.model.backbone.init_cfg is None
