# Blood cells from random weights in half an hour on two CPU cores: on val AP 0.584, AP50 0.900 (one
# run of 1,777 iterations on one core, 40 minutes). The data is the folder BCCD of
# https://github.com/Shenggan/BCCD_Dataset (MIT), at data/bccd. This file is what
#
#   mmpaca train --data data/bccd --top-view --config-only
#
# wrote, with the reasons of its decisions; it also wrote the labels to ann_dir.
_base_ = '../_base_/own_data/faster-rcnn.py'

ann_dir = 'work_dirs/bccd/annotations/'
classes = ('Platelets', 'RBC', 'WBC')

# The smaller platelets have 36 pixels, 20 after scaling.
zoom = 0.548
flips = ['horizontal', 'vertical', 'diagonal']  # no up and down under a microscope
batch_size = 4
max_iters = 1500
val_interval = 750

model = dict(
    rpn_head=dict(anchor_generator=dict(scales=[5])),  # from 20 pixels
    roi_head=dict(bbox_head=dict(num_classes=len(classes))),
    # At most 30 cells in an image.
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=400, max_per_img=200), rcnn=dict(sampler=dict(num=64))
    ),
    test_cfg=dict(rpn=dict(max_per_img=300)),
)

train_pipeline = [
    dict(type='mmpaca.LoadVerifiedImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='Resize', scale_factor=zoom * factor, keep_ratio=True)]
            for factor in (0.75, 0.87, 1.0, 1.15, 1.33)
        ],
    ),
    dict(type='RandomFlip', prob=[0.25] * 3, direction=flips),
    dict(type='Brightness', prob=0.5, min_mag=0.8, max_mag=1.2),
    dict(type='Contrast', prob=0.5, min_mag=0.8, max_mag=1.2),
    dict(type='Color', prob=0.5, min_mag=0.8, max_mag=1.2),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=zoom, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
_data = dict(data_prefix=dict(img='data/bccd/'), metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(ann_file=ann_dir + 'train.json', pipeline=train_pipeline, **_data),
)
val_dataloader = dict(dataset=dict(ann_file=ann_dir + 'val.json', pipeline=test_pipeline, **_data))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file=ann_dir + 'val.json', metric=['bbox'], classwise=True
)
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
default_hooks = dict(checkpoint=dict(interval=val_interval))
