_base_ = './paca-head_paca-s_8xb2-160k_ade20k-512x512.py'

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_convmixer_small_100.pth'
model = dict(
    backbone=dict(arch='small_teacher', num_clusters=200, init_cfg=dict(checkpoint=_imagenet))
)
# The authors' keys do not match the teacher's norms under their names: they are decayed.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(teacher=dict())))
