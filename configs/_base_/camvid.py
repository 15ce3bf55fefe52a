# All that the models in configs/segmentation/camvid share.
_base_ = ['./datasets/camvid_240x320.py', './schedules/camvid_adamw.py', './seg_runtime.py']

default_hooks = _base_.mmpaca_default_hooks
camvid_data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=_base_.crop_size,
)
camvid_head = dict(num_classes=11, norm_cfg=dict(type='BN'))
