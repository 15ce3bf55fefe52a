_base_ = [
    '../_base_/models/upernet_paca.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/ade20k_160k_adamw.py',
    '../_base_/seg_runtime.py',
]
default_hooks = _base_.mmpaca_default_hooks

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_100_0.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=_imagenet)))
