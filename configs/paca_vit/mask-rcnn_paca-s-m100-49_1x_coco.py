_base_ = './mask-rcnn_paca-s_1x_coco.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_100_49.pth'
model = dict(
    backbone=dict(
        num_clusters=(100, 81, 64, 49),
        init_cfg=dict(checkpoint=_imagenet),
    ),
)
