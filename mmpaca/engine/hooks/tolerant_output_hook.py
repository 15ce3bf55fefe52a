"""Keep training where logs, pictures or metrics cannot be written."""

import errno
import functools
import logging
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import BaseLoop, Runner
from mmengine.visualization import LocalVisBackend

from mmpaca.registry import HOOKS

_PNG_END = b'IEND\xaeB`\x82'
_BACKEND = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars', 'close')


@HOOKS.register_module()
class TolerantOutputHook(Hook):
    """Continue with a warning where an output cannot be written, e.g. to a full disk.

    Outputs are the log file, the visualizer's backends (``scalars.json``, TensorBoard, ...),
    pictures, the metrics file of a test, and in training the metrics of a validation, for which
    COCO's results are written to a temporary file. Each is tried again the next time and warned
    about once. Checkpoints are no such output: a run that cannot save ends with an error.

    Args:
        enabled: Set False to switch the hook off.
    """

    priority = 'VERY_HIGH'  # before anything is written

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._warned: set[str] = set()

    def before_run(self, runner: Runner) -> None:
        """Guard the methods that write."""
        if not self.enabled:
            return
        # Not the runner: loggers and visualizers stay when it is gone.
        self._logger, self._log_dir = runner.logger, runner.log_dir
        for handler in runner.logger.handlers:
            handler.handleError = functools.partial(self._log_failed, handler)
        self._guard(runner.visualizer, 'add_datasample')
        for backend in runner.visualizer._vis_backends.values():
            if type(backend) is LocalVisBackend:
                _check_pictures(backend)
            for name in _BACKEND:
                self._guard(backend, name)
        for hook in runner.hooks:
            if isinstance(hook, LoggerHook):
                self._guard(hook, 'after_test_epoch')
                self._guard(hook, 'after_run')
        if isinstance(runner._train_loop, BaseLoop):
            evaluator = getattr(runner.val_loop, 'evaluator', None)
            for metric in getattr(evaluator, 'metrics', []):
                self._guard(metric, 'compute_metrics', instead={})

    def _guard(self, owner: Any, name: str, instead: Any = None) -> None:
        """Let a method of an object return ``instead`` where it raises an OSError."""
        method = getattr(owner, name)

        @functools.wraps(method)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except OSError as error:
                file = error.filename or getattr(owner, '_save_dir', self._log_dir)
                self._warn(f'{type(owner).__name__}.{name}', str(file), error)
                return instead

        setattr(owner, name, guarded)

    def _log_failed(self, handler: logging.Handler, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            return logging.Handler.handleError(handler, record)
        self._warn('log', getattr(handler, 'baseFilename', 'console'), error)

    def _warn(self, output: str, file: str, error: OSError) -> None:
        if output + file in self._warned:
            return
        self._warned.add(output + file)
        self._logger.warning(
            f'{file}: {error.strerror or error}: {output} is incomplete, the run continues'
        )


def _check_pictures(backend: LocalVisBackend) -> None:
    """Let ``add_image`` raise an OSError where cv2.imwrite only returns False, which mmengine ignores."""
    add_image = backend.add_image

    @functools.wraps(add_image)
    def checked(name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        path = Path(backend._img_save_dir, f'{name}_{step}.png')
        path.unlink(missing_ok=True)  # of a run before this one
        add_image(name, image, step=step, **kwargs)
        if not path.is_file() or not path.read_bytes().endswith(_PNG_END):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    backend.add_image = checked
