_base_ = './paca-head_paca-s_8xb2-160k_ade20k-512x512.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_2_0.pth'
# Pre-trained with other clusters; the segmentor is that of paca-head_paca-s.
model = dict(backbone=dict(init_cfg=dict(checkpoint=_imagenet)))
