# ADE20K, 8 GPUs x 2 images of 512x512; missing or wrong files are errors that name them.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

train_pipeline = [
    dict(type='mmpaca.LoadVerifiedSegImage'),
    dict(type='mmpaca.LoadVerifiedSegMap'),
    *_base_.train_pipeline[2:],
]
test_pipeline = [
    *_base_.test_pipeline[:2],
    dict(type='mmpaca.LoadVerifiedSegMap'),
    *_base_.test_pipeline[3:],
]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
