_base_ = ['mmdet::_base_/datasets/coco_detection.py', './ms_crop.py']

train_pipeline = [
    dict(type='mmpaca.LoadVerifiedImageFromFile', backend_args={{_base_.backend_args}}),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    {{_base_.ms_crop}},
    dict(type='PackDetInputs'),
]
# Broken images and annotations are skipped and logged, up to max_bad_share of the images.
train_dataloader = dict(
    dataset=dict(type='mmpaca.TolerantCocoDataset', max_bad_share=0.05, pipeline=train_pipeline)
)
# Errors name what is wrong with the file, see docs/own_dataset.md.
val_dataloader = dict(dataset=dict(type='mmpaca.TolerantCocoDataset'))
test_dataloader = val_dataloader
