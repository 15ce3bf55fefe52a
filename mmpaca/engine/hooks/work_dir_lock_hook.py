"""One training run per work directory."""

import errno
import fcntl
import json
import os
import socket
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmpaca.registry import HOOKS

_NAME = '.lock'
_MAX_LENGTH = 4096


@HOOKS.register_module()
class WorkDirLockHook(Hook):
    """Refuse to train in a work directory that another run trains in.

    The main process holds a lock on ``<work_dir>/.lock`` (``fcntl.lockf``), which the kernel
    releases when the process ends in any way. Over NFS it works between machines if the server
    supports locks; without them the run continues with a warning. Validation and testing take no
    lock.

    Args:
        enabled: Set False to switch the hook off.

    Raises:
        FileExistsError: The directory is in use; names the process and its machine.
    """

    priority = 'VERY_HIGH'  # before anything is read from or written to the directory

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._file: int | None = None  # descriptor

    def before_run(self, runner: Runner) -> None:
        """Take the lock."""
        if not self.enabled or not isinstance(runner._train_loop, BaseLoop):
            return
        error: list[str | None] = [None]
        if is_main_process():
            error = [self._lock(runner)]
        broadcast_object_list(error)
        if error[0] is not None:
            raise FileExistsError(error[0])

    def after_run(self, runner: Runner) -> None:
        """Release the lock."""
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _lock(self, runner: Runner) -> str | None:
        """Lock the directory and write who does; returns an error."""
        path = os.path.join(runner.work_dir, _NAME)
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            return f'{path} cannot be written: {error.strerror}'
        previous = _read(file)
        try:
            # Not flock: DataLoader workers would share it and outlive this process.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                host = (previous.get('launcher') or ['unknown'])[0]
                return (
                    f'work directory {runner.work_dir} is in use by process {previous.get("pid")} '
                    f'on host {host}: wait until that run ends, or choose another --work-dir'
                )
            runner.logger.warning(
                f'{path} cannot be locked ({error.strerror}): make sure that no other run uses '
                'this work directory'
            )
            return None
        self._file = file
        entry = dict(pid=os.getpid(), launcher=_launcher(), before=_last_save(runner.work_dir))
        if _is_restart(previous):
            entry['before'] = previous.get('before')
        try:
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(entry).encode(), 0)
        except OSError as error:  # e.g. the disk is full; the lock holds all the same
            runner.logger.warning(f'{path} cannot be written: {error.strerror}')
        return None


def saved_since_launch(work_dir: str | os.PathLike) -> bool:
    """True in a process that torchrun restarts, if the run has saved a checkpoint before.

    Checkpoints of older runs in the same directory do not count.
    """
    try:
        file = os.open(os.path.join(work_dir, _NAME), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    previous = _read(file)
    os.close(file)
    return _is_restart(previous) and previous.get('before') != _last_save(work_dir)


def _is_restart(previous: dict) -> bool:
    """True if torchrun starts this process again: after a failure, or with other machines."""
    if 'TORCHELASTIC_RUN_ID' not in os.environ:
        return False
    restarts = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0))
    return restarts > 0 or previous.get('launcher') == _launcher()


def _launcher() -> list:
    """Identify the parent process: host, process id, and start time where /proc has it."""
    parent = os.getppid()
    try:
        started = Path(f'/proc/{parent}/stat').read_text().rpartition(')')[2].split()[19]
    except OSError:
        started = None
    return [socket.gethostname(), parent, started]


def _last_save(work_dir: str | os.PathLike) -> list | None:
    """Identify the file ``last_checkpoint``, which each save replaces."""
    try:
        status = os.stat(os.path.join(work_dir, 'last_checkpoint'))
    except OSError:
        return None
    return [status.st_ino, status.st_mtime_ns]


def _read(file: int) -> dict:
    """The entry of a lock file, empty if there is none."""
    try:
        entry = json.loads(os.pread(file, _MAX_LENGTH, 0))
    except (ValueError, OSError):
        return {}
    return entry if isinstance(entry, dict) else {}
