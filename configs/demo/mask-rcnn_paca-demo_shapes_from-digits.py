# The demo's detector, with a backbone pre-trained on digits.
_base_ = './mask-rcnn_paca-demo_shapes.py'

_digits = 'work_dirs/paca-demo_digits/epoch_15.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=_digits, prefix='backbone.'))
)
