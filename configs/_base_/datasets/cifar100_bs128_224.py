# Resized and normalised as for the ImageNet weights.
_base_ = './cifar100_bs128_32.py'

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
_resize = dict(type='Resize', scale=224, backend='pillow', interpolation='bicubic')
train_pipeline = [*_base_.crop_and_flip, _resize, *_base_.augment]
test_pipeline = [_resize, dict(type='PackInputs')]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
