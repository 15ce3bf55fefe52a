# The same data and budget for mmpretrain's ResNet-18, to compare with.
_base_ = './paca-demo_digits.py'

model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, out_indices=(3,)),
    head=dict(in_channels=512),
)
