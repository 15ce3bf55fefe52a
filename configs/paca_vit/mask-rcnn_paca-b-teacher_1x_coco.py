_base_ = './mask-rcnn_paca-b_1x_coco.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_convmixer_base_100.pth'
model = dict(
    backbone=dict(
        arch='base_teacher',
        init_cfg=dict(checkpoint=_imagenet),
    ),
)
