"""Bounds on what a pickle may make: memory and time stay in proportion to the file.

A pickle names an object twice for two bytes; a function that copies it takes its size each time.
"""

from pickle import UnpicklingError
from typing import Any

import numpy as np

MAX_OPCODES = 2**21  # 20 times those of a large detector; each makes up to 100 bytes
_FREE = 2**28  # bytes that every file may take
_PER_BYTE = 4  # and for each of its own
_PER_CALL, _PER_ELEMENT = 256, 64  # bytes of an object, and of an element of a container


class Budget:
    """Bytes that calls in a pickle may still copy.

    Args:
        size: bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self.limit = self.left = _FREE + _PER_BYTE * size

    def spend(self, arguments: Any) -> None:
        """Account for a call, or a state that is given to an object.

        Raises:
            UnpicklingError: the calls copied too much.
        """
        parts = arguments.values() if isinstance(arguments, dict) else arguments
        several = isinstance(arguments, dict | list | tuple)
        self.left -= _PER_CALL + _weight(arguments)
        self.left -= sum(map(_weight, parts)) if several else 0
        if self.left < 0:
            raise UnpicklingError(f'it makes objects of more than {self.limit} bytes')


def _weight(value: Any) -> int:
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, dict | list | tuple | set):
        return _PER_ELEMENT * len(value)
    return value.nbytes if isinstance(value, np.ndarray) else 0
