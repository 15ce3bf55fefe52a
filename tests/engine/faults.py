"""Kill the process or fill the disk at the k-th file operation of a save."""

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

CHANGES = ('open', 'write', 'fsync', 'replace', 'remove')


@HOOKS.register_module('Faults')
class Faults(Hook):
    """Count file operations through ``os`` from the n-th save on, and fail at one of them.

    Args:
        save: number of the save, from 0.
        at: number of the change, from 0; None only counts.
        kind: ``'kill'`` dies before the change, or in the middle of a write; ``'full'`` is a
            disk without space for the rest of the run.
        log: gets a line per change.
    """

    def __init__(self, save: int, at: int | None, kind: str, log: str) -> None:
        self.save, self.at, self.kind, self.log = save, at, kind, Path(log)
        self.count = 0
        self.full = False

    def before_checkpoint(self, runner) -> None:
        if self.save == 0:
            for name in CHANGES:
                setattr(os, name, self._failing(name, getattr(os, name)))
        self.save -= 1

    def _failing(self, name: str, original: Callable) -> Callable:
        def change(*args, **kwargs):
            number, self.count = self.count, self.count + 1
            with self.log.open('a') as log:
                log.write(f'{name} {args[0] if name != "write" else ""}\n')
            full = self.full and name == 'write'
            if number != self.at and not full:
                return original(*args, **kwargs)
            if name == 'write':
                original(args[0], args[1][: len(args[1]) // 2])
            if self.kind == 'kill':
                os.kill(os.getpid(), signal.SIGKILL)
            self.full = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return change
