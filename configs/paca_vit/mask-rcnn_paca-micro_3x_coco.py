# Three million parameters in the backbone, FPN and heads to match, from random weights: GroupNorm in
# the neck and heads, as in mmdet's configs/scratch.
_base_ = './mask-rcnn_paca-s_3x_coco.py'

_channels = 96
_norm = dict(type='GN', num_groups=16)
model = dict(
    backbone=dict(arch='micro', drop_path_rate=0.0, init_cfg=None),
    neck=dict(in_channels=[48, 96, 160, 224], out_channels=_channels, norm_cfg=_norm),
    rpn_head=dict(in_channels=_channels, feat_channels=_channels),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=_channels),
        bbox_head=dict(in_channels=_channels, fc_out_channels=384),
        mask_roi_extractor=dict(out_channels=_channels),
        mask_head=dict(in_channels=_channels, conv_out_channels=_channels, norm_cfg=_norm),
    ),
)
