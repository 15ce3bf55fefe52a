"""An unpickler that calls nothing but its own stand-ins.

Narrower than ``weights_only=True``, whose list of functions cannot be shortened: that calls
``torch.Tensor``, ``bytearray`` and others with any arguments. Passed to ``torch.load`` as
``pickle_module``, so that torch reads its own file formats.
"""

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pickle import UnpicklingError
from typing import IO, Any

import numpy as np
import torch

from .limits import MAX_OPCODES, Budget
from .standins import (
    ALLOWED,
    BUILDERS,
    Allowed,
    RefusedObjectsError,
    StorageType,
    build_dtype,
    check_booleans,
    check_key,
)

_SILENT = ('PROTO', 'STOP')


class Unpickler:
    """Protocol 2, with the opcodes that ``torch.save`` writes.

    Args:
        file: open at the beginning of a pickle; left at its end.
        encoding: of Python 2's strings.

    Raises:
        RefusedObjectsError: by ``load``, before anything is made: the pickle names objects that
            are not in ``ALLOWED``; later: it gives one of them a content that is not checked.
        ValueError, UnpicklingError, IndexError, KeyError, TypeError: by ``load``: it is broken.
    """

    sizes: Mapping[str, int] | None = None  # bytes of each storage; None: unknown until read
    limit = 0  # bytes of the file
    declared: dict[str, int]  # bytes of each storage so far
    booleans: dict[int, torch.UntypedStorage]  # storages of booleans, by address

    def __init__(self, file: IO[bytes], *, encoding: str = 'utf-8') -> None:
        self.file, self.encoding = file, encoding
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []  # what lies below each mark
        self.memo: dict[int, Any] = {}
        self.empty: dict[int, Any] = {}  # arrays that have yet to get their content, by id
        self.total = 0  # bytes of all storages
        self.budget = Budget(self.limit)

    def load(self) -> Any:
        """The object."""
        start = self.file.tell()
        names = set()
        for number, (opcode, value, _) in enumerate(pickletools.genops(self.file)):
            if number == MAX_OPCODES:
                raise UnpicklingError(f'it has more than {MAX_OPCODES} opcodes')
            if opcode.name == 'GLOBAL':
                names.add(_global_name(str(value)))
        refused = sorted(names - ALLOWED.keys())
        if refused:
            raise RefusedObjectsError(refused)
        self.file.seek(start)
        for opcode, value, _ in pickletools.genops(self.file):
            if opcode.name not in _SILENT:
                step = getattr(self, f'_op_{opcode.name.lower()}', None)
                if step is None:
                    raise UnpicklingError(f'unsupported opcode {opcode.name}')
                step(value)
        return self.stack.pop()

    def persistent_load(self, identifier: tuple) -> Any:
        """The storage; torch sets this."""
        raise UnpicklingError(f'no storages here, not {identifier!r:.50}')

    def _op_global(self, value: str) -> None:
        self.stack.append(ALLOWED[_global_name(value)])

    def _op_reduce(self, _: None) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        name = function.name if isinstance(function, Allowed) else type(function).__name__
        if not isinstance(function, Allowed) or function.call is None:
            raise RefusedObjectsError([f'a call of {name}'])
        self.budget.spend(arguments)
        try:
            result = function.call(*arguments)
        except TypeError as error:  # e.g. the number of arguments
            raise RefusedObjectsError([f'a call of {name} with unusual arguments']) from error
        if type(result) is np.ndarray:
            self.empty[id(result)] = result
        if isinstance(result, torch.Tensor) and result.dtype == torch.bool:
            self.booleans[result.untyped_storage().data_ptr()] = result.untyped_storage()
        self.stack.append(result)

    _op_newobj = _op_reduce

    def _op_build(self, _: None) -> None:
        state, instance = self.stack.pop(), self.stack[-1]
        if isinstance(instance, np.dtype):
            self._replace(instance, build_dtype(instance, state))
            return
        if type(instance) is np.ndarray and self.empty.pop(id(instance), None) is None:
            raise RefusedObjectsError(['numpy.ndarray that changes'])
        if type(instance) not in BUILDERS:
            raise RefusedObjectsError([f'a state of {type(instance).__name__}'])
        self.budget.spend(state)
        BUILDERS[type(instance)](instance, state)

    def _replace(self, old: Any, new: Any) -> None:
        """Types of numpy are shared by the whole process: they are replaced, not changed."""
        self.stack[-1] = new
        if new != old:
            self.memo.update({i: new for i, value in self.memo.items() if value is old})

    def _op_binpersid(self, _: None) -> None:
        identifier = self.stack.pop()
        if type(identifier) is not tuple or len(identifier) not in (5, 6):
            raise UnpicklingError('no storage')
        kind, storage_type, key, location, number, *view = identifier
        if kind != 'storage' or not isinstance(storage_type, StorageType):
            raise UnpicklingError('no storage')
        if type(key) is not str or type(location) is not str or type(number) is not int:
            raise UnpicklingError('no storage')
        if location.partition(':')[0] == 'meta':
            raise UnpicklingError(f'storage {key} is on the meta device, without values')
        size = number * storage_type.dtype.itemsize
        if self.sizes is not None and self.sizes.get(key) != size:
            raise UnpicklingError(
                f'storage {key} has {self.sizes.get(key)} bytes in the file, not {size}'
            )
        self.total += max(size - self.declared.get(key, 0), 0)
        self.declared[key] = max(size, self.declared.get(key, 0))
        if number < 0 or self.total > self.limit:
            raise UnpicklingError(f'storage {key} of {size} bytes is larger than the file')
        if view not in ([], [None]):
            view_key, offset, length = view[0]
            if not (
                type(view_key) is str
                and type(offset) is int
                and type(length) is int
                and 0 <= offset <= offset + length <= number
            ):
                raise UnpicklingError(f'a view outside of storage {key}')
        self.stack.append(self.persistent_load(identifier))

    def _op_mark(self, _: None) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _op_append(self, _: None) -> None:
        self._extend([self.stack.pop()])

    def _op_appends(self, _: None) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise RefusedObjectsError([f'a {type(self.stack[-1]).__name__} as a list'])
        self.stack[-1].extend(items)

    def _op_setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _op_setitems(self, _: None) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict, Counter):
            raise RefusedObjectsError([f'a {type(target).__name__} as a dict'])
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[check_key(key)] = value

    def _op_tuple(self, _: None) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    def _op_tuple1(self, _: None) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def _op_tuple2(self, _: None) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _op_tuple3(self, _: None) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _op_empty_tuple(self, _: None) -> None:
        self.stack.append(())

    def _op_empty_list(self, _: None) -> None:
        self.stack.append([])

    def _op_empty_dict(self, _: None) -> None:
        self.stack.append({})

    def _op_empty_set(self, _: None) -> None:
        self.stack.append(set())

    def _op_newtrue(self, _: None) -> None:
        self.stack.append(True)

    def _op_newfalse(self, _: None) -> None:
        self.stack.append(False)

    def _push(self, value: Any) -> None:
        self.stack.append(value)

    _op_none = _op_binint = _op_binint1 = _op_binint2 = _op_long1 = _op_binfloat = (
        _op_binunicode
    ) = _push

    def _op_short_binstring(self, value: str) -> None:
        self.stack.append(value.encode('latin1').decode(self.encoding))

    def _op_binput(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def _op_binget(self, place: int) -> None:
        self.stack.append(self.memo[place])

    _op_long_binput, _op_long_binget = _op_binput, _op_binget


class PickleModule:
    """A ``pickle_module`` for one ``torch.load``.

    Args:
        limit: bytes of the file, the most that all its storages may have together.
        sizes: bytes of each storage, by its key; None where the file format does not say.
    """

    __name__ = __name__

    def __init__(self, limit: int, sizes: Mapping[str, int] | None = None) -> None:
        self.declared: dict[str, int] = {}
        self.booleans: dict[int, torch.UntypedStorage] = {}
        self.Unpickler = type(
            'Unpickler', (Unpickler,), {**vars(self), 'limit': limit, 'sizes': sizes}
        )

    def load(self, file: IO[bytes], **options: Any) -> Any:
        """Load a pickle of the format of torch < 1.6; the last one lists the storages to read."""
        result = self.Unpickler(file, **options).load()
        if self.declared and not (type(result) is list and sorted(result) == sorted(self.declared)):
            raise UnpicklingError('a storage without values')
        return result

    def check(self) -> None:
        """Check what was read after the pickle.

        Raises:
            UnpicklingError: a boolean is neither 0 nor 1: counting and indexing take that for granted.
        """
        for storage in self.booleans.values():
            check_booleans(torch.empty(0, dtype=torch.uint8).set_(storage))


def _global_name(value: str) -> str:
    """The name in Python 3 of what protocol 2 calls by its name in Python 2."""
    module, _, name = value.partition(' ')
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f'{module}.{name}'
