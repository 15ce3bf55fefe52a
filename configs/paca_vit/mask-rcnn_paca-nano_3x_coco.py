_base_ = './mask-rcnn_paca-micro_3x_coco.py'

_channels = 64
model = dict(
    backbone=dict(arch='nano'),
    neck=dict(in_channels=[32, 64, 96, 128], out_channels=_channels),
    rpn_head=dict(in_channels=_channels, feat_channels=_channels),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=_channels),
        bbox_head=dict(in_channels=_channels, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=_channels),
        mask_head=dict(num_convs=2, in_channels=_channels, conv_out_channels=_channels),
    ),
)
