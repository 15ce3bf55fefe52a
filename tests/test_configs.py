"""Every detector's config parses, builds, trains a step and predicts, on a small image.

Classifiers are in test_classification.py.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import PolygonMasks
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for folder in ('configs', 'configs/paca_vit', 'configs/demo')
    for path in (ROOT / folder).glob('*.py')
    if not path.stem.endswith('_digits')
)
NUM_CLASSES = 3
HEIGHT, WIDTH = 96, 128


def samples(with_mask: bool) -> dict:
    """Two images with two boxes each, as the data loader hands them over."""
    rng = np.random.RandomState(0)
    data_samples = []
    for _ in range(2):
        boxes = torch.tensor([[10.0, 12.0, 60.0, 70.0], [40.0, 30.0, 120.0, 90.0]])
        instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]))
        if with_mask:
            outlines = [
                [np.array([x1, y1, x2, y1, x2, y2, x1, y2])] for x1, y1, x2, y2 in boxes.numpy()
            ]
            instances.masks = PolygonMasks(outlines, HEIGHT, WIDTH)
        shape = (HEIGHT, WIDTH)
        meta = dict(
            img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), batch_input_shape=shape
        )
        data_samples.append(DetDataSample(gt_instances=instances, metainfo=meta))
    inputs = [
        torch.from_numpy(rng.randint(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)) for _ in range(2)
    ]
    return dict(inputs=inputs, data_samples=data_samples)


def few_classes(node) -> None:
    """Set num_classes everywhere below a config node."""
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, dict | list | tuple):
            few_classes(value)
    if isinstance(node, dict) and 'num_classes' in node:
        node.num_classes = NUM_CLASSES


@pytest.fixture
def mmdet_scope():
    """What Runner sets from the config's default_scope."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.mark.usefixtures('mmdet_scope')
@pytest.mark.parametrize('path', CONFIGS)
def test_trains_a_step_and_predicts(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / path)
    few_classes(cfg.model)
    model = MODELS.build(cfg.model)
    with_grad = set()
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: with_grad.add(name))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    cfg.optim_wrapper.optimizer.lr = 1e-3
    batch = samples(model.with_mask)
    losses = model.train().train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    assert losses['loss'].item() > 0 and all(v.isfinite().all() for v in losses.values())
    # DDP without find_unused_parameters: every parameter takes part.
    assert with_grad == set(before)
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) > 0.9 * len(before)

    results = model.eval().test_step(samples(model.with_mask))
    assert len(results) == 2
    for result in results:
        found = result.pred_instances
        assert found.bboxes.shape[1] == 4 and (found.labels < NUM_CLASSES).all()
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        if model.with_mask:
            assert found.masks.shape == (len(found), HEIGHT, WIDTH)


@pytest.mark.parametrize('path', [c for c in CONFIGS if 'demo' not in c])
def test_recipe(path):
    """What the authors' COCO recipe fixes, wherever the number comes from."""
    cfg = Config.fromfile(ROOT / path)
    epochs = 36 if '3x' in path else 12
    assert cfg.train_cfg.max_epochs == epochs
    optimizer = {k: v for k, v in cfg.optim_wrapper.optimizer.items() if k != '_scope_'}
    assert optimizer == dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)
    warmup, steps = cfg.param_scheduler
    assert (warmup.type, warmup.by_epoch, warmup.end) == ('LinearLR', False, 1000)
    assert steps.milestones == [epochs * 2 // 3 + (epochs == 36) * 3, epochs * 11 // 12]
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size
    assert cfg.model.backbone.drop_path_rate == 0.1
    weights = cfg.model.backbone.init_cfg  # None of a size that the authors do not have
    assert weights is None or weights.checkpoint.startswith('https://github.com/iVMCL/PaCaViT/')

    choice = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == 'RandomChoice')
    plain, cropped = choice.transforms
    sides = [short for short, _ in plain[0].scales]
    assert sides == list(range(480, 801, 32)) and {long for _, long in plain[0].scales} == {1333}
    assert cropped[0].scales == [(400, 1333), (500, 1333), (600, 1333)]
    assert cropped[1].crop_size == (384, 600) and cropped[2] == plain[0]
    test_resize = next(t for t in cfg.test_dataloader.dataset.pipeline if t.type == 'Resize')
    assert test_resize.scale == (1333, 800) and cfg.model.data_preprocessor.pad_size_divisor == 32


def test_first_names_are_the_1x_recipes_of_paca_s():
    for first, full in (
        ('mask_rcnn_paca', 'paca_vit/mask-rcnn_paca-s_1x_coco'),
        ('retinanet_paca', 'paca_vit/retinanet_paca-s_1x_coco'),
    ):
        assert (
            Config.fromfile(ROOT / f'configs/{first}.py').to_dict()
            == Config.fromfile(ROOT / f'configs/{full}.py').to_dict()
        )


def test_model_index_names_existing_configs():
    index = Config.fromfile(ROOT / 'model-index.yml')
    metafiles = [Config.fromfile(ROOT / path) for path in index.Import]
    models = [model for metafile in metafiles for model in metafile.Models]
    assert len(models) == 24
    for model in models:
        assert (ROOT / model.Config).is_file() and model.Name == Path(model.Config).stem
