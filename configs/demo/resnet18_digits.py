# Comparison: mmpretrain's ResNet-18 with the same data and schedule.
_base_ = './paca-demo_digits.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, out_indices=(3,)),
    head=dict(in_channels=512),
)
