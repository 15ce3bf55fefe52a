"""Every detector's config parses, builds, predicts and trains a step, on a small image.

Classifiers are in test_classification.py.
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.evaluation import INSTANCE_OFFSET
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import PolygonMasks
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for folder in ('configs', 'configs/paca_vit', 'configs/demo', 'configs/real')
    for path in (ROOT / folder).glob('*.py')
    if not path.stem.endswith('_digits')
)
NORMS = (torch.nn.LayerNorm, torch.nn.GroupNorm)
NUM_CLASSES, NUM_STUFF = 3, 2
HEIGHT, WIDTH = 96, 128


def samples(with_seg: bool) -> dict:
    """Two images with two things each, on one kind of stuff, as the data loader hands them over."""
    rng = np.random.RandomState(0)
    data_samples = []
    for _ in range(2):
        boxes = torch.tensor([[10.0, 12.0, 60.0, 70.0], [40.0, 30.0, 120.0, 90.0]])
        instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]))
        outlines = [
            [np.array([x1, y1, x2, y1, x2, y2, x1, y2])] for x1, y1, x2, y2 in boxes.numpy()
        ]
        instances.masks = PolygonMasks(outlines, HEIGHT, WIDTH)
        shape = (HEIGHT, WIDTH)
        meta = dict(
            img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0), batch_input_shape=shape
        )
        sample = DetDataSample(gt_instances=instances, metainfo=meta)
        if with_seg:
            classes = torch.full((1, HEIGHT, WIDTH), NUM_CLASSES)  # the first of stuff
            for (x1, y1, x2, y2), label in zip(boxes.int().tolist(), instances.labels, strict=True):
                classes[:, y1:y2, x1:x2] = label
            sample.gt_sem_seg = PixelData(sem_seg=classes)
        data_samples.append(sample)
    inputs = [
        torch.from_numpy(rng.randint(0, 256, (3, HEIGHT, WIDTH), dtype=np.uint8)) for _ in range(2)
    ]
    return dict(inputs=inputs, data_samples=data_samples)


def few_classes(node) -> None:
    """Set the number of classes everywhere below a config node."""
    for value in node.values() if isinstance(node, dict) else node:
        if isinstance(value, dict | list | tuple):
            few_classes(value)
    if isinstance(node, dict):
        for key in ('num_classes', 'num_things_classes'):
            if key in node:
                node[key] = NUM_CLASSES
        if node.get('num_stuff_classes'):
            node.num_stuff_classes = NUM_STUFF


def listed(node) -> list:
    """A cascade has one of each for every stage."""
    return list(node) if isinstance(node, list | tuple) else [node]


def shrink(model) -> None:
    """Cut what belongs to the detector alone: channels, RoIs, queries, layers of transformers."""
    few_classes(model)
    if 'roi_head' in model:
        for head in listed(model.roi_head.bbox_head):
            head.fc_out_channels = 64
        for head in listed(model.roi_head.get('mask_head', [])):
            head.conv_out_channels = 16
        for stage in listed(model.train_cfg.rcnn):
            stage.sampler.num = 16
        model.train_cfg.rpn_proposal.max_per_img = 50
        model.test_cfg.rcnn.max_per_img = 10
    if model.type == 'DINO':
        model.num_queries = 20
        model.dn_cfg.group_cfg.num_dn_queries = 10
        model.encoder.num_layers = model.decoder.num_layers = 2
        model.test_cfg.max_per_img = 20
    if model.type == 'Mask2Former':
        head = model.panoptic_head
        head.num_queries = 20
        head.pixel_decoder.encoder.num_layers = head.transformer_decoder.num_layers = 2
        head.loss_cls.class_weight = [1.0] * (NUM_CLASSES + head.num_stuff_classes) + [0.1]
        model.data_preprocessor.batch_augments[0].size = (HEIGHT, WIDTH)
        model.train_cfg.num_points = 200
        model.test_cfg.update(
            max_per_image=20, object_mask_thr=0.0, iou_thr=0.0, filter_low_score=False
        )
    if 'rpn' in model.test_cfg:
        model.test_cfg.rpn.max_per_img = 50
    if 'score_thr' in model.test_cfg:  # one-stage detectors begin with low scores
        model.test_cfg.score_thr = 0.0


def evaluated(cfg: Config) -> set[str]:
    """What the config's evaluators ask for."""
    asked = set()
    for evaluator in listed(cfg.test_evaluator):
        if evaluator.type == 'CocoPanopticMetric':
            asked.add('panoptic')
        else:
            metric = evaluator.get('metric', [])
            asked.update([metric] if isinstance(metric, str) else metric)
    return asked


@pytest.fixture
def mmdet_scope():
    """What Runner sets from the config's default_scope."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.mark.usefixtures('mmdet_scope')
# The first names are equal to others, see test_first_names_are_the_1x_recipes_of_paca_s.
@pytest.mark.parametrize('path', [path for path in CONFIGS if path.count('/') > 1])
def test_predicts_and_trains_a_step(path):
    torch.manual_seed(0)
    cfg = Config.fromfile(ROOT / path)
    shrink(cfg.model)
    cfg.model.backbone.init_cfg = None  # the released weights are on the network
    model = revert_sync_batchnorm(MODELS.build(cfg.model))  # as Runner does without GPUs
    model.init_weights()  # as Runner does; DINO's level_embed is uninitialised memory before
    asked = evaluated(cfg)
    with torch.no_grad():
        results = model.eval().test_step(samples('panoptic' in asked))
    assert len(results) == 2
    for result in results:
        found = result.pred_instances
        assert len(found) and found.bboxes.shape[1] == 4 and (found.labels < NUM_CLASSES).all()
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        if 'segm' in asked:
            assert found.masks.shape == (len(found), HEIGHT, WIDTH) and found.masks.any()
        if 'panoptic' in asked:
            segments = result.pred_panoptic_seg.sem_seg
            assert segments.shape == (1, HEIGHT, WIDTH)
            classes = segments % INSTANCE_OFFSET  # after those of stuff comes "nothing"
            assert (classes <= NUM_CLASSES + NUM_STUFF).all()
            assert (classes < NUM_CLASSES + NUM_STUFF).any()

    with_grad = set()
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: with_grad.add(name))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    cfg.optim_wrapper.optimizer.lr = 1e-3
    batch = samples('panoptic' in asked)
    losses = model.train().train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    assert losses['loss'].item() > 0 and all(v.isfinite().all() for v in losses.values())
    # DDP without find_unused_parameters: every parameter takes part.
    assert with_grad == set(before)
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) > 0.9 * len(before)


@pytest.mark.parametrize('path', [c for c in CONFIGS if re.search(r'_[13]x_|configs/\w+\.py', c)])
def test_recipe(path):
    """What the authors' COCO recipe fixes, wherever the number comes from."""
    cfg = Config.fromfile(ROOT / path)
    epochs = 36 if '3x' in path else 12
    assert cfg.train_cfg.max_epochs == epochs
    optimizer = {k: v for k, v in cfg.optim_wrapper.optimizer.items() if k != '_scope_'}
    assert optimizer == dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)
    warmup, steps = cfg.param_scheduler
    assert warmup == dict(
        type='mmpaca.LinearWarmupLR', start_factor=0.001, by_epoch=False, num_iters=1000
    )
    assert steps.milestones == [epochs * 2 // 3 + (epochs == 36) * 3, epochs * 11 // 12]
    assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size
    small = cfg.model.backbone.arch in ('nano', 'micro')  # ours, without regularisation
    assert cfg.model.backbone.drop_path_rate == (0.0 if small else 0.1)
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


# Ours, and mmdet's whose recipe it keeps.
OWN_RECIPES = {
    'rtmdet-ins_l_paca-s_8xb32-300e_coco': 'rtmdet/rtmdet-ins_l_8xb32-300e_coco.py',
    'rtmdet-ins_m_paca-t_8xb32-300e_coco': 'rtmdet/rtmdet-ins_m_8xb32-300e_coco.py',
    'dino-4scale_paca-s_8xb2-12e_coco': 'dino/dino-4scale_r50_8xb2-12e_coco.py',
    'mask2former_paca-s_8xb2-lsj-50e_coco': 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'mask2former_paca-s_8xb2-lsj-50e_coco-panoptic': (
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py'
    ),
}


def plain(node):
    """A config node without the scopes that mmengine notes in what another package's base says."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items() if key != '_scope_'}
    return [plain(value) for value in node] if isinstance(node, list | tuple) else node


@pytest.mark.parametrize('name', OWN_RECIPES)
def test_recipes_of_their_own_are_mmdets(name):
    ours = Config.fromfile(ROOT / f'configs/paca_vit/{name}.py')
    theirs = Config.fromstring(f"_base_ = 'mmdet::{OWN_RECIPES[name]}'", '.py')
    if 'rtmdet' in name:
        lr = theirs.optim_wrapper.optimizer.lr = 1e-3  # as mmdet's with Swin
        theirs.param_scheduler[1].eta_min = lr / 20
        # The weights want RGB, RTMDet's own come with BGR.
        mean, std = (theirs.model.data_preprocessor[key] for key in ('mean', 'std'))
        theirs.model.data_preprocessor.update(mean=mean[::-1], std=std[::-1], bgr_to_rgb=True)
    if 'mask2former' in name:
        theirs.optim_wrapper.paramwise_cfg.custom_keys.update(ours.paca_norm_keys)
    if 'panoptic' not in name:
        theirs.train_dataloader.dataset.update(
            type='mmpaca.TolerantCocoDataset', max_bad_share=0.05
        )
        theirs.train_dataloader.dataset.pipeline[0].type = 'mmpaca.LoadVerifiedImageFromFile'
    theirs.optim_wrapper.constructor = 'MergedOptimWrapperConstructor'
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr'):
        assert plain(ours[key]) == plain(theirs[key])
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        assert plain(ours[key]) == plain(theirs[key])
    for part in set(theirs.model) - {'backbone', 'neck', 'panoptic_head'}:
        assert plain(ours.model[part]) == plain(theirs.model[part])
    hooks = [hook.type for hook in theirs.get('custom_hooks', [])]
    assert [hook.type for hook in ours.get('custom_hooks', [])] == hooks


@pytest.mark.usefixtures('mmdet_scope')
def test_mask2former_decays_no_norm():
    cfg = Config.fromfile(ROOT / 'configs/paca_vit/mask2former_paca-s_8xb2-lsj-50e_coco.py')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    found = {p: (g['lr'], g['weight_decay']) for g in groups for p in g['params']}
    norms = {p for m in model.modules() if isinstance(m, NORMS) for p in m.parameters()}
    for name, parameter in model.named_parameters():
        plain = parameter in norms or name.startswith('panoptic_head.') and 'embed.' in name
        plain = plain and 'cls_embed' not in name and 'mask_embed' not in name
        plain |= name == 'panoptic_head.query_feat.weight'
        lr = 1e-5 if name.startswith('backbone.') else 1e-4
        assert found[parameter] == (lr, 0.0 if plain else 0.05), name


def test_first_names_are_the_1x_recipes_of_paca_s():
    for first, full in (
        ('mask_rcnn_paca', 'paca_vit/mask-rcnn_paca-s_1x_coco'),
        ('retinanet_paca', 'paca_vit/retinanet_paca-s_1x_coco'),
    ):
        assert (
            Config.fromfile(ROOT / f'configs/{first}.py').to_dict()
            == Config.fromfile(ROOT / f'configs/{full}.py').to_dict()
        )
