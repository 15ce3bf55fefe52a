_base_ = [
    '../_base_/models/paca_cls.py',
    '../_base_/datasets/imagenet_bs128_paca_224.py',
    '../_base_/schedules/imagenet_bs1024_adamw_paca.py',
    '../_base_/cls_runtime.py',
]
