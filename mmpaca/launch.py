"""Running mmdet's and mmpretrain's own command-line tools with mmpaca registered."""

import argparse
import runpy
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config, DictAction

from .checkpoint.loading import register_loaders
from .compat import require
from .errors import check_gpus, readable_errors

_CONFIGS = ('.py', '.yaml', '.yml', '.json')  # what mmengine takes for a config
# What mmengine's Runner passes to DDP, but for the device ids, which CPU modules refuse; a config's
# find_unused_parameters comes on top.
_CPU_WRAPPER = ('type=MMDistributedDataParallel', 'device_ids=None', 'broadcast_buffers=False')


def run_tool(name: str) -> None:
    """Run a script of mmdet's or mmpretrain's ``tools`` as if it had been called, with its flags.

    ``--trust-checkpoint`` is ours: it lets checkpoints hold any object.

    Args:
        name: e.g. ``'train.py'``; found inside the installed package, never copied.

    Raises:
        ImportError: the config is one of mmpretrain's, which is not installed.
        SystemExit: a file is missing (the config, one of its bases, the tool); see
            ``readable_errors``.
    """
    if '--trust-checkpoint' in sys.argv:
        sys.argv.remove('--trust-checkpoint')
        warnings.warn('--trust-checkpoint: a checkpoint may run code', stacklevel=2)
        register_loaders(trust=True)
    with readable_errors():
        package = require(codebase_of(sys.argv[1:]))
        script = Path(package.__path__[0]) / '.mim' / 'tools' / name
        if not script.is_file():
            raise FileNotFoundError(
                f'{script} does not exist; run: pip install --force-reinstall {package.__name__}'
            )
        if dist.is_torchelastic_launched():
            check_gpus()
            if not torch.cuda.is_available():
                _use_cpu_processes()
        runpy.run_path(str(script), run_name='__main__')


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
    file = next((a for a in argv if Path(a).suffix in _CONFIGS and Path(a).is_file()), None)
    config = Config.fromfile(file, import_custom_modules=False) if file else Config()
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    config.merge_from_dict(parser.parse_known_args(argv)[0].cfg_options)
    return config


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
