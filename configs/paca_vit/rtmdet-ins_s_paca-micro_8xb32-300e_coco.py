# With the neck and head of RTMDet-s, from random weights.
_base_ = './rtmdet-ins_l_paca-s_8xb32-300e_coco.py'

model = dict(
    backbone=dict(arch='micro', drop_path_rate=0.0, init_cfg=None),
    neck=dict(in_channels=[96, 160, 224], out_channels=128, num_csp_blocks=1),
    bbox_head=dict(in_channels=128, feat_channels=128),
)
