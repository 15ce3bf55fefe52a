_base_ = 'mmdet::_base_/models/cascade-rcnn_r50_fpn.py'

model = dict(
    backbone=dict(_delete_=True, type='PaCaViT', arch='small', drop_path_rate=0.1),
    neck=dict(in_channels=[96, 192, 320, 384]),
)
