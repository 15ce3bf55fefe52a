_base_ = './mask-rcnn_paca-s_1x_coco.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_100_blockwise.pth'
model = dict(
    backbone=dict(
        num_clusters=(100, 100, 100, 100),
        cluster_interval=1,
        init_cfg=dict(checkpoint=_imagenet),
    ),
)
