"""Run the command-line tools of mmdet, mmpretrain and mmseg with mmpaca registered."""

import argparse
import atexit
import contextlib
import copy
import difflib
import functools
import inspect
import os
import runpy
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner

from mmpaca.checkpoint.loading import UnsafeCheckpointError, register_loaders
from mmpaca.checkpoint.schema import ResumeError
from mmpaca.compat import require
from mmpaca.datasets.seg_maps import SegFileError
from mmpaca.engine.hooks.work_dir_lock_hook import saved_since_launch
from mmpaca.models.fitting import CheckpointError

from .configs import SUFFIXES, check_model, read_file
from .torchrun import check_gpus, error_prefix

# By the name of the package that provides them.
_OPTIONAL_CODEBASES = {'mmpretrain': 'mmpretrain', 'mmsegmentation': 'mmseg'}
# Top-level keys that mmengine reads and that are not arguments of Runner.
_RUNNER_KEYS = ('find_unused_parameters', 'model_wrapper_cfg', 'sync_bn')
# What mmengine's Runner passes to DDP, except the device ids, which CPU modules refuse.
_CPU_WRAPPER = (
    'type=mmpaca.CPUDistributedDataParallel',
    'device_ids=None',
    'broadcast_buffers=False',
)

# The smallest valid value of entries that mmengine takes as they are.
_MINIMA = {
    'train_cfg.max_epochs': 1,
    'train_cfg.max_iters': 1,
    'train_cfg.val_begin': 0,
    'train_cfg.val_interval': 1,
    'train_dataloader.batch_size': 1,
    'train_dataloader.num_workers': 0,
    'val_dataloader.batch_size': 1,
    'val_dataloader.num_workers': 0,
    'test_dataloader.batch_size': 1,
    'test_dataloader.num_workers': 0,
    'optim_wrapper.accumulative_counts': 1,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.interval': -1,
    'randomness.seed': 0,
}

# Of cuBLAS (its handle needs a workspace, too), cuDNN 8 and 9, and CUDA.
_NO_MEMORY = (
    'CUBLAS_STATUS_ALLOC_FAILED',
    'CUDNN_STATUS_ALLOC_FAILED',
    'ALLOCATION_FAILED',
    'CUDA error: out of memory',
)
OUT_OF_MEMORY = (
    'out of GPU memory: lower train_dataloader.batch_size or the image size of the pipeline, set '
    'model.backbone.recompute=True, or with_cp=True (recomputes more), or train with --amp'
)


def run_tool(name: str, argv: Sequence[str] | None = None, trust: bool = False) -> None:
    """Run a script of the ``tools`` of mmdet, mmpretrain or mmseg with its own flags.

    Args:
        name: e.g. ``'train.py'``; found inside the installed package, never copied.
        argv: the script's arguments, the path of the config among them; None for those of the
            process.
        trust: load checkpoints with full unpickling, which executes code in them.

    Raises:
        FileNotFoundError: the config, one of its bases or the script is missing.
        ImportError: the config is one of mmpretrain's or mmseg's, which is not installed.
        ValueError: see :func:`check_arguments`.
        SystemExit: with status 1 if the script fails, see :func:`readable_errors`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if trust:
        warnings.warn('--trust-checkpoint: a checkpoint may run code', stacklevel=2)
        register_loaders(trust=True)
    codebase = codebase_of(argv)
    package = require(codebase)
    check_arguments(argv)
    if name == 'train.py' and saved_since_launch(_work_dir(argv)):
        argv.append('--resume')  # the last one counts
        if os.environ.get('RANK') == '0':
            print('restarted by torchrun: resuming from the last checkpoint', flush=True)
    if codebase == 'mmseg':
        argv = _resume_from_file(argv)
    script = Path(package.__path__[0]) / '.mim' / 'tools' / name
    if not script.is_file():
        raise FileNotFoundError(
            f'{script} does not exist; run: pip install --force-reinstall {package.__name__}'
        )
    cpu_processes = dist.is_torchelastic_launched() and not torch.cuda.is_available()
    if cpu_processes:
        argv += _use_cpu_processes(argv)
    elif dist.is_torchelastic_launched():
        check_gpus(int(os.environ.get('LOCAL_WORLD_SIZE', 1)))
    sys.argv = [str(script), *argv]
    status: str | int = 0
    with readable_errors():
        try:
            runpy.run_path(str(script), run_name='__main__')
        except SystemExit as stop:
            status = stop.code or 0
    if cpu_processes and isinstance(status, int):
        _end_cpu_process(status)
    if status:
        sys.exit(status)


def codebase_of(argv: Sequence[str]) -> str:
    """Return the package whose tool serves a command line.

    One of ``'mmdet'``, ``'mmpretrain'`` and ``'mmseg'``.

    Args:
        argv: arguments without the program's name. The ``default_scope`` of the first config file
            decides; without one it is mmdet, whose tool prints its help or error.
    """
    try:
        scope = _config_of(argv).get('default_scope')
    except ModuleNotFoundError as error:
        for package, codebase in _OPTIONAL_CODEBASES.items():
            if f'{package} is not installed' in str(error):
                return codebase  # the config inherits from it; run_tool says what to install
        raise
    return scope if scope in _OPTIONAL_CODEBASES.values() else 'mmdet'


def _config_of(argv: Sequence[str]) -> Config:
    """Read the first config file of a command line, with its ``--cfg-options``."""
    config = copy.deepcopy(_read(_file_of(argv), os.getcwd()))
    config.merge_from_dict(_parse(argv).cfg_options)
    return config


def _file_of(argv: Sequence[str]) -> str | None:
    return next((a for a in argv if Path(a).suffix in SUFFIXES and Path(a).is_file()), None)


def _work_dir(argv: Sequence[str]) -> str:
    """The work directory that a training tool is going to choose."""
    folder = _parse(argv).work_dir or _config_of(argv).get('work_dir')
    return folder or os.path.join('work_dirs', Path(_file_of(argv) or '').stem)


@functools.cache  # one of mmdet's takes seconds
def _read(file: str | None, folder: str) -> Config:
    """Read a config; ``folder``, where a relative path begins, tells the cache two apart."""
    return read_file(file, import_custom_modules=False) if file else Config()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the flags of the tools that this module checks."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--tta', action='store_true')
    parser.add_argument('--work-dir')
    parser.add_argument('--out')
    parser.add_argument('--out-item', default='pred')
    return parser.parse_known_args(argv)[0]


def check_arguments(argv: Sequence[str]) -> None:
    """Refuse arguments that would do nothing, or fail only once the model has been built.

    Raises:
        ValueError: names the argument and the remedy.
    """
    args, config = _parse(argv), _config_of(argv)
    if file := _file_of(argv):
        check_model(config, file)
    if args.amp and get_device() == 'cpu':
        raise ValueError('--amp: mixed precision needs a GPU, and none is usable here; drop --amp')
    _check_out(args, config)
    if args.tta and config.get('default_scope') == 'mmseg' and 'tta_model' not in config:
        raise ValueError('--tta: the config has no tta_model and tta_pipeline; add them or drop it')
    if args.tta and _has_masks(config):
        raise ValueError(
            '--tta: mmdet has no test-time augmentation for instance segmentation; drop --tta'
        )
    resume_hook = config.get('default_hooks', {}).get('exact_resume', {})
    if 'elastic' in resume_hook and 'type' not in resume_hook:
        raise ValueError(
            "--elastic: the config has no mmpaca.ExactResumeHook; inherit '"
            "mmpaca::_base_/mmpaca.py' and set default_hooks = _base_.mmpaca_default_hooks"
        )
    _check_numbers(config)
    _warn_of_unread_options(argv)


def _check_out(args: argparse.Namespace, config: Config) -> None:
    if args.out and config.get('default_scope') == 'mmseg':
        if Path(args.out).suffix or Path(args.out).is_file():
            raise ValueError(
                f'--out {args.out}: mmseg writes a PNG with class indices per image, give a folder'
            )
        if not isinstance(config.get('test_evaluator'), dict):
            raise ValueError('--out: mmseg needs a single test_evaluator, the config has a list')
    elif args.out and args.out_item == 'pred' and not args.out.endswith(('.pkl', '.pickle')):
        raise ValueError(
            f'--out {args.out}: predictions are pickled, give a name that ends in .pkl'
        )


def _resume_from_file(argv: list[str]) -> list[str]:
    """Rewrite ``--resume FILE``: mmseg's flag takes no value, its runner reads ``load_from``."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--resume', nargs='?', const='')
    args, rest = parser.parse_known_args(argv)
    if args.resume is None:
        return argv
    load_from = ['--cfg-options', f'load_from={args.resume}'] if args.resume else []
    return [*rest, '--resume', *load_from]


def _check_numbers(config: Config) -> None:
    for key, minimum in _MINIMA.items():
        value: Any = config
        for name in key.split('.'):
            value = (value or {}).get(name)
        if value is not None and (type(value) is not int or value < minimum):
            raise ValueError(f'{key}={value!r} is invalid: give a whole number >= {minimum}')


def _has_masks(config: Config) -> bool:
    evaluators = config.get('test_evaluator') or []
    evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
    return any('segm' in str(evaluator.get('metric')) for evaluator in evaluators)


def _warn_of_unread_options(argv: Sequence[str]) -> None:
    read = inspect.signature(Runner.__init__).parameters
    known = {*_read(_file_of(argv), os.getcwd()), *read, *_RUNNER_KEYS}
    for name in sorted({option.partition('.')[0] for option in _parse(argv).cfg_options} - known):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f'; is {close[0]} meant?' if close else ''
        warnings.warn(f'--cfg-options: {name} is not in the config{hint}', stacklevel=2)


def _use_cpu_processes(argv: Sequence[str]) -> list[str]:
    """Let a torchrun launch work without CUDA.

    mmengine sets the CUDA device of every process unless a process group exists already.

    Returns:
        Options to append to the tool's command line.
    """
    store, rank, world_size = next(dist.rendezvous('env://'))
    # The store may be that of an attempt before, with the addresses of processes that are gone.
    attempt = f'{os.environ["TORCHELASTIC_RESTART_COUNT"]} of {world_size}'
    dist.init_process_group(
        'gloo', store=dist.PrefixStore(attempt, store), rank=rank, world_size=world_size
    )
    if dist.get_rank() == 0:
        print(f'no CUDA: {dist.get_world_size()} CPU processes with the gloo backend', flush=True)
    options = [*_CPU_WRAPPER]
    if _config_of(argv).get('find_unused_parameters', False):
        options.append('find_unused_parameters=True')
    return ['--cfg-options', *(f'model_wrapper_cfg.{option}' for option in options)]


def _end_cpu_process(status: int) -> None:
    """Exit without C++ destructors after success or preemption.

    Now and then one of gloo's threads outlives them, and the process aborts with its work done.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """End the process with status 1: with one line for a user's error, else with the traceback.

    A user's errors are those of a file (missing, misplaced, wrong, without permission, on a full disk),
    checkpoints that cannot be used and too little GPU memory. Of any other error the
    first process of a machine prints the traceback and the others the last line: they mostly fail
    for the same reason.

    Raises:
        SystemExit: the block raised an exception.
    """
    prefix = error_prefix()
    try:
        yield
    except SegFileError as error:  # from a dataloader's worker with a traceback before it
        sys.exit(f'{prefix}{str(error).rstrip().rpartition("SegFileError: ")[2]}')
    except (ResumeError, CheckpointError, UnsafeCheckpointError) as error:
        sys.exit(f'{prefix}{" ".join(str(error).split())}')
    except Exception as error:
        if is_out_of_memory(error):
            sys.exit(f'{prefix}{OUT_OF_MEMORY}. {str(error).partition(chr(10))[0]}')
        if isinstance(error, FileNotFoundError | FileExistsError) or (
            isinstance(error, OSError) and error.filename is not None
        ):
            sys.exit(f'{prefix}{error}')
        _end_with_traceback(error, prefix)


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether too little GPU memory is the cause; cuBLAS and cuDNN have errors of their own."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(status in str(error) for status in _NO_MEMORY)


def _end_with_traceback(error: Exception, prefix: str) -> NoReturn:
    if os.environ.get('LOCAL_RANK', '0') != '0':
        sys.exit(f'{prefix}{type(error).__name__}: {error}')
    sys.excepthook(type(error), error, error.__traceback__)
    sys.exit(1)
