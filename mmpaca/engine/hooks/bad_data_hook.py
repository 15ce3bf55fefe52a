"""Summarise broken training data."""

from collections import Counter
from collections.abc import Iterator

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmpaca.datasets.coco_faults import FAULTS, REMEDY
from mmpaca.registry import HOOKS


@HOOKS.register_module()
class BadDataSummaryHook(Hook):
    """Log what :class:`mmpaca.datasets.coco.TolerantCocoDataset` skipped, at the end of training.

    Args:
        enabled: Set False to switch the hook off.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def after_train(self, runner: Runner) -> None:
        """Gather from all ranks, log on the first."""
        if not self.enabled:
            return
        files: set[str] = set()
        faults: Counter = Counter()
        for dataset in _tolerant(runner.train_dataloader.dataset):
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


def _tolerant(dataset: Dataset) -> Iterator:
    """The tolerant datasets inside any dataset wrappers of mmengine and mmdet."""
    if hasattr(dataset, 'bad_files'):
        yield dataset
    for inner in getattr(dataset, 'datasets', [getattr(dataset, 'dataset', None)]):
        if inner is not None:
            yield from _tolerant(inner)
