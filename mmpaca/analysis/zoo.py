"""Backbones to compare: PaCa-ViT and its peers in mmdet and mmpretrain."""

import ast
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

_ALL_STAGES = (0, 1, 2, 3)
_PVT = dict(type='mmdet.PyramidVisionTransformerV2', embed_dims=64)

#: name: (backbone, published box AP of Mask R-CNN 1x on COCO, or None).
PEERS: dict[str, tuple[dict, float | None]] = {
    'paca-t': (dict(type='PaCaViT', arch='tiny'), 43.3),
    'paca-s': (dict(type='PaCaViT', arch='small'), 46.4),
    'paca-b': (dict(type='PaCaViT', arch='base'), 48.0),
    'resnet-50': (dict(type='mmdet.ResNet', depth=50), 38.0),
    'swin-t': (dict(type='mmdet.SwinTransformer'), 42.7),
    'convnext-t': (
        dict(
            type='mmpretrain.ConvNeXt',
            arch='tiny',
            out_indices=_ALL_STAGES,
            gap_before_final_norm=False,
        ),
        43.5,
    ),
    'pvtv2-b1': (dict(_PVT, num_layers=(2, 2, 2, 2)), 41.8),
    'pvtv2-b2': (dict(_PVT, num_layers=(3, 4, 6, 3)), 45.3),
}


def parse_backbone(text: str) -> tuple[str, dict]:
    """Parse a backbone of the command line.

    Args:
        text: a key of :data:`PEERS`, path of a config file (its ``model.backbone`` is taken), or
            ``NAME={'type': ...}``.

    Returns:
        Name and config of the backbone.

    Raises:
        ValueError: ``text`` is none of these.
    """
    if text in PEERS:
        return text, PEERS[text][0]
    if text.endswith('.py') and Path(text).is_file():
        config = Config.fromfile(text)
        backbone = config.model.backbone.to_dict()
        backbone.pop('init_cfg', None)  # costs do not depend on the weights
        if '.' not in backbone['type'] and backbone['type'] != 'PaCaViT':
            backbone['type'] = f'{config.default_scope}.{backbone["type"]}'
        return Path(text).stem, backbone
    name, _, literal = text.partition('=')
    try:
        backbone = ast.literal_eval(literal)
        if 'type' in backbone:
            return name, backbone
    except (SyntaxError, TypeError, ValueError):
        pass
    raise ValueError(
        f"{text!r} is neither one of {', '.join(PEERS)}, nor a config file, nor NAME={{'type': ...}}"
    )


def build_backbone(backbone: dict[str, Any]) -> nn.Module:
    """Build a backbone, with random weights.

    Args:
        backbone: config whose types carry their scope, as in ``mmdet.ResNet``.

    Raises:
        KeyError: the type is not registered.
    """
    init_default_scope('mmengine')
    return MODELS.build(dict(backbone))
