_base_ = [
    '../_base_/models/mask-rcnn_paca_fpn.py',
    '../_base_/datasets/coco_overfit.py',
    '../_base_/schedules/schedule_overfit.py',
]

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.0),
    neck=dict(norm_cfg=dict(type='GN', num_groups=32)),  # from random weights, norms are needed
)
