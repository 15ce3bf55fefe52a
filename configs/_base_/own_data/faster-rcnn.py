# Faster R-CNN from random weights for a small dataset: what `mmpaca train --data` inherits from. Its
# config adds classes, paths, resolution, anchors, batch and length.
_base_ = ['../models/faster-rcnn_paca_fpn.py', './schedule.py']

# Heads without norms learn slowly from scratch; BatchNorm also learns from batches of two.
norm_cfg = dict(type='BN')
_channels = 64
model = dict(
    backbone=dict(arch='micro', drop_path_rate=0.0),
    neck=dict(
        in_channels=[48, 96, 160, 224], out_channels=_channels, num_outs=4, norm_cfg=norm_cfg
    ),
    rpn_head=dict(
        in_channels=_channels,
        feat_channels=_channels,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=_channels, roi_layer=dict(sampling_ratio=1)),
        # Boxes regressed for all classes together: rare classes learn from frequent ones.
        bbox_head=dict(in_channels=_channels, fc_out_channels=256, reg_class_agnostic=True),
    ),
)
