# The demo's detector on the backbone of the digits classifier instead of random weights.
_base_ = './mask-rcnn_paca-demo_shapes.py'

_digits = 'work_dirs/paca-demo_digits/epoch_15.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=_digits, prefix='backbone.'))
)
