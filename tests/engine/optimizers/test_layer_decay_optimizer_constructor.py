import copy

import pytest
import torch
from mmdet.registry import MODELS as DETECTORS
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS as CLASSIFIERS
from torch import nn

RATE, LR, DECAY = 0.8, 1e-4, 0.05
OPTIM = dict(
    constructor='LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY),
    paramwise_cfg=dict(layer_decay_rate=RATE, norm_decay_mult=0.0),
)
# PaCa-T has 2 + 2 + 4 + 2 blocks: the stem is layer 0, what follows the backbone layer 11.
LAYERS = {
    'backbone.stem.convs.0.weight': 0,
    'backbone.stages.0.blocks.0.attn.q.weight': 1,
    'backbone.stages.0.blocks.1.norm1.weight': 2,
    'backbone.stages.0.norm.weight': 2,
    'backbone.stages.1.downsample.conv.weight': 3,
    'backbone.stages.2.blocks.3.mlp.fc2.bias': 8,
    'backbone.stages.3.blocks.1.attn.proj.weight': 10,
}


@pytest.fixture(scope='module', params=['detector', 'classifier'])
def model(request, root) -> nn.Module:
    name = {
        'detector': 'paca_vit/mask-rcnn_paca-t_1x_coco.py',
        'classifier': 'classification/paca-t_8xb128_in1k.py',
    }[request.param]
    cfg = Config.fromfile(root / 'configs' / name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return (DETECTORS if request.param == 'detector' else CLASSIFIERS).build(cfg.model)


def settings(model: nn.Module, cfg: dict) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay by the parameter's name."""
    optimizer = build_optim_wrapper(model, cfg).optimizer
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = [(g, p) for g in optimizer.param_groups for p in g['params']]
    assert len(groups) == len(names)
    return {names[p]: (g['lr'], g['weight_decay']) for g, p in groups}


def with_options(**options: object) -> dict:
    cfg = copy.deepcopy(OPTIM)
    cfg['paramwise_cfg'].update(options)
    return cfg


def test_rates_fall_with_the_distance_from_the_head(model):
    after = {name: 11 for name, _ in model.named_parameters() if not name.startswith('backbone.')}
    found = settings(model, OPTIM)
    for name, layer in {**LAYERS, **after}.items():
        assert found[name][0] == LR * RATE ** (11 - layer)
    assert {lr for lr, _ in found.values()} == {LR * RATE**k for k in range(12)}


def test_weight_decay_is_that_of_the_default_constructor(model):
    rest = dict(bias_decay_mult=0.5, flat_decay_mult=0.25)
    default = with_options(**rest)
    del default['constructor'], default['paramwise_cfg']['layer_decay_rate']
    found, expected = settings(model, with_options(**rest)), settings(model, default)
    assert {n: wd for n, (_, wd) in found.items()} == {n: wd for n, (_, wd) in expected.items()}
    assert {wd for _, wd in found.values()} == {0.0, DECAY, DECAY / 2}


def test_custom_keys_are_decayed_too(model):
    keys = {'stages.3.blocks.1.attn': dict(lr_mult=3.0, decay_mult=0.1)}
    found = settings(model, with_options(custom_keys=keys))
    assert found['backbone.stages.3.blocks.1.attn.q.bias'] == (3 * LR * RATE, DECAY * 0.1)
    assert found['backbone.stages.3.blocks.1.mlp.fc1.weight'] == (LR * RATE, DECAY)


def test_rate_one_changes_nothing(model):
    assert {lr for lr, _ in settings(model, with_options(layer_decay_rate=1)).values()} == {LR}


def test_few_groups(model):
    """Two per layer: with weight decay and, the norms, without. Only the heads have no norms."""
    groups = build_optim_wrapper(model, OPTIM).optimizer.param_groups
    assert len(groups) == 23
    assert {g['lr_scale'] for g in groups} == {RATE**k for k in range(12)}


def test_frozen_stages_are_skipped(model):
    frozen = copy.deepcopy(model)
    frozen.backbone.frozen_stages = 1
    frozen.train()
    groups = build_optim_wrapper(frozen, OPTIM).optimizer.param_groups
    assert min(g['lr'] for g in groups) == LR * RATE**6


def test_under_ddp(model, tmp_path):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1
    )
    try:
        wrapped = MMDistributedDataParallel(copy.deepcopy(model))
        found = settings(wrapped, OPTIM)
    finally:
        torch.distributed.destroy_process_group()
    assert found == {f'module.{name}': value for name, value in settings(model, OPTIM).items()}


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)


@pytest.mark.parametrize('rate', [0, -0.5, 1.01, '0.9', None])
def test_wrong_rates_are_named(rate):
    with pytest.raises(ValueError, match=f'layer_decay_rate={rate!r} must be a number > 0'):
        build_optim_wrapper(Plain(), with_options(layer_decay_rate=rate))


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match='layer_decay_rate=None .*paramwise_cfg'):
        build_optim_wrapper(Plain(), {**OPTIM, 'paramwise_cfg': None})
    with pytest.raises(ValueError, match='optimizer.lr'):
        build_optim_wrapper(Plain(), {**OPTIM, 'optimizer': dict(type='AdamW', weight_decay=DECAY)})
    with pytest.raises(TypeError, match='get_layer_depth, and Linear has none'):
        build_optim_wrapper(Plain(), OPTIM)


def test_shared_parameters():
    """As in RTMDet's head."""

    class Sharing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.Sequential(nn.Linear(2, 2)) for _ in range(2))
            self.second[0].weight = self.first[0].weight

        def get_layer_depth(self, name: str, prefix: str) -> tuple[int, int]:
            return 0, 3

    with pytest.raises(ValueError, match='bypass_duplicate=True'):
        build_optim_wrapper(Sharing(), OPTIM)
    found = settings(Sharing(), with_options(bypass_duplicate=True))
    assert set(found) == {'first.0.weight', 'first.0.bias', 'second.0.bias'}
    assert {lr for lr, _ in found.values()} == {LR * RATE**2}
