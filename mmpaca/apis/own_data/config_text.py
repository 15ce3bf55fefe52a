"""A recipe as a config file that its user can read and edit."""

import textwrap
from pathlib import Path

from mmpaca import __version__

from .prepare import PreparedData
from .recipe import Decision, Recipe
from .statistics import Statistics

JITTER = (0.75, 0.87, 1.0, 1.15, 1.33)
_BASES = dict(detect='faster-rcnn.py', instance='mask-rcnn.py')
_METRICS = dict(detect="['bbox']", instance="['bbox', 'segm']")


def write_config(
    path: Path,
    data: PreparedData,
    found: Statistics,
    recipe: Recipe,
    length: Decision,
    val_interval: Decision,
    work_dir: Path,
) -> None:
    """Write the config.

    Args:
        path: file to write.
        data: paths and classes.
        found: statistics that comments mention.
        recipe: decisions.
        length: number of iterations.
        val_interval: iterations between evaluations.
        work_dir: folder for checkpoints and logs.
    """
    head = _head(data, found, work_dir)
    body = [_decisions(recipe, length, val_interval), _model(data.task, recipe)]
    body += [_pipelines(data.task, recipe), _loaders(data.task)]
    path.write_text('\n'.join([head, *body]))


def _head(data: PreparedData, found: Statistics, work_dir: Path) -> str:
    notes = ''.join(f'# {line}\n' for note in data.notes for line in _wrapped(f'- {note}.'))
    counts = ', '.join(f'{name} {number}' for name, number in found.counts.items())
    classes = ''.join(f'    {name!r},\n' for name in data.classes)
    images = found.num_images
    return (
        f'# Written by mmpaca {__version__}; yours to edit. Train with: mmpaca train THIS_FILE\n'
        f'# Labels: {data.format}. {images["train"]} images for training, {images["val"]} for validation.\n'
        + ''.join(f'# {line}\n' for line in _wrapped(f'Objects for training: {counts}.'))
        + notes
        + f"_base_ = 'mmpaca::_base_/own_data/{_BASES[data.task]}'\n\n"
        f'data_root = {str(data.root) + "/"!r}  # file names in the annotations are relative to it\n'
        f"ann_dir = {str(data.ann_dir) + '/'!r}  # the labels in COCO's format\n"
        f'work_dir = {str(work_dir)!r}  # checkpoints and logs\n'
        f'classes = (\n{classes})\n'
    )


def _wrapped(text: str, width: int = 96) -> list[str]:
    return textwrap.wrap(text, width)


def _line(name: str, decision: Decision) -> str:
    """Write an assignment with its reason above it."""
    reason = ''.join(
        f'# {line}\n' for line in _wrapped(f'{decision.why[0].upper()}{decision.why[1:]}.')
    )
    return f'{reason}{name} = {decision.value!r}\n'


def _decisions(recipe: Recipe, length: Decision, val_interval: Decision) -> str:
    lines = [_line('arch', recipe.arch)]
    if recipe.zoom is not None:
        lines.append(_line('zoom', recipe.zoom))
    if recipe.long_side is not None:
        lines.append(_line('long_side', recipe.long_side))
    lines += [
        _line('crop', recipe.crop),
        _line('flips', recipe.flips),
        _line('batch_size', recipe.batch_size),
        _line('max_iters', length),
        _line('val_interval', val_interval),
        _line('anchor_scale', recipe.anchor_scale),
        _line('anchor_ratios', recipe.anchor_ratios),
        _line('strides', recipe.strides),
        _line('max_per_img', recipe.max_per_img),
        _line('proposals', recipe.proposals),
        _line('samples', recipe.samples),
    ]
    return '\n'.join(lines)


def _model(task: str, recipe: Recipe) -> str:
    mask_head = 'mask_head=dict(num_classes=len(classes)),\n        ' if task == 'instance' else ''
    return f"""\
model = dict(
    backbone=dict(arch=arch),
    neck=dict(in_channels={recipe.in_channels}, num_outs=len(strides)),
    rpn_head=dict(
        anchor_generator=dict(scales=[anchor_scale], ratios=anchor_ratios, strides=strides)
    ),
    roi_head=dict(
        {mask_head}bbox_head=dict(num_classes=len(classes)),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=2 * proposals, max_per_img=proposals),
        rcnn=dict(sampler=dict(num=samples)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=max(300, 2 * max_per_img)),
        rcnn=dict(max_per_img=max_per_img),
    ),
)
"""


def _pipelines(task: str, recipe: Recipe) -> str:
    load = f"dict(type='LoadAnnotations', with_bbox=True, with_mask={task == 'instance'})"
    if recipe.zoom is not None:
        jittered, resize = 'scale_factor=zoom * factor', 'scale_factor=zoom'
    else:
        jittered = 'scale=(round(long_side * factor), round(long_side * factor))'
        resize = 'scale=(long_side, long_side)'
    magnitudes = 'prob=0.5, min_mag=0.8, max_mag=1.2'
    kinds = ('Brightness', 'Contrast') if recipe.grey.value else ('Brightness', 'Contrast', 'Color')
    colours = ''.join(f"    dict(type='{kind}', {magnitudes}),\n" for kind in kinds)
    crop = ''
    if recipe.crop.value:
        crop = "    dict(type='RandomCrop', crop_size=(crop, crop), allow_negative_crop=False),\n"
    return f"""\
train_pipeline = [
    dict(type='mmpaca.LoadVerifiedImageFromFile'),
    {load},
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='Resize', {jittered}, keep_ratio=True)]
            for factor in {JITTER}
        ],
    ),
{crop}    dict(type='RandomFlip', prob=[1 / (len(flips) + 1)] * len(flips), direction=flips),
{colours}    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', {resize}, keep_ratio=True),
    {load},
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
"""


def _loaders(task: str) -> str:
    return f"""\
_data = dict(data_root=data_root, data_prefix=dict(img=''), metainfo=dict(classes=classes))
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(ann_file=ann_dir + 'train.json', pipeline=train_pipeline, **_data),
)
val_dataloader = dict(
    dataset=dict(ann_file=ann_dir + 'val.json', pipeline=test_pipeline, **_data)
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file=ann_dir + 'val.json', metric={_METRICS[task]}, classwise=True
)
test_evaluator = val_evaluator

train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
default_hooks = dict(checkpoint=dict(interval=val_interval))
"""
