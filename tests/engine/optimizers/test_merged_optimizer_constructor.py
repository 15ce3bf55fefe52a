import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn
from toy import TINY

import mmpaca
from mmpaca.models import PaCaViT

MERGED = dict(
    constructor='MergedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, custom_keys={'stages.2': dict(lr_mult=0.1, decay_mult=0.5)}
    ),
)
PLAIN = dict(MERGED, constructor='DefaultOptimWrapperConstructor')


def build(cfg: dict) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = PaCaViT(TINY, num_clusters=5, drop_path_rate=0.0)
    return model, build_optim_wrapper(model, copy.deepcopy(cfg)).optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> dict:
    x = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        optimizer.zero_grad()
        sum((out**2).mean() for out in model(x)).backward()
        optimizer.step()
    return model.state_dict()


def test_the_same_weights_after_three_steps_in_three_groups():
    merged, plain = build(MERGED), build(PLAIN)
    assert len(plain[1].param_groups) == len(list(plain[0].parameters())) > 100
    assert [(g['lr'], g['weight_decay']) for g in merged[1].param_groups] == [
        (1e-3, 0.05),
        (1e-3, 0.0),
        (1e-4, 0.025),
    ]
    torch.testing.assert_close(train(*merged, 3), train(*plain, 3), rtol=0, atol=0)


def test_a_state_resumes_only_into_equal_groups():
    """A run before the merging, another config, and another model; each says what to do."""
    _, plain = build(PLAIN)
    model, merged = build(MERGED)
    with pytest.raises(ValueError, match='constructor=DefaultOptimWrapperConstructor'):
        merged.load_state_dict(plain.state_dict())
    _, other = build(dict(MERGED, paramwise_cfg=dict(norm_decay_mult=0.0)))
    with pytest.raises(
        ValueError, match='has 2 parameter groups and this optimizer 3: resume with'
    ):
        merged.load_state_dict(other.state_dict())
    state = merged.state_dict()
    state['param_groups'] = state['param_groups'][:1]
    with pytest.raises(ValueError, match='state of .* parameters and this model has'):
        merged.load_state_dict(state)
    train(model, merged, 1)
    again = build(MERGED)
    again[0].load_state_dict(model.state_dict())
    again[1].load_state_dict(copy.deepcopy(merged.state_dict()))
    torch.testing.assert_close(train(model, merged, 1), train(*again, 1), rtol=0, atol=0)


def test_without_options_there_is_one_group():
    _, optimizer = build(dict(MERGED, paramwise_cfg=None))
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    'name',
    [
        'mask_rcnn_paca',
        'atss_paca-s_1x_coco',
        'dino-4scale_paca-t_8xb2-12e_coco',
        'mask2former_paca-s_8xb2-lsj-50e_coco-panoptic',
        'rtmdet-ins_m_paca-t_8xb32-300e_coco',
        'paca-t_cifar100_224',
        'paca-demo_digits',
        'mask-rcnn_paca-demo_shapes_clusters',
    ],
)
def test_configs_merge_groups(name):
    config = Config.fromfile(mmpaca.apis.configs.find_config(name))
    assert config.optim_wrapper.constructor == 'MergedOptimWrapperConstructor'
