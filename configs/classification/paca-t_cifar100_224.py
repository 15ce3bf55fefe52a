_base_ = [
    '../_base_/models/paca_cls.py',
    '../_base_/datasets/cifar100_bs128_224.py',
    '../_base_/schedules/cifar100_bs128_finetune.py',
    '../_base_/cls_runtime.py',
]

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_tiny_p2cconv_100_0.pth'
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(type='Pretrained', checkpoint=_imagenet)),
    head=dict(num_classes=100),
)
