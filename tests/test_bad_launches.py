"""Failed launches end quickly on all ranks, with a readable error."""

from types import SimpleNamespace

import pytest
from commands import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmpaca.engine import ConfigCheckHook

CONFIG = ROOT / 'configs/demo/mask-rcnn_paca-demo_shapes.py'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(arch='tinny'), r"arch='tinny' is unknown, choose one of \('nano'"),
        (dict(out_indices=(0, 4)), r'out_indices=\(0, 4\) must name stages of 0..3'),
        (dict(num_clusters=-1), r'num_clusters=-1 must be 4 numbers >= 0'),
        (dict(num_clusters=(1, 2)), r'num_clusters=\(1, 2\) must be 4 numbers'),
        (dict(arch=dict(num_heads=(5, 4, 8, 16))), 'embed_dims=96 is not divisible by num_heads=5'),
    ],
)
def test_invalid_model_arguments(arguments, message):
    """The class's errors, through mmdet's registry."""
    if isinstance(arguments.get('arch'), dict):
        rest = dict(embed_dims=(96, 192, 320, 384), mlp_ratios=(4,) * 4, depths=(1,) * 4)
        arguments['arch'] = {**rest, **arguments['arch']}
    with pytest.raises(ValueError, match=message), DefaultScope.overwrite_default_scope('mmdet'):
        MODELS.build(dict(type='PaCaViT', **arguments))


def test_a_neck_with_other_channels_names_the_right_ones():
    cfg = Config.fromfile(CONFIG)
    cfg.model.neck.in_channels = [96, 192, 320, 384]
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        with pytest.raises(
            ValueError, match=r'\[96, .*set neck=dict\(in_channels=\[48, 96, 160, 192\]\)'
        ):
            ConfigCheckHook().before_run(SimpleNamespace(model=model, hooks=[]))
        cfg.model.neck.in_channels = [48, 96, 160, 192]
        ConfigCheckHook().before_run(SimpleNamespace(model=MODELS.build(cfg.model), hooks=[]))
