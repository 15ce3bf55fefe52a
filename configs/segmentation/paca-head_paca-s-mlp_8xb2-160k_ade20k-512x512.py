_base_ = './paca-head_paca-s_8xb2-160k_ade20k-512x512.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cmlp_100_0.pth'
model = dict(backbone=dict(clustering='mlp', init_cfg=dict(checkpoint=_imagenet)))
