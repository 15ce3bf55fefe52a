_base_ = [
    '../_base_/models/retinanet_paca_fpn.py',
    '../_base_/datasets/coco_overfit.py',
    '../_base_/schedules/schedule_overfit.py',
]

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.0),
    neck=dict(norm_cfg=dict(type='GN', num_groups=32)),  # needed when training from scratch
)
test_evaluator = dict(metric='bbox')
