"""Starting a subcommand in several processes with torchrun. Light: torch and nothing above it."""

import os
import signal
import socket
import sys
from collections.abc import Sequence

_MASTER_PORT = 29500
# Exit statuses of processes that saved and stopped.
_STOPPED = tuple(128 + number for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT))


def torchrun_arguments(processes: int, arguments: Sequence[str]) -> list[str]:
    """Compose torchrun's arguments on this machine.

    The environment variables of mmdet's launchers are read: ``NNODES``, ``NODE_RANK``,
    ``MASTER_ADDR`` and ``PORT``. With one machine and no ``PORT``, torchrun picks a free port.

    Args:
        processes: processes on this machine.
        arguments: of ``mmpaca``, without the program's name.

    Raises:
        ValueError: a variable has an invalid value, or the port is in use.
    """
    nodes = _integer('NNODES', 1, 1, 2**16)
    rank = _integer('NODE_RANK', 0, 0, nodes - 1)
    if nodes == 1 and not os.environ.get('PORT'):
        rendezvous = ['--standalone']
    else:
        port = _integer('PORT', _MASTER_PORT, 1, 65535)
        if rank == 0:
            _check_free(port)
        address = os.environ.get('MASTER_ADDR') or '127.0.0.1'
        rendezvous = [
            f'--nnodes={nodes}',
            f'--node-rank={rank}',
            f'--master-addr={address}',
            f'--master-port={port}',
        ]
    return [*rendezvous, f'--nproc-per-node={processes}', '-m', 'mmpaca', *arguments]


def torchrun(processes: int, arguments: Sequence[str]) -> int:
    """Run torchrun in this process.

    One process per GPU; without CUDA, CPU processes that communicate through gloo. Signals are
    forwarded to all of them, which then have 30 s to save (:class:`mmpaca.PreemptionHook`).

    Args:
        processes: processes on this machine.
        arguments: of ``mmpaca``, without the program's name.

    Returns:
        The exit status: 0, 128 + signal after a signal, or 1 if a process failed.

    Raises:
        ValueError: as :func:`torchrun_arguments`, or more processes than GPUs.
    """
    check_gpus(processes)
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    def forward(number: int, frame: object) -> None:
        raise SignalException(f'got signal {number}', signal.Signals(number))

    command = torchrun_arguments(processes, arguments)
    signal.signal(signal.SIGUSR1, forward)  # torchrun itself does it for the others
    try:
        run.main(command)
    except SignalException as error:
        return 128 + error.sigval
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        status = error.get_first_failure()[1].exitcode
        return status if status in _STOPPED else 1
    return 0


def check_gpus(processes: int) -> None:
    """Refuse more processes than this machine has GPUs; without CUDA any number is accepted.

    Raises:
        ValueError: names both numbers.
    """
    import torch

    gpus = torch.cuda.device_count()
    if torch.cuda.is_available() and processes > gpus:
        raise ValueError(
            f'{processes} processes on this machine, which has {gpus} GPUs: start one process per '
            'GPU (see also CUDA_VISIBLE_DEVICES)'
        )


def error_prefix() -> str:
    """Return what an error line begins with: the process is named where there are several."""
    return f'error: rank {os.environ["RANK"]}: ' if 'RANK' in os.environ else 'error: '


def _integer(name: str, default: int, minimum: int, maximum: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not minimum <= int(text) <= maximum:
        raise ValueError(f'{name}={text} is invalid: give a number from {minimum} to {maximum}')
    return int(text)


def _check_free(port: int) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            connection.bind(('', port))
        except OSError as error:
            raise ValueError(
                f'PORT={port} cannot be used ({error.strerror}): set PORT to a free port, the same '
                'on all machines'
            ) from None
