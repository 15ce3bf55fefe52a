_base_ = './mask-rcnn_paca-s_1x_coco.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_49_100.pth'
model = dict(
    backbone=dict(
        num_clusters=(49, 64, 81, 100),
        init_cfg=dict(checkpoint=_imagenet),
    ),
)
