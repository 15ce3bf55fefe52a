"""Check before a run that the parts of a config match."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine import fileio
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import LinearParamScheduler
from mmengine.runner import CheckpointLoader, Runner, TestLoop, ValLoop
from torch import nn

from mmpaca.checkpoint.preprocessing import (
    preprocessing_of_checkpoint,
    preprocessing_of_config,
)
from mmpaca.datasets.coco_categories import check_category_order
from mmpaca.datasets.coco_faults import read_annotations
from mmpaca.datasets.seg_maps import SegFileError
from mmpaca.engine.wrappers import inner_datasets, unwrapped
from mmpaca.models import PaCaViT
from mmpaca.registry import HOOKS

from .seg_label_check_hook import decode_heads


@HOOKS.register_module()
class ConfigCheckHook(Hook):
    """Check that neck, heads, dataset, evaluator and schedule match.

    mmdet compares the annotations of a COCO metric with the dataset only after the first
    validation, and then fails with ``Results do not correspond to current coco set`` or ``list
    index out of range``. This hook checks before the first iteration.

    Pretrained weights are compared with ``data_preprocessor``: one that normalises images otherwise
    than in their training, or swaps their channels, costs accuracy and raises no error. The
    authors' weights, and checkpoints that mmengine wrote, say what they expect.

    Args:
        enabled: Set False to switch the hook off.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def before_run(self, runner: Runner) -> None:
        """Check neck and decode heads; adapt class weights; let ``custom_hooks`` override ``default_hooks``.

        Raises:
            ValueError: ``in_channels`` of the neck or a decode head differs from the backbone's
                output channels, or a list of class weights does not match the number of classes.
        """
        if not self.enabled:
            return
        _prefer_custom_hooks(runner)
        model = unwrapped(runner.model)
        _check_neck(model)
        _check_decode_heads(model)
        _adapt_class_weights(runner, model)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Warn if the checkpoint was trained on images that ``data_preprocessor`` does not give."""
        if self.enabled:
            _check_preprocessing(runner, checkpoint, 'the checkpoint')

    def before_train(self, runner: Runner) -> None:
        """Check number of classes, evaluator of the validation, warm-up and pretrained backbones.

        Raises:
            AssertionError: A head's ``num_classes`` differs from the dataset's classes.
            SegFileError: Label maps of a segmentor's dataset do not exist.
            ValueError: A segmentor's ``num_classes`` differs, the metric's annotation file lacks
                images or classes of the dataset, or mmdet's CocoDataset has its categories in
                another order than its classes.
        """
        if not self.enabled:
            return
        _check_num_classes(runner)
        _check_train_categories(runner)
        if runner.val_loop is not None:
            _check_evaluator(runner.val_loop, 'val')
        _check_warmup(runner)
        _check_pretrained(runner)

    def before_test(self, runner: Runner) -> None:
        """Check classes and evaluator of the test; raises as :meth:`before_train`."""
        if self.enabled:
            if runner.cfg.get('default_scope') == 'mmseg':
                _check_segmentation(runner, 'test', runner.test_loop)
            _check_evaluator(runner.test_loop, 'test')


def _prefer_custom_hooks(runner: Runner) -> None:
    """Switch off a hook of ours in ``default_hooks`` if ``custom_hooks`` has it, too."""
    ours = [h for h in runner.hooks if type(h).__module__.startswith('mmpaca.engine.')]
    for cls in {type(hook) for hook in ours if hasattr(hook, 'enabled')}:
        *defaults, _ = [h for h in runner.hooks if isinstance(h, cls)]
        for hook in defaults:
            hook.enabled = False
            runner.logger.warning(
                f'{cls.__name__} is in default_hooks and in custom_hooks; only the latter is used. '
                'Set its arguments in default_hooks, see configs/_base_/mmpaca.py'
            )


def _check_neck(model: nn.Module) -> None:
    backbone = getattr(model, 'backbone', None)
    given = getattr(getattr(model, 'neck', None), 'in_channels', None)
    if not isinstance(backbone, PaCaViT) or not isinstance(given, list | tuple):
        return
    right = [backbone.embed_dims[i] for i in backbone.out_indices]
    if list(given) != right:
        raise ValueError(
            f'model.neck.in_channels={list(given)} does not match the backbone, whose '
            f'out_indices={backbone.out_indices} have {right} channels: set '
            f'neck=dict(in_channels={right})'
        )


def _check_decode_heads(model: nn.Module) -> None:
    backbone = getattr(model, 'backbone', None)
    for name, head in decode_heads(model):
        weights = getattr(getattr(head, 'loss_decode', None), 'class_weight', None)
        if isinstance(weights, list | tuple) and len(weights) != head.num_classes:
            raise ValueError(
                f'model.{name}.loss_decode.class_weight has {len(weights)} values for '
                f'num_classes={head.num_classes}: give one per class'
            )
        given = getattr(head, 'in_channels', None)
        if not isinstance(backbone, PaCaViT) or getattr(model, 'neck', None) or not given:
            continue
        channels = [backbone.embed_dims[i] for i in backbone.out_indices]
        taken: Any = getattr(head, 'in_index', range(len(channels)))
        right: Any = channels[taken] if isinstance(taken, int) else [channels[i] for i in taken]
        if isinstance(given, int) and isinstance(right, list):  # concatenated
            given, right = [given], [sum(right)]
        if (list(given) if isinstance(given, Sequence) else given) != right:
            raise ValueError(
                f'model.{name}.in_channels={given} does not match the backbone, whose '
                f'out_indices={backbone.out_indices} have {channels} channels: set '
                f'{name}=dict(in_channels={right})'
            )


def _adapt_class_weights(runner: Runner, model: nn.Module) -> None:
    """Resize lists like Mask2Former's ``[1.0] * num_classes + [0.1]`` to a new num_classes."""
    for name, head in model.named_modules():
        loss: Any = getattr(head, 'loss_cls', None)
        given = getattr(loss, 'class_weight', None)
        num_classes = getattr(head, 'num_classes', None)
        if not isinstance(given, list | tuple) or not isinstance(num_classes, int):
            continue
        if len(given) in (num_classes, num_classes + 1):
            continue
        *weights, background = given
        if len(set(weights)) != 1:
            raise ValueError(
                f'model.{name}.loss_cls.class_weight has {len(given)} values for {num_classes} '
                f'classes: give {num_classes + 1} values, the last one for "no object"'
            )
        loss.class_weight = [weights[0]] * num_classes + [background]
        if hasattr(head, 'class_weight'):  # a copy in MaskFormer and Mask2Former
            head.class_weight = loss.class_weight
        runner.logger.info(
            f'model.{name}.loss_cls.class_weight: {len(given)} values resized for {num_classes} '
            f'classes to [{weights[0]}] * {num_classes} + [{background}]'
        )


def _check_num_classes(runner: Runner) -> None:
    scope = runner.cfg.get('default_scope')
    if scope == 'mmseg':
        _check_segmentation(runner, 'train', runner.train_loop)
        if runner.val_loop is not None:
            _check_segmentation(runner, 'val', runner.val_loop)
    if scope != 'mmdet':
        return
    from mmdet.engine.hooks import NumClassCheckHook

    hook = NumClassCheckHook()
    hook.before_train_epoch(runner)
    if runner.val_loop is not None:
        hook.before_val_epoch(runner)


def _check_segmentation(runner: Runner, name: str, loop: Any) -> None:
    dataset = loop.dataloader.dataset
    if name != 'test':  # predictions alone need no label maps
        _check_label_maps(dataset, name)
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    for head_name, head in decode_heads(unwrapped(runner.model)):
        if classes and head.num_classes != len(classes):
            raise ValueError(
                f'model.{head_name}.num_classes={head.num_classes}, but the dataset of '
                f'{name}_dataloader has {len(classes)} classes: set {head_name}=dict(num_classes='
                f'{len(classes)}), or metainfo=dict(classes=...) of the dataset'
            )


def _check_label_maps(dataset: Any, name: str) -> None:
    """Find missing files now: training may draw their images after hours only."""
    if not hasattr(dataset, 'get_data_info') or getattr(dataset, 'backend_args', None):
        return
    infos = map(dataset.get_data_info, range(len(dataset)))
    paths = [info['seg_map_path'] for info in infos if 'seg_map_path' in info]
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise SegFileError(
            f'{len(missing)} of the {len(paths)} label maps of {name}_dataloader do not exist, '
            f'first {missing[0]}: check data_prefix.seg_map_path, img_suffix and seg_map_suffix'
        )


def _check_train_categories(runner: Runner) -> None:
    """Check the files of mmdet's own CocoDataset; TolerantCocoDataset sorts its labels by name."""
    if runner.cfg.get('default_scope') != 'mmdet' or not is_main_process():
        return
    from mmdet.datasets import CocoDataset

    for dataset in inner_datasets(runner.train_dataloader.dataset):
        if type(dataset) is not CocoDataset:
            continue
        try:
            content = read_annotations(fileio.get(dataset.ann_file, dataset.backend_args))
            check_category_order(content['categories'], dataset.metainfo['classes'])
        except ValueError as error:
            raise ValueError(
                f'{dataset.ann_file}: {error}. Or train with mmpaca.TolerantCocoDataset, whose '
                'labels follow the names'
            ) from None


def _check_evaluator(loop: ValLoop | TestLoop, name: str) -> None:
    dataset = loop.dataloader.dataset
    files = [coco for m in loop.evaluator.metrics if (coco := getattr(m, '_coco_api', None))]
    if not files or not hasattr(dataset, 'get_data_info'):
        return
    infos = map(dataset.get_data_info, range(len(dataset)))
    # IDs alone are ambiguous: most files count their images from 0 or 1.
    images = {(info['img_id'], Path(info['img_path']).name) for info in infos}
    classes = dataset.metainfo.get('classes', ())
    remedy = f'set {name}_evaluator.ann_file to the file of {name}_dataloader.dataset'
    for coco in files:
        known = {(i, Path(image['file_name']).name) for i, image in coco.imgs.items()}
        missing = sorted(images - known, key=str)
        if missing:
            raise ValueError(
                f'{len(missing)} of the {len(images)} images of {name}_dataloader, first '
                f'{missing[0][1]}, are not in {name}_evaluator.ann_file: {remedy}'
            )
        names = [category['name'] for category in coco.dataset['categories']]
        unknown = [one for one in classes if one not in names]
        if unknown:
            raise ValueError(
                f'the classes {unknown} of {name}_dataloader are not among those of '
                f'{name}_evaluator.ann_file, {names}: use the same spelling, or {remedy}'
            )
        try:
            check_category_order(coco.dataset['categories'], classes)
        except ValueError as error:
            raise ValueError(f'{name}_evaluator.ann_file: {error}') from None


def _check_warmup(runner: Runner) -> None:
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, dict):  # of several optimizers
        schedulers = [one for several in schedulers.values() for one in several]
    for scheduler in schedulers:
        total = runner.max_epochs if scheduler.by_epoch else runner.max_iters
        unit = 'epochs' if scheduler.by_epoch else 'iterations'
        if (
            isinstance(scheduler, LinearParamScheduler)
            and scheduler.start_factor < scheduler.end_factor
            and 3 * (scheduler.end - scheduler.begin) > total
        ):
            runner.logger.warning(
                f'The learning rate warms up for {scheduler.end - scheduler.begin} of '
                f'{total} {unit}. Use about 10 %: set end={max(2, round(0.1 * total))} of '
                f'{type(scheduler).__name__} in param_scheduler, or train longer.'
            )


def _check_pretrained(runner: Runner) -> None:
    """Read the files of ``init_cfg`` once more: mmengine passes on their weights alone."""
    for module in unwrapped(runner.model).modules():
        if not isinstance(module, PaCaViT) or runner._has_loaded or not is_main_process():
            continue
        given = module.init_cfg or []
        for cfg in given if isinstance(given, list) else [given]:
            if cfg['type'] == 'Pretrained':
                file = cfg['checkpoint']
                checkpoint = CheckpointLoader.load_checkpoint(file, 'cpu', logger='silent')
                _check_preprocessing(runner, checkpoint, f'init_cfg of the backbone, {file},')


def _check_preprocessing(runner: Runner, checkpoint: dict, source: str) -> None:
    expected, given = preprocessing_of_checkpoint(checkpoint), preprocessing_of_config(runner.cfg)
    if expected is None or given is None or given.matches(expected):
        return
    key = 'to_rgb' if runner.cfg.get('default_scope') == 'mmpretrain' else 'bgr_to_rgb'
    order = '' if expected.rgb is None else f', {key}={expected.rgb}'
    runner.logger.warning(
        f'The weights of {source} were trained on images with {expected}, but data_preprocessor '
        f'gives {given}: set data_preprocessor=dict(mean={list(expected.mean)}, '
        f'std={list(expected.std)}{order})'
    )
