_base_ = './paca-t_cifar100_224.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_100_0.pth'
model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint=_imagenet)))
