# Data, optimizer and warm-up as in the other 1x configs.
_base_ = [
    'mmdet::atss/atss_r50_fpn_1x_coco.py',
    '../_base_/datasets/ms_crop.py',
    '../_base_/mmpaca.py',
]

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_100_0.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='PaCaViT',
        arch='small',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=_imagenet),
    ),
    neck=dict(in_channels=[96, 192, 320, 384]),
)

train_pipeline = [
    dict(type='mmpaca.LoadVerifiedImageFromFile', backend_args={{_base_.backend_args}}),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    {{_base_.ms_crop}},
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    dataset=dict(type='mmpaca.TolerantCocoDataset', max_bad_share=0.05, pipeline=train_pipeline)
)

optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
_warmup = dict(type='mmpaca.LinearWarmupLR', start_factor=0.001, by_epoch=False, num_iters=1000)
param_scheduler = [_warmup, _base_.param_scheduler[1]]

default_hooks = _base_.mmpaca_default_hooks
