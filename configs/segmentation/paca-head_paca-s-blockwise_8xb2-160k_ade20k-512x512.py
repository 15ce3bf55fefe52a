_base_ = './paca-head_paca-s-m100_8xb2-160k_ade20k-512x512.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_100_blockwise.pth'
model = dict(backbone=dict(cluster_interval=1, init_cfg=dict(checkpoint=_imagenet)))
