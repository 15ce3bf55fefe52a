_base_ = './retinanet_paca-micro_3x_coco.py'

_channels = 64
model = dict(
    backbone=dict(arch='nano'),
    neck=dict(in_channels=[32, 64, 96, 128], out_channels=_channels),
    bbox_head=dict(stacked_convs=2, in_channels=_channels, feat_channels=_channels),
)
