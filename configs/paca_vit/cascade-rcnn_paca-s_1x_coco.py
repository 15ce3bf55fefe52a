_base_ = [
    '../_base_/models/cascade-rcnn_paca_fpn.py',
    '../_base_/datasets/coco_detection_ms-crop.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime.py',
]

_imagenet = 'https://github.com/iVMCL/PaCaViT/releases/download/pacavit/IMNET_224_pacavit_small_p2cconv_100_0.pth'
model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=_imagenet)))
