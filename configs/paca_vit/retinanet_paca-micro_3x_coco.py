# Neck and head of the width of mask-rcnn_paca-micro_3x_coco.py, and as there from random weights.
_base_ = [
    '../_base_/models/retinanet_paca_fpn.py',
    '../_base_/datasets/coco_detection_ms-crop.py',
    '../_base_/schedules/schedule_3x.py',
    '../_base_/default_runtime.py',
]

_channels = 96
_norm = dict(type='GN', num_groups=16)
model = dict(
    backbone=dict(arch='micro', drop_path_rate=0.0, init_cfg=None),
    neck=dict(in_channels=[48, 96, 160, 224], out_channels=_channels, norm_cfg=_norm),
    bbox_head=dict(in_channels=_channels, feat_channels=_channels, norm_cfg=_norm),
)
