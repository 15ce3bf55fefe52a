_base_ = './mask-rcnn_paca-s_1x_coco.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cmlp_100_0.pth'
model = dict(
    backbone=dict(
        clustering='mlp',
        init_cfg=dict(checkpoint=_imagenet),
    ),
)
