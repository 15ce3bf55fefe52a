# Config of `make demo`: a small Mask R-CNN on generated shapes, minutes on two CPU cores.
_base_ = ['../_base_/models/mask-rcnn_paca_fpn.py', '../_base_/default_runtime.py']

classes = ('circle', 'square', 'triangle', 'star')
data_root = 'data/shapes/'
max_iters = 720
batch_size = 8
norm_cfg = dict(type='BN')  # heads without norms learn slowly from scratch

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=(48, 96, 160, 192),
            num_heads=(1, 2, 4, 4),
            mlp_ratios=(4, 4, 4, 4),
            depths=(2, 2, 2, 2),
        ),
        num_clusters=(49, 49, 0, 0),  # stage 3 has 36 patches only
        drop_path_rate=0.0,
    ),
    neck=dict(in_channels=[48, 96, 160, 192], out_channels=64, num_outs=4, norm_cfg=norm_cfg),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            out_channels=64, featmap_strides=[4, 8, 16], roi_layer=dict(sampling_ratio=1)
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=4, reg_class_agnostic=True),
        mask_roi_extractor=dict(
            out_channels=64,
            featmap_strides=[4, 8, 16],
            roi_layer=dict(output_size=7, sampling_ratio=1),
        ),
        mask_head=dict(
            num_convs=2, in_channels=64, conv_out_channels=64, num_classes=4, norm_cfg=norm_cfg
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32), mask_size=14),
    ),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100)),
)

train_pipeline = [
    dict(type='mmpaca.LoadVerifiedImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=[0.4, 0.4], direction=['horizontal', 'vertical']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
_dataset = dict(
    type='mmpaca.TolerantCocoDataset', data_root=data_root, metainfo=dict(classes=classes)
)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
        **_dataset,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=test_pipeline,
        **_dataset,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file=data_root + 'annotations/val.json', metric=['bbox', 'segm']
)
test_evaluator = val_evaluator

train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=400)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=max_iters, eta_min=1e-5),
]
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=200, max_keep_ckpts=1),
    visualization=dict(score_thr=0.5),
)
visualizer = dict(line_width=1)  # small images
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
