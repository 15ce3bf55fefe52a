# DETR's augmentation: short side 480 to 800; with probability 0.5 after a 384x600 crop.
_resize = dict(
    type='RandomChoiceResize',
    scales=[(short, 1333) for short in range(480, 801, 32)],
    keep_ratio=True,
)
_crop = [
    dict(
        type='RandomChoiceResize', scales=[(400, 1333), (500, 1333), (600, 1333)], keep_ratio=True
    ),
    dict(
        type='RandomCrop',
        crop_type='absolute_range',
        crop_size=(384, 600),
        allow_negative_crop=True,
    ),
]
ms_crop = dict(type='RandomChoice', transforms=[[_resize], [*_crop, _resize]])
