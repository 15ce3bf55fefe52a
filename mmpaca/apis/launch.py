"""Run the command-line tools of mmdet and mmpretrain with mmpaca registered."""

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
from typing import NoReturn

import torch
import torch.distributed as dist
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner

from mmpaca.checkpoint.loading import register_loaders
from mmpaca.compat import require

from .configs import SUFFIXES, check_model, read_file
from .torchrun import check_gpus, error_prefix

# Top-level keys that mmengine reads and that are not arguments of Runner.
_RUNNER_KEYS = ('find_unused_parameters', 'model_wrapper_cfg', 'sync_bn')
# What mmengine's Runner passes to DDP, except the device ids, which CPU modules refuse.
_CPU_WRAPPER = ('type=MMDistributedDataParallel', 'device_ids=None', 'broadcast_buffers=False')

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
    """Run a script of mmdet's or mmpretrain's ``tools`` with its own flags.

    Args:
        name: e.g. ``'train.py'``; found inside the installed package, never copied.
        argv: the script's arguments, the path of the config among them; None for those of the
            process.
        trust: load checkpoints with full unpickling, which executes code in them.

    Raises:
        FileNotFoundError: the config, one of its bases or the script is missing.
        ImportError: the config is one of mmpretrain's, which is not installed.
        ValueError: see :func:`check_arguments`.
        SystemExit: with status 1 if the script fails, see :func:`readable_errors`.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if trust:
        warnings.warn('--trust-checkpoint: a checkpoint may run code', stacklevel=2)
        register_loaders(trust=True)
    package = require(codebase_of(argv))
    check_arguments(argv)
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
    with readable_errors():
        runpy.run_path(str(script), run_name='__main__')
    if cpu_processes:
        _end_cpu_process()


def codebase_of(argv: Sequence[str]) -> str:
    """Return the package whose tool serves a command line: ``'mmpretrain'`` or ``'mmdet'``.

    Args:
        argv: arguments without the program's name. The ``default_scope`` of the first config file
            decides; without one it is mmdet, whose tool prints its help or error.
    """
    try:
        scope = _config_of(argv).get('default_scope')
    except ModuleNotFoundError as error:
        if 'mmpretrain is not installed' not in str(error):
            raise
        return 'mmpretrain'  # the config inherits from it; run_tool says what to install
    return 'mmpretrain' if scope == 'mmpretrain' else 'mmdet'


def _config_of(argv: Sequence[str]) -> Config:
    """Read the first config file of a command line, with its ``--cfg-options``."""
    config = copy.deepcopy(_read(_file_of(argv)))
    config.merge_from_dict(_parse(argv).cfg_options)
    return config


def _file_of(argv: Sequence[str]) -> str | None:
    return next((a for a in argv if Path(a).suffix in SUFFIXES and Path(a).is_file()), None)


@functools.cache  # one of mmdet's takes seconds
def _read(file: str | None) -> Config:
    return read_file(file, import_custom_modules=False) if file else Config()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the flags of the tools that this module checks."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--tta', action='store_true')
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
    if args.out and args.out_item == 'pred' and not args.out.endswith(('.pkl', '.pickle')):
        raise ValueError(
            f'--out {args.out}: predictions are pickled, give a name that ends in .pkl'
        )
    if args.tta and _has_masks(config):
        raise ValueError(
            '--tta: mmdet has no test-time augmentation for instance segmentation; drop --tta'
        )
    for name in ('max_epochs', 'max_iters', 'val_interval'):
        value = (config.get('train_cfg') or {}).get(name)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f'train_cfg.{name}={value!r} is invalid: give a whole number >= 1')
    _warn_of_unread_options(argv)


def _has_masks(config: Config) -> bool:
    evaluators = config.get('test_evaluator') or []
    evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
    return any('segm' in str(evaluator.get('metric')) for evaluator in evaluators)


def _warn_of_unread_options(argv: Sequence[str]) -> None:
    read = inspect.signature(Runner.__init__).parameters
    known = {*_read(_file_of(argv)), *read, *_RUNNER_KEYS}
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
    dist.init_process_group('gloo')
    if dist.get_rank() == 0:
        print(f'no CUDA: {dist.get_world_size()} CPU processes with the gloo backend', flush=True)
    options = [*_CPU_WRAPPER]
    if _config_of(argv).get('find_unused_parameters', False):
        options.append('find_unused_parameters=True')
    return ['--cfg-options', *(f'model_wrapper_cfg.{option}' for option in options)]


def _end_cpu_process() -> None:
    """Exit after success, skipping C++ destructors.

    Now and then one of gloo's threads outlives them, and the process aborts with its work done.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """End the process with status 1: with one line for a user's error, else with the traceback.

    A user's errors are missing or misplaced files and too little GPU memory. Of any other error the
    first process of a machine prints the traceback and the others the last line: they mostly fail
    for the same reason.

    Raises:
        SystemExit: the block raised an exception.
    """
    prefix = error_prefix()
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            _end_with_traceback(error, prefix)
        sys.exit(f'{prefix}{OUT_OF_MEMORY}. {str(error).partition(chr(10))[0]}')
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        sys.exit(f'{prefix}{error}')
    except Exception as error:
        _end_with_traceback(error, prefix)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether too little GPU memory is the cause; cuBLAS and cuDNN have errors of their own."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(status in str(error) for status in _NO_MEMORY)


def _end_with_traceback(error: Exception, prefix: str) -> NoReturn:
    if os.environ.get('LOCAL_RANK', '0') != '0':
        sys.exit(f'{prefix}{type(error).__name__}: {error}')
    sys.excepthook(type(error), error, error.__traceback__)
    sys.exit(1)
