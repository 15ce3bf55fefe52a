_base_ = [
    '../_base_/models/mask-rcnn_paca_fpn.py',
    '../_base_/datasets/coco_overfit.py',
    '../_base_/schedules/schedule_overfit.py',
]

model = dict(
    backbone=dict(arch='tiny', drop_path_rate=0.0),
    neck=dict(norm_cfg=dict(type='GN', num_groups=32)),  # needed when training from scratch
    # Few RoIs, for CPUs.
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64))
    ),
)
