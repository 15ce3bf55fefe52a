# Pre-training on a small scale: the backbone of mask-rcnn_paca-demo_shapes.py as a classifier of
# scikit-learn's digits (tools/demo/make_digits.py). Takes minutes on two CPU cores.
_base_ = ['../_base_/models/paca_cls.py', '../_base_/cls_runtime.py']

data_root = 'data/digits'
max_epochs = 15
batch_size = 32

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=(48, 96, 160, 192),
            num_heads=(1, 2, 4, 4),
            mlp_ratios=(4, 4, 4, 4),
            depths=(2, 2, 2, 2),
        ),
        num_clusters=(49, 49, 0, 0),
        drop_path_rate=0.0,
    ),
    head=dict(in_channels=192, num_classes=10),
    train_cfg=None,
)
# Same normalisation as the detector's.
data_preprocessor = dict(
    num_classes=10, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)

# 8x8 scans resized to 64: 16x16, 8x8, 4x4 and 2x2 patches, more than clusters in stages 1 and 2.
_load = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=64, interpolation='bicubic'),
]
_dataset = dict(type='CustomDataset', data_root=data_root)
train_dataloader = dict(
    batch_size=batch_size,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        data_prefix='train',
        pipeline=[
            *_load,
            dict(type='RandomCrop', crop_size=64, padding=8),
            dict(type='PackInputs'),
        ],
        **_dataset,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(data_prefix='test', pipeline=[*_load, dict(type='PackInputs')], **_dataset),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        end=max_epochs,
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(base_batch_size=batch_size)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
