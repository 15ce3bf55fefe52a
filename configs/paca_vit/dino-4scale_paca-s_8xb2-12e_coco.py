# DINO's original schedule.
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/mmpaca.py']

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_100_0.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='PaCaViT',
        arch='small',
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=_imagenet),
    ),
    neck=dict(in_channels=[192, 320, 384]),
)

_load = dict(type='mmpaca.LoadVerifiedImageFromFile', backend_args={{_base_.backend_args}})
train_pipeline = [_load, *_base_.train_pipeline[1:]]
train_dataloader = dict(
    dataset=dict(type='mmpaca.TolerantCocoDataset', max_bad_share=0.05, pipeline=train_pipeline)
)

optim_wrapper = dict(constructor='MergedOptimWrapperConstructor')
default_hooks = _base_.mmpaca_default_hooks
