"""Check before a run that the parts of a config agree."""

from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner, TestLoop, ValLoop
from torch import nn

from mmpaca.engine.wrappers import unwrapped
from mmpaca.models import PaCaViT
from mmpaca.registry import HOOKS


@HOOKS.register_module()
class ConfigCheckHook(Hook):
    """Check that the neck matches the backbone, and the evaluator the data loader.

    mmdet compares the annotations that a COCO metric read from ``ann_file`` with the dataset when
    all images have been predicted, in training after the first epoch, and then says ``Results do
    not correspond to current coco set`` or ``list index out of range``.
    """

    def before_run(self, runner: Runner) -> None:
        """Compare ``neck.in_channels`` with the channels that the backbone returns.

        Raises:
            ValueError: they differ; names the right ones.
        """
        _check_neck(unwrapped(runner.model))

    def before_train(self, runner: Runner) -> None:
        """Check the evaluator of the validation.

        Raises:
            ValueError: images or classes of the dataset are not in the metric's file.
        """
        if runner.val_loop is not None:
            _check_evaluator(runner.val_loop, 'val')

    def before_test(self, runner: Runner) -> None:
        """Check the evaluator of the test; raises as :meth:`before_train`."""
        _check_evaluator(runner.test_loop, 'test')


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


def _check_evaluator(loop: ValLoop | TestLoop, name: str) -> None:
    dataset = loop.dataloader.dataset
    files = [coco for m in loop.evaluator.metrics if (coco := getattr(m, '_coco_api', None))]
    if not files or not hasattr(dataset, 'get_data_info'):
        return
    infos = map(dataset.get_data_info, range(len(dataset)))
    # Numbers alone would not do: every file counts its images from 0 or 1.
    images = {(info['img_id'], Path(info['img_path']).name) for info in infos}
    classes = dataset.metainfo.get('classes', ())
    remedy = f'give {name}_evaluator.ann_file and {name}_dataloader.dataset the same file'
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
                f'{name}_evaluator.ann_file, {names}: spell them alike, or {remedy}'
            )
