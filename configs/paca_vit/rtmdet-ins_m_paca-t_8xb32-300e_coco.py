# With the neck and head of RTMDet-m.
_base_ = './rtmdet-ins_l_paca-s_8xb32-300e_coco.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_tiny_p2cconv_100_0.pth'
model = dict(
    backbone=dict(
        arch='tiny',
        init_cfg=dict(checkpoint=_imagenet),
    ),
    neck=dict(out_channels=192, num_csp_blocks=2),
    bbox_head=dict(in_channels=192, feat_channels=192),
)
