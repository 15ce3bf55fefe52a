"""Running mmdet's own command-line tools with mmpaca registered."""

import runpy
import sys
import warnings
from pathlib import Path

import mmdet
import torch
import torch.distributed as dist

from mmpaca.checkpoint.loading import register_loaders
from mmpaca.errors import check_gpus, readable_errors

# What mmengine's Runner passes to DDP, but for the device ids, which CPU modules refuse.
_CPU_WRAPPER = ('type=MMDistributedDataParallel', 'device_ids=None', 'broadcast_buffers=False')


def run_mmdet_tool(name: str) -> None:
    """Run a script of mmdet's ``tools`` as if it had been called, with every flag it has.

    ``--trust-checkpoint`` is ours: it lets checkpoints hold any object.

    Args:
        name: e.g. ``'train.py'``; found inside the installed mmdet, never copied.

    Raises:
        FileNotFoundError: the installed mmdet has no such tool.
    """
    script = Path(mmdet.__file__).parent / '.mim' / 'tools' / name
    if not script.is_file():
        raise FileNotFoundError(
            f'{script} does not exist; run: pip install --force-reinstall mmdet'
        )
    if '--trust-checkpoint' in sys.argv:
        sys.argv.remove('--trust-checkpoint')
        warnings.warn('--trust-checkpoint: a checkpoint may run code', stacklevel=2)
        register_loaders(trust=True)
    if dist.is_torchelastic_launched():
        check_gpus()
        if not torch.cuda.is_available():
            _use_cpu_processes()
    with readable_errors():
        runpy.run_path(str(script), run_name='__main__')


def _use_cpu_processes() -> None:
    """Let a torchrun launch work without CUDA.

    mmengine sets the CUDA device of every process, unless a process group is there already.
    """
    dist.init_process_group('gloo')
    if dist.get_rank() == 0:
        print(f'no CUDA: {dist.get_world_size()} CPU processes with the gloo backend', flush=True)
    sys.argv += ['--cfg-options', *(f'model_wrapper_cfg.{option}' for option in _CPU_WRAPPER)]
