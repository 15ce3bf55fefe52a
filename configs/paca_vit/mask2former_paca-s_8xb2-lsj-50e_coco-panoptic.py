# Mask2Former's original schedule. mmdet needs panopticapi to read and evaluate segments.
_base_ = [
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py',
    '../_base_/schedules/paca_norm_keys.py',
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
    panoptic_head=dict(in_channels=[96, 192, 320, 384]),
)

optim_wrapper = dict(
    constructor='MergedOptimWrapperConstructor',
    paramwise_cfg=dict(custom_keys=_base_.paca_norm_keys),
)
default_hooks = _base_.mmpaca_default_hooks
