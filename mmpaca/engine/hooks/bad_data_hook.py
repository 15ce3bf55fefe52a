"""Go on with broken data, and summarise it."""

from collections import Counter
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.hooks import RemovableHandle

from mmpaca.datasets.coco import create_index, log_faults
from mmpaca.datasets.coco_faults import FAULTS, REMEDY, UNUSABLE, find_faults, for_evaluation
from mmpaca.datasets.evaluation import EvaluationLoader, drop_predictions
from mmpaca.engine.wrappers import inner_datasets, unwrapped
from mmpaca.registry import HOOKS


@HOOKS.register_module()
class BadDataSummaryHook(Hook):
    """Evaluate in spite of broken images, and log a summary of bad data.

    In validation and testing an image that cannot be loaded counts as an image without predictions:
    its ground truth still counts in the metric. That holds for the datasets of mmdet, mmpretrain and
    mmseg with mmcv's ``LoadImageFromFile``, for detectors (boxes, masks, panoptic maps), classifiers
    and segmentors. Annotations that crash pycocotools are removed from the ground truth of COCO metrics.

    After training it also logs what :class:`mmpaca.datasets.coco.TolerantCocoDataset` skipped.

    Args:
        max_bad_share: share of broken images above which an evaluation stops. In training it is an
            argument of the dataset.
        enabled: Set False to switch the hook off.

    Raises:
        ValueError: ``max_bad_share`` is not in 0..1.
    """

    def __init__(self, max_bad_share: float = 0.2, enabled: bool = True) -> None:
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f'max_bad_share={max_bad_share} must be in 0..1')
        self.max_bad_share = max_bad_share
        self.enabled = enabled
        self._loaders: dict[str, list[EvaluationLoader]] = {}
        self._summarised: dict[str, int] = {}
        self._handle: RemovableHandle | None = None

    def before_val(self, runner: Runner) -> None:
        """Prepare the validation."""
        if self.enabled:
            self._prepare(runner, runner.val_loop, 'val')

    def before_test(self, runner: Runner) -> None:
        """Prepare the test."""
        if self.enabled:
            self._prepare(runner, runner.test_loop, 'test')

    def after_val(self, runner: Runner) -> None:
        """Summarise the validation if it met broken images that no earlier one met."""
        if self.enabled:
            self._finish(runner, 'val')

    def after_test(self, runner: Runner) -> None:
        """Summarise the test."""
        if self.enabled:
            self._finish(runner, 'test')

    def _prepare(self, runner: Runner, loop: Any, name: str) -> None:
        if name not in self._loaders:
            datasets = [
                one for one in inner_datasets(loop.dataloader.dataset) if EvaluationLoader.fits(one)
            ]
            self._loaders[name] = [EvaluationLoader(one, self.max_bad_share) for one in datasets]
            for loader in self._loaders[name]:
                loader.dataset.prepare_data = loader
            for metric in loop.evaluator.metrics:
                drop_unusable(metric)
        if self._loaders[name] and self._handle is None:
            model = unwrapped(runner.model)
            model = getattr(model, 'module', model)  # within test-time augmentation
            self._handle = model.register_forward_hook(drop_predictions)

    def _finish(self, runner: Runner, name: str) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        files: set[str] = set()
        for loader in self._loaders[name]:
            for names in all_gather_object(loader.bad_files()):
                files.update(names)
        if len(files) > self._summarised.get(name, 0):
            self._summarised[name] = len(files)
            total = sum(len(loader.dataset) for loader in self._loaders[name])
            runner.logger.warning(
                f'Bad data: {len(files)} of {total} images of this evaluation could not be loaded '
                f'and count as images without predictions: {", ".join(sorted(files))}'
            )

    def after_train(self, runner: Runner) -> None:
        """Gather from all ranks, log on the first."""
        if not self.enabled:
            return
        files: set[str] = set()
        faults: Counter = Counter()
        for dataset in inner_datasets(runner.train_dataloader.dataset):
            if not hasattr(dataset, 'bad_files'):
                continue
            for names in all_gather_object(dataset.bad_files()):
                files.update(names)
            faults.update(
                f'{fault.kind} ({REMEDY[FAULTS[fault.kind]]})' for fault in dataset.faults
            )
        if files or faults:
            kinds = ', '.join(f'{number} x {what}' for what, number in faults.most_common())
            runner.logger.warning(
                f'Bad data: {len(files)} images could not be loaded'
                f'{": " if files else ""}{", ".join(sorted(files))}; '
                f'in the annotations: {kinds or "nothing"}.'
            )


def drop_unusable(metric: Any) -> None:
    """Remove annotations that crash pycocotools from the ground truth of a COCO metric."""
    index = getattr(metric, '_coco_api', None)
    if index is None or not index.dataset.get('annotations'):
        return
    with_mask = 'segm' in getattr(metric, 'metrics', ())
    found = find_faults(index.dataset, with_mask, thorough=False)
    faults = [fault for fault in found if fault.kind in UNUSABLE]
    log_faults(f'ground truth of {type(metric).__name__}', faults)
    index.dataset = for_evaluation(index.dataset, faults)
    create_index(index)
