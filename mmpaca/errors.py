"""Errors of users in one sentence, from one process."""

import contextlib
import os
import sys
from collections.abc import Iterator

import torch

OUT_OF_MEMORY = (
    'out of GPU memory: lower train_dataloader.batch_size or the image size of the pipeline, set '
    'model.backbone.with_cp=True (recomputes activations), or train with --amp'
)


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
