"""Running mmdet's and mmpretrain's own command-line tools with mmpaca registered."""

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

import torch
import torch.distributed as dist
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.runner import Runner

from mmpaca.checkpoint.loading import register_loaders
from mmpaca.compat import require

_CONFIGS = ('.py', '.yaml', '.yml', '.json')  # what mmengine takes for a config
# Top-level keys that mmengine looks up without their being arguments of Runner.
_RUNNER_KEYS = ('find_unused_parameters', 'model_wrapper_cfg', 'sync_bn')
# What mmengine's Runner passes to DDP, but for the device ids, which CPU modules refuse; a config's
# find_unused_parameters comes on top.
_CPU_WRAPPER = ('type=MMDistributedDataParallel', 'device_ids=None', 'broadcast_buffers=False')

OUT_OF_MEMORY = (
    'out of GPU memory: lower train_dataloader.batch_size or the image size of the pipeline, set '
    'model.backbone.with_cp=True (recomputes activations), or train with --amp'
)


def run_tool(name: str) -> None:
    """Run a script of mmdet's or mmpretrain's ``tools`` as if it had been called, with its flags.

    ``--trust-checkpoint`` is ours: it lets checkpoints hold any object.

    Args:
        name: e.g. ``'train.py'``; found inside the installed package, never copied.

    Raises:
        ImportError: the config is one of mmpretrain's, which is not installed.
        SystemExit: a file is missing (the config, one of its bases, the tool); see
            ``readable_errors``. Or ``--amp`` without a GPU.
    """
    if '--trust-checkpoint' in sys.argv:
        sys.argv.remove('--trust-checkpoint')
        warnings.warn('--trust-checkpoint: a checkpoint may run code', stacklevel=2)
        register_loaders(trust=True)
    with readable_errors():
        package = require(codebase_of(sys.argv[1:]))
        _check_flags(sys.argv[1:])
        script = Path(package.__path__[0]) / '.mim' / 'tools' / name
        if not script.is_file():
            raise FileNotFoundError(
                f'{script} does not exist; run: pip install --force-reinstall {package.__name__}'
            )
        cpu_processes = dist.is_torchelastic_launched() and not torch.cuda.is_available()
        if cpu_processes:
            _use_cpu_processes()
        elif dist.is_torchelastic_launched():
            check_gpus()
        runpy.run_path(str(script), run_name='__main__')
    if cpu_processes:
        _end_cpu_process()


def codebase_of(argv: Sequence[str]) -> str:
    """Whose tool a command line is for: ``'mmpretrain'`` or ``'mmdet'``.

    Args:
        argv: without the program's name. The first config file in it decides, by its
            ``default_scope``; without one it is mmdet's tool that prints the help or the error.
    """
    try:
        scope = _config_of(argv).get('default_scope')
    except ModuleNotFoundError as error:
        if 'mmpretrain is not installed' not in str(error):
            raise
        return 'mmpretrain'  # the config inherits from it; run_tool says what to install
    return 'mmpretrain' if scope == 'mmpretrain' else 'mmdet'


def _config_of(argv: Sequence[str]) -> Config:
    """The first config file in a command line, with its ``--cfg-options``; empty without one."""
    config = copy.deepcopy(_read(_file_of(argv)))
    config.merge_from_dict(_cfg_options(argv))
    return config


def _file_of(argv: Sequence[str]) -> str | None:
    return next((a for a in argv if Path(a).suffix in _CONFIGS and Path(a).is_file()), None)


@functools.cache  # one of mmdet's takes seconds
def _read(file: str | None) -> Config:
    return Config.fromfile(file, import_custom_modules=False) if file else Config()


def _cfg_options(argv: Sequence[str]) -> dict:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    return parser.parse_known_args(argv)[0].cfg_options


def _check_flags(argv: Sequence[str]) -> None:
    """Name options that would do nothing, or fail when the model has been built."""
    if '--amp' in argv and get_device() == 'cpu':
        sys.exit('--amp: mixed precision needs a GPU, and none is usable here; leave the flag out')
    read = inspect.signature(Runner.__init__).parameters
    known = {*_read(_file_of(argv)), *read, *_RUNNER_KEYS}
    for name in sorted({option.partition('.')[0] for option in _cfg_options(argv)} - known):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f'; is {close[0]} meant?' if close else ''
        warnings.warn(f'--cfg-options: {name} is not in the config{hint}', stacklevel=2)


def _use_cpu_processes() -> None:
    """Let a torchrun launch work without CUDA.

    mmengine sets the CUDA device of every process, unless a process group is there already.
    """
    dist.init_process_group('gloo')
    if dist.get_rank() == 0:
        print(f'no CUDA: {dist.get_world_size()} CPU processes with the gloo backend', flush=True)
    options = [*_CPU_WRAPPER]
    if _config_of(sys.argv[1:]).get('find_unused_parameters', False):
        options.append('find_unused_parameters=True')
    sys.argv += ['--cfg-options', *(f'model_wrapper_cfg.{option}' for option in options)]


def _end_cpu_process() -> None:
    """End a run that succeeded without C++'s destructors.

    Now and then one of gloo's threads outlives them, and the process aborts with its work done.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """End the process with status 1 and a line that says what to do.

    A missing or misplaced file and memory that is not enough need no traceback. Of other errors the first
    process of a machine prints the traceback, the others their last line: they mostly fail of
    the same, all at once.
    """
    rank = os.environ.get('RANK', '0')
    try:
        yield
    except torch.OutOfMemoryError as error:
        sys.exit(f'rank {rank}: {OUT_OF_MEMORY}. {str(error).partition(chr(10))[0]}')
    except (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        sys.exit(f'rank {rank}: {error}')
    except Exception as error:
        if os.environ.get('LOCAL_RANK', '0') == '0':
            raise
        sys.exit(f'rank {rank}: {type(error).__name__}: {error}')


def check_gpus() -> None:
    """Refuse more processes on this machine than it has GPUs.

    Raises:
        SystemExit: with both numbers.
    """
    processes, gpus = int(os.environ.get('LOCAL_WORLD_SIZE', 1)), torch.cuda.device_count()
    if torch.cuda.is_available() and processes > gpus:
        sys.exit(
            f'{processes} processes were started on this machine, which has {gpus} GPUs: set GPUS '
            f'(or CUDA_VISIBLE_DEVICES) so that there is one for each'
        )
