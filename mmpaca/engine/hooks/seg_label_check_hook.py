"""Check the labels of semantic segmentation before they reach the loss."""

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpaca.datasets.seg_maps import check_labels
from mmpaca.engine.wrappers import unwrapped
from mmpaca.registry import HOOKS


@HOOKS.register_module()
class SegLabelCheckHook(Hook):
    """Refuse label maps with labels that are no class of the model.

    The loss fails on them with an index error, on CUDA with an assertion of the device that does
    not name the file; mmseg's metric counts them wrongly. Models without a decode head are ignored.

    Args:
        enabled: Set False to switch the hook off.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Check a batch.

        Raises:
            SegFileError: names the file and the valid range.
        """
        self._check(runner, data_batch)

    def before_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Check a batch, see :meth:`before_train_iter`."""
        self._check(runner, data_batch)

    def before_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Check a batch, see :meth:`before_train_iter`."""
        self._check(runner, data_batch)

    def _check(self, runner: Runner, data_batch: dict | None) -> None:
        if not self.enabled or not isinstance(data_batch, dict):
            return
        heads = decode_heads(unwrapped(runner.model))
        if not heads:
            return
        _, head = heads[0]
        for sample in _flat(data_batch.get('data_samples', ())):
            if 'gt_sem_seg' in sample:
                check_labels(
                    sample.gt_sem_seg.data,
                    head.num_classes,
                    head.ignore_index,
                    getattr(sample, 'seg_map_path', 'of an unnamed file'),
                )


def _flat(samples: Sequence) -> list[Any]:
    """Data samples of a batch; test-time augmentation has a list for each image."""
    flat: list[Any] = []
    for sample in samples:
        flat += sample if isinstance(sample, list | tuple) else [sample]
    return flat


def decode_heads(model: Any) -> list[tuple[str, Any]]:
    """Heads of one of mmseg's segmentors that are trained on label maps.

    Args:
        model: any model.

    Returns:
        Name, e.g. ``'decode_head'`` or ``'auxiliary_head.0'``, and head.
    """
    found = []
    for name, module in getattr(model, 'named_modules', dict)():
        is_head = name.partition('.')[0] in ('decode_head', 'auxiliary_head')
        if is_head and hasattr(module, 'ignore_index') and hasattr(module, 'num_classes'):
            found.append((name, module))
    return found
