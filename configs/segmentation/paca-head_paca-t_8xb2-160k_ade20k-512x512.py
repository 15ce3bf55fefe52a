_base_ = './paca-head_paca-s_8xb2-160k_ade20k-512x512.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_tiny_p2cconv_100_0.pth'
model = dict(backbone=dict(arch='tiny', init_cfg=dict(checkpoint=_imagenet)))
