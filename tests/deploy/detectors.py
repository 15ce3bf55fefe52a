"""Small models with a real neck and heads, whose random weights detect something."""

from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.model import BaseModule
from mmengine.registry import MODELS, DefaultScope
from spread import spread
from torch import nn

PACA = dict(
    type='PaCaViT',
    arch=dict(
        embed_dims=(8, 8, 8, 8), num_heads=(2,) * 4, mlp_ratios=(2,) * 4, depths=(1, 1, 1, 1)
    ),
    num_clusters=(6, 6, 0, 0),
)
RESNET = dict(type='ResNet', depth=50, base_channels=4, stem_channels=4, norm_cfg=dict(type='BN'))
SWIN = dict(
    type='SwinTransformer', embed_dims=4, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=7
)
CONV = dict(type='ConvStages')  # traced in a second
CHANNELS = {
    'ConvStages': [8, 8, 8, 8],
    'PaCaViT': [8, 8, 8, 8],
    'ResNet': [16, 32, 64, 128],
    'SwinTransformer': [4, 8, 16, 32],
}
WIDTH = 8
CLASSES = ('circle', 'square', 'triangle', 'star')
_HEAD = dict(in_channels=WIDTH, feat_channels=WIDTH, num_classes=len(CLASSES))
_DENSE = dict(bbox_head=dict(_HEAD, stacked_convs=1))
_BOX = dict(
    bbox_roi_extractor=dict(out_channels=WIDTH),
    bbox_head=dict(in_channels=WIDTH, fc_out_channels=16, num_classes=len(CLASSES)),
)
_MASK = dict(
    mask_roi_extractor=dict(out_channels=WIDTH),
    mask_head=dict(
        in_channels=WIDTH, conv_out_channels=WIDTH, num_convs=1, num_classes=len(CLASSES)
    ),
)
_RPN = dict(rpn_head=dict(in_channels=WIDTH, feat_channels=WIDTH))
_FEWER = dict(test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=60)))
_RTM = dict(_HEAD, stacked_convs=1)
_ATTENTION = dict(num_levels=3, num_heads=8)
_FFN = dict(feedforward_channels=16)


def _cascade(part):
    heads = [dict(part['bbox_head']) for _ in range(3)]
    return dict(part, bbox_head=heads)


# Name: config of mmdet, changes of its model.
DETECTORS = dict(
    retinanet=('retinanet/retinanet_r50_fpn_1x_coco.py', _DENSE),
    atss=('atss/atss_r50_fpn_1x_coco.py', _DENSE),
    fcos=('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', _DENSE),
    rtmdet=('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', dict(bbox_head=_RTM)),
    rtmdet_ins=('rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py', dict(bbox_head=_RTM)),
    faster_rcnn=('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', dict(_RPN, roi_head=_BOX, **_FEWER)),
    mask_rcnn=(
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        dict(_RPN, roi_head=dict(_BOX, **_MASK), **_FEWER),
    ),
    cascade_mask_rcnn=(
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
        dict(_RPN, roi_head=dict(_BOX, **_MASK), **_FEWER),
    ),
    dino=(
        'dino/dino-4scale_r50_8xb2-12e_coco.py',
        dict(
            num_queries=30,
            num_feature_levels=3,
            encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=_ATTENTION, ffn_cfg=_FFN)),
            decoder=dict(
                num_layers=2,
                layer_cfg=dict(
                    cross_attn_cfg=_ATTENTION,
                    ffn_cfg=_FFN,
                ),
            ),
            bbox_head=dict(num_classes=len(CLASSES)),
            test_cfg=dict(max_per_img=20),
        ),
    ),
)


@MODELS.register_module(force=True)
class ConvStages(BaseModule):
    """A convolution per stage, of strides 4, 8, 16, 32."""

    def __init__(self, out_indices=(0, 1, 2, 3), init_cfg=None):
        super().__init__()
        self.out_indices = out_indices
        self.stages = nn.ModuleList(
            nn.Conv2d(8 if i else 3, 8, 3, stride=2 if i else 4, padding=1) for i in range(4)
        )

    def forward(self, x):
        outs = []
        for stage in self.stages:
            x = stage(x).relu()
            outs.append(x)
        return tuple(outs[i] for i in self.out_indices)


def detector_config(name: str, backbone: dict = PACA) -> Config:
    """Config of mmdet with a small model."""
    path, changes = DETECTORS[name]
    cfg = get_config(f'mmdet::{path}')
    model = cfg.model
    levels = model.backbone.get('out_indices', (0, 1, 2, 3))
    if name.startswith('rtmdet'):
        levels = (1, 2, 3)
    if isinstance(model.get('roi_head', {}).get('bbox_head'), list):
        changes = dict(changes)
        part = changes.pop('roi_head')
        for stage in model.roi_head.bbox_head:
            stage.update(part['bbox_head'])
        for key in ('bbox_roi_extractor', 'mask_roi_extractor', 'mask_head'):
            model.roi_head[key].update(part[key])
    merged = Config(dict(model=model))
    merged.merge_from_dict(dict(model=changes))
    model = merged.model
    model.backbone = ConfigDict(backbone, out_indices=levels)
    model.neck.in_channels = [CHANNELS[backbone['type']][i] for i in levels]
    if name != 'dino':  # whose width mmdet fixes
        model.neck.out_channels = WIDTH
    if name.startswith('rtmdet'):
        model.neck.num_csp_blocks = 1
    if name == 'dino':
        model.neck.num_outs = 3
    if name in ('fcos', 'atss'):
        model.bbox_head.norm_cfg = dict(type='GN', num_groups=2)
    cfg.model = model
    return cfg


def build(cfg: Config):
    """A detector with random weights that detects something."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model).eval()
        if hasattr(model, 'level_embed'):
            torch.nn.init.normal_(model.level_embed)
    return spread(model, lambda: predict(model, pictures(2, 96, 128)))


def save(cfg: Config, model, folder, data='nowhere') -> tuple[Path, Path]:
    """Config file with a small test scale, and checkpoint."""
    pipeline = cfg.test_dataloader.dataset.pipeline
    square = any(transform['type'] == 'Pad' for transform in pipeline)
    for transform in pipeline:
        if transform['type'] == 'Resize':
            transform['scale'] = (128, 128 if square else 96)
        if transform['type'] == 'Pad':
            transform['size'] = (128, 128)
    cfg.test_dataloader.dataset.update(
        metainfo=dict(classes=CLASSES), data_root=f'{data}/', data_prefix=dict(img='val/')
    )
    config, checkpoint = folder / 'model.py', folder / 'model.pth'
    cfg.dump(config)
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    return config, checkpoint


def pictures(batch: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Smooth random images, (B, 3, H, W), whole numbers from 0 to 255, RGB."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(batch, 3, height // 8, width // 8, generator=generator)
    image = torch.nn.functional.interpolate(noise, (height, width), mode='bicubic')
    return (image.clamp(0, 1) * 255).round()


def predict(model, images: torch.Tensor, scale: float = 1.0) -> list[dict[str, np.ndarray]]:
    """What mmdet predicts for images that were resized by 1 / scale."""
    height, width = images.shape[2:]
    meta = dict(
        img_shape=(height, width),
        ori_shape=(round(height * scale), round(width * scale)),
        scale_factor=(1 / scale, 1 / scale),
    )
    samples = [DetDataSample(metainfo=dict(meta, img_id=i)) for i in range(len(images))]
    data = dict(inputs=[i.flip(0).to(torch.uint8) for i in images], data_samples=samples)
    with DefaultScope.overwrite_default_scope('mmdet'), torch.no_grad():
        return [sample.pred_instances.numpy() for sample in model.test_step(data)]
