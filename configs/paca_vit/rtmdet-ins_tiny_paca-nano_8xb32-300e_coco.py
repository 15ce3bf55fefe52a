# With the neck and head of RTMDet-tiny, from random weights.
_base_ = './rtmdet-ins_s_paca-micro_8xb32-300e_coco.py'

model = dict(
    backbone=dict(arch='nano'),
    neck=dict(in_channels=[64, 96, 128], out_channels=96),
    bbox_head=dict(in_channels=96, feat_channels=96),
)
