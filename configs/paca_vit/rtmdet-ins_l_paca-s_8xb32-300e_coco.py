# RTMDet's original schedule. CachedMosaic and CachedMixUp reuse images that a dataloader worker has
# loaded before, so samples depend on the workers and --resume is not exact.
_base_ = ['mmdet::rtmdet/rtmdet-ins_l_8xb32-300e_coco.py', '../_base_/mmpaca.py']

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_100_0.pth'
model = dict(
    # RGB, as the ImageNet weights need; RTMDet's original backbone uses BGR.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
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
train_pipeline_stage2 = [_load, *_base_.train_pipeline_stage2[1:]]
train_dataloader = dict(
    dataset=dict(type='mmpaca.TolerantCocoDataset', max_bad_share=0.05, pipeline=train_pipeline)
)

# As in mmdet's RTMDet with a transformer (rtmdet_l_swin_b).
base_lr = 1e-3
optim_wrapper = dict(constructor='MergedOptimWrapperConstructor', optimizer=dict(lr=base_lr))
_warmup, _cosine = _base_.param_scheduler
param_scheduler = [_warmup, dict(_cosine, eta_min=base_lr * 0.05)]

default_hooks = _base_.mmpaca_default_hooks
_ema, _switch = _base_.custom_hooks
custom_hooks = [_ema, dict(_switch, switch_pipeline=train_pipeline_stage2)]
