_base_ = './cascade-rcnn_paca-s_1x_coco.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_tiny_p2cconv_100_0.pth'
model = dict(
    backbone=dict(
        arch='tiny',
        init_cfg=dict(checkpoint=_imagenet),
    ),
)
