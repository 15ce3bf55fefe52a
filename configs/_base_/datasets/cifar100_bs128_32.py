# ImageNet's augmentation after CIFAR's usual crop and flip. The files store RGB images.
_base_ = 'mmpretrain::_base_/datasets/cifar100_bs16.py'

_mean, _std = _base_.data_preprocessor.mean, _base_.data_preprocessor.std
augment = [
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[round(x) for x in _mean], interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=_mean,
        fill_std=_std,
    ),
    dict(type='PackInputs'),
]
crop_and_flip = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
]

train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    dataset=dict(download=False, pipeline=[*crop_and_flip, *augment]),
)
val_dataloader = dict(batch_size=128, dataset=dict(download=False))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, 5))
test_evaluator = val_evaluator
