_base_ = './mask-rcnn_paca-s_1x_coco.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_convmixer_small_100.pth'
model = dict(
    backbone=dict(
        arch='small_teacher',
        init_cfg=dict(checkpoint=_imagenet),
    ),
)
