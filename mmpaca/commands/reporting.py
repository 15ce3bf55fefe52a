"""Errors of a user in one line."""

import os
import pickle
import sys
from collections.abc import Callable

from mmpaca.apis.torchrun import error_prefix

#: What a user can cause: files, values, packages and checkpoints. Anything else is a bug.
ERRORS = (OSError, ValueError, RuntimeError, ImportError, pickle.UnpicklingError)


def report(
    call: Callable[[], int | None],
    errors: tuple[type[BaseException], ...] = ERRORS,
    traceback: bool = False,
) -> int:
    """Call a command and print its errors in one line.

    Args:
        call: the command; returns the exit status, or None for 0.
        errors: what is printed in one line; other exceptions are raised.
        traceback: raise these, too.

    Returns:
        The exit status, 1 for an error.
    """
    try:
        return call() or 0
    except BrokenPipeError:  # e.g. `mmpaca configs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except errors as error:
        if traceback:
            raise
        print(f'{error_prefix()}{describe_error(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def describe_error(error: BaseException) -> str:
    """Describe an error in one line."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f'{error.filename}: {error.strerror}'
    return ' '.join(str(error).split()) or type(error).__name__
