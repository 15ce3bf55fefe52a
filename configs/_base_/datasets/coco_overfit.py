# Train and test on eight small images of a dataset in COCO's layout: a quick check that model, data
# and evaluation work together. Set COCO_ROOT to the dataset's folder.
data_root = '{{$COCO_ROOT:data/coco/}}'
scale = (256, 192)
num_images = 8

_prepare = [
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
]
_dataset = dict(
    type='mmpaca.TolerantCocoDataset',
    data_root=data_root,
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
    filter_cfg=dict(filter_empty_gt=True),
    indices=num_images,
)
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        pipeline=[
            dict(type='mmpaca.LoadVerifiedImageFromFile'),
            *_prepare,
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
        **_dataset,
    ),
)
# Annotations are taken from the samples, so that only the eight images are evaluated.
_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),  # by this name mmdet's inferencer finds it
            *_prepare,
            dict(type='PackDetInputs', meta_keys=_keys),
        ],
        **_dataset,
    ),
)
test_evaluator = dict(type='CocoMetric', metric=['bbox', 'segm'])
