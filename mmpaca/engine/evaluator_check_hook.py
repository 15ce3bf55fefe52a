"""An evaluator of another dataset than the data loader's is an error before, not after, the work."""

from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner, TestLoop, ValLoop

from mmpaca.registry import HOOKS


@HOOKS.register_module()
class EvaluatorCheckHook(Hook):
    """Compare what a COCO metric read from ``ann_file`` with the dataset that it will evaluate.

    mmdet does so when all images have been predicted, in training after the first epoch, and then
    says ``Results do not correspond to current coco set`` or ``list index out of range``.
    """

    def before_train(self, runner: Runner) -> None:
        """Look at what training will validate with.

        Raises:
            ValueError: images or classes that the metric's file does not have.
        """
        if runner.val_loop is not None:
            _check(runner.val_loop, 'val')

    def before_test(self, runner: Runner) -> None:
        """As before training."""
        _check(runner.test_loop, 'test')


def _check(loop: ValLoop | TestLoop, name: str) -> None:
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
