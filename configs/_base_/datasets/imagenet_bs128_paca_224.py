# As Swin: RandAugment m9 n2 mstd0.5 inc, random erasing 0.25 with pixel noise, bicubic, ImageNet's
# mean and std. The authors also list colour jitter 0.4, which timm skips when RandAugment is on.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    # 224 / 0.9, rounded down as in timm.
    dict(type='ResizeEdge', scale=248, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=128, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
