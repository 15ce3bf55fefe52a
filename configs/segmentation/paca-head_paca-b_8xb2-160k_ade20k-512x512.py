_base_ = './paca-head_paca-s_8xb2-160k_ade20k-512x512.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_base_p2cconv_100_0.pth'
model = dict(
    backbone=dict(arch='base', drop_path_rate=0.5, init_cfg=dict(checkpoint=_imagenet)),
    decode_head=dict(in_channels=[96, 192, 384, 512]),
)
