"""Checked stand-ins for the functions and types that a checkpoint's pickle may name.

A type's own constructor trusts its arguments: ``numpy.ndarray`` takes a buffer as pointers,
``torch.Tensor`` returns uninitialised memory. Each function here checks what the file gives
before it makes anything.
"""

import argparse
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

_HISTORY_METHODS = ('min', 'max', 'mean', 'current')
_HISTORY_STATE = {'_log_history', '_count_history', 'max_length', 'statistics_methods'}
# Booleans, integers and floats. Object, void and structured types could hold pointers.
_NUMERIC = re.compile(r'[<>=|]?([?]|b1|[iu][1248]|f(2|4|8|12|16))')
# Types of torch that have no kernels, or need a scale.
_OPAQUE = re.compile(r'q|bits|float4|u?int[1-7]$')
_KEYS = (str, int, float, bool, bytes, type(None), torch.dtype, np.number)
_LARGEST_KEY = 2**61 - 2  # numbers above have the hashes of others: many of them take for ever
_MAX_PARTS = 8
# An expanded tensor (stride 0) may be larger than its storage, but not without a bound.
_MAX_EXPANDED = 2**24


class RefusedObjectsError(UnpicklingError):
    """A pickle names objects that are not loaded; ``names`` has them all."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(', '.join(names))
        self.names = names


@dataclass(frozen=True)
class Allowed:
    """A global that a pickle may name. It cannot be called except through the unpickler."""

    name: str
    call: Callable[..., Any] | None = None  # None: it may only be an argument


@dataclass(frozen=True)
class StorageType:
    """Stands for e.g. ``torch.FloatStorage``: torch asks it for nothing else."""

    dtype: torch.dtype


def check_key(key: Any) -> Any:
    """Return the key of a dict or the element of a set.

    Raises:
        UnpicklingError: it is neither a number, text nor a flat tuple of them. The hash of a
            deeply nested tuple overflows the stack.
    """
    is_tuple = type(key) in (tuple, torch.Size)
    parts, largest = (key, 2**31) if is_tuple else ((key,), _LARGEST_KEY)
    if len(parts) > _MAX_PARTS:
        raise UnpicklingError(f'a tuple of {len(parts)} as a key')
    for part in parts:
        if not isinstance(part, _KEYS):
            raise UnpicklingError(f'a {type(part).__name__} as a key')
        if type(part) is int and abs(part) > largest:
            raise UnpicklingError('a large number as a key')
    return key


def _encode(text: str, encoding: str = 'latin1') -> bytes:
    """Decode bytes as protocol 2 writes them."""
    _expect(type(text) is str and encoding in ('latin1', 'latin-1'), '_codecs.encode')
    return text.encode('latin1')


def _empty_bytes() -> bytes:
    return b''


def _bytearray(content: Any = b'', encoding: str = 'latin1') -> bytearray:
    # bytearray(10**12) would take that much memory.
    content = _encode(content, encoding) if type(content) is str else content
    _expect(type(content) is bytes, 'builtins.bytearray')
    return bytearray(content)


def _set(items: Any = ()) -> set:
    _expect(type(items) in (list, tuple), 'builtins.set')
    return {check_key(item) for item in items}


def _counter(counts: Any = None) -> Counter:
    _expect(counts is None or type(counts) is dict, 'collections.Counter')
    return Counter(counts)


def _ordered_dict(items: Any = ()) -> OrderedDict:
    _expect(type(items) in (list, tuple, dict), 'collections.OrderedDict')
    pairs = list(items.items() if isinstance(items, dict) else items)
    return OrderedDict((check_key(key), value) for key, value in pairs)


def _complex(real: Any, imaginary: Any) -> complex:
    _expect(type(real) is float and type(imaginary) is float, 'builtins.complex')
    return complex(real, imaginary)


def _getattr(owner: Any, name: Any) -> Allowed:
    """The ``getattr`` in HistoryBuffer's pickles; the real one reaches any object."""
    if owner is not ALLOWED['mmengine.logging.history_buffer.HistoryBuffer'] or (
        name not in _HISTORY_METHODS
    ):
        default = type(owner).__name__
        owner_name = getattr(owner, 'name', default) if isinstance(owner, Allowed) else default
        raise RefusedObjectsError([f'getattr({owner_name.rpartition(".")[2]},{name})'])
    return Allowed(name)


def _history_buffer() -> HistoryBuffer:
    return HistoryBuffer()


def build_history_buffer(buffer: HistoryBuffer, state: Any) -> None:
    """Fill an empty HistoryBuffer with two lists or arrays of numbers.

    The statistics are mmengine's own, whatever the file says.
    """
    name = 'HistoryBuffer'
    _expect(type(state) is dict and state.keys() <= _HISTORY_STATE, name)
    values = [_numbers(state.get(f'_{kind}_history')) for kind in ('log', 'count')]
    max_length = state.get('max_length', 1000000)
    _expect(type(max_length) is int and max_length > 0 and len(values[0]) == len(values[1]), name)
    buffer._log_history, buffer._count_history = values
    buffer.max_length = max_length


def _numbers(values: Any) -> np.ndarray:
    if type(values) is list:
        _expect(all(type(value) in (int, float) for value in values), 'HistoryBuffer')
        values = np.array(values, np.float64)
    _expect(type(values) is np.ndarray and values.ndim == 1, 'HistoryBuffer')
    return values.copy()


def _namespace() -> argparse.Namespace:
    return argparse.Namespace()


def build_namespace(namespace: argparse.Namespace, state: Any) -> None:
    """Set the attributes that a command line gives."""
    _expect(type(state) is dict and all(map(_is_plain_name, state)), 'argparse.Namespace')
    vars(namespace).update(state)


def _config_dict(content: Any = None) -> dict:
    """A plain dict: numpy reads any address that an attribute of a ConfigDict names."""
    _expect(content is None or type(content) is dict, 'ConfigDict')
    return dict(content or {})


def check_booleans(values: Tensor) -> None:
    """Check that bytes, as uint8, are booleans.

    Raises:
        UnpicklingError: one is neither 0 nor 1.
    """
    if values.numel() and int(values.max()) > 1:
        raise UnpicklingError(f'a boolean of value {int(values.max())}')


def build_ordered_dict(instance: OrderedDict, state: Any) -> None:
    """Keep the versions of a state dict's modules and nothing else."""
    metadata = state.get('_metadata') if type(state) is dict else None
    if metadata is not None and type(metadata) in (dict, OrderedDict):
        _expect(all(type(local) is dict for local in metadata.values()), '_metadata')
        instance._metadata = metadata  # type: ignore[attr-defined]


def _dtype(code: Any, *_: Any) -> np.dtype:
    if type(code) is not str or not _NUMERIC.fullmatch(code):
        raise RefusedObjectsError([f'numpy.dtype({code!r})'])
    return np.dtype(code, copy=True)  # its byte order may change: numpy shares others


def build_dtype(dtype: np.dtype, state: Any) -> np.dtype:
    """The type with the byte order that the file says. It has neither fields nor metadata."""
    plain = (None, None, None, -1, -1, 0)
    _expect(type(state) is tuple and state[2:8] == plain, 'numpy.dtype with fields')
    _expect(state[1] in ('<', '>', '=', '|') and state[8:] in ((), (None,)), 'numpy.dtype')
    return dtype if state[1] == '|' else dtype.newbyteorder(state[1])


def _scalar(dtype: Any, content: Any) -> np.generic:
    _expect(isinstance(dtype, np.dtype) and type(content) is bytes, 'numpy scalar')
    _expect(len(content) == dtype.itemsize, f'numpy scalar of {len(content)} bytes')
    _expect(dtype.kind != 'b' or content in (b'\0', b'\1'), 'numpy scalar')
    return np.frombuffer(content, dtype)[0]


def _new_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """An empty array, for :func:`build_array` to fill."""
    _expect(kind is ALLOWED['numpy.ndarray'] and shape == (0,) and code == b'b', 'numpy.ndarray')
    return np.empty(0)


def build_array(array: np.ndarray, state: Any) -> None:
    """Fill an array with numbers, as many as its shape says."""
    _expect(type(state) is tuple and len(state) == 5, 'numpy.ndarray')
    version, shape, dtype, fortran, content = state
    _expect(version == 1 and _is_shape(shape) and type(fortran) is bool, 'numpy.ndarray')
    _expect(isinstance(dtype, np.dtype) and type(content) is bytes, 'numpy.ndarray')
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise UnpicklingError(f'an array {shape} of {dtype} with {len(content)} bytes')
    if dtype.kind == 'b' and content.translate(None, b'\0\1'):
        raise UnpicklingError('booleans that are neither 0 nor 1')
    array.__setstate__((1, shape, dtype, fortran, content))


def _size(sizes: Any = ()) -> torch.Size:
    _expect(_is_shape(sizes), 'torch.Size')
    return torch.Size(sizes)


def _device(kind: Any, index: Any = None) -> torch.device:
    valid = index is None or (type(index) is int and 0 <= index < 128)
    _expect(type(kind) is str and valid, 'torch.device')
    return torch.device(kind) if index is None else torch.device(kind, index)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """``torch._utils._rebuild_tensor`` and ``_v2``: (requires_grad, hooks, metadata) follow."""
    _expect(len(rest) in (0, 2, 3), 'tensor')
    return _view(storage, None, offset, size, stride, *rest)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> Tensor:
    """``torch._utils._rebuild_tensor_v3``: the type is not the storage's."""
    _expect(isinstance(dtype, torch.dtype) and len(rest) < 2, 'tensor')
    return _view(storage, dtype, offset, size, stride, grad, hooks, *rest)


def _view(
    storage: Any, dtype: torch.dtype | None, offset: Any, size: Any, stride: Any,
    requires_grad: Any = False, hooks: Any = None, metadata: Any = None,
) -> Tensor:  # fmt: skip
    """A tensor that lies inside of its storage; torch would enlarge the storage silently."""
    _expect(isinstance(storage, torch.storage.TypedStorage), 'tensor without a storage')
    _expect(_is_shape(size) and _is_shape(stride) and _is_shape((offset,)), 'tensor')
    _expect(len(size) == len(stride) and type(requires_grad) is bool, 'tensor')
    dtype = dtype or storage.dtype
    held = storage._untyped_storage.nbytes() // dtype.itemsize
    number = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if number and last >= held or number > max(held, _MAX_EXPANDED):
        raise UnpicklingError(
            f'a tensor {tuple(size)} with stride {tuple(stride)} does not match {held} stored values'
        )
    tensor = torch.empty(0, dtype=dtype, device=storage._untyped_storage.device)
    tensor.set_(storage._untyped_storage, offset, size, stride)
    if metadata:
        flags = {'conj': Tensor.conj, 'neg': Tensor._neg_view}
        _expect(type(metadata) is dict and metadata.keys() <= flags.keys(), 'tensor metadata')
        for flag in metadata:
            tensor = flags[flag](tensor)
    return tensor.requires_grad_(requires_grad)


def _parameter(data: Any, requires_grad: Any = True, *_: Any) -> torch.nn.Parameter:
    _expect(isinstance(data, Tensor) and type(requires_grad) is bool, 'torch.nn.Parameter')
    return torch.nn.Parameter(data.detach(), requires_grad)


def _tensor_of_type(function: Any, kind: Any, arguments: Any, _: Any) -> Tensor:
    """A tensor that had attributes in Python; they are ignored."""
    names = ('_rebuild_tensor_v2', '_rebuild_tensor_v3', '_rebuild_parameter')
    rebuild = [ALLOWED[f'torch._utils.{name}'] for name in names]
    _expect(function in rebuild and type(arguments) is tuple, 'torch._tensor._rebuild_from_type_v2')
    tensor = function.call(*arguments)
    if kind is ALLOWED['torch.nn.parameter.Parameter']:
        return _parameter(tensor, tensor.requires_grad)
    _expect(kind is ALLOWED['torch.Tensor'], 'torch._tensor._rebuild_from_type_v2')
    return tensor


def _expect(is_valid: bool, name: str) -> None:
    if not is_valid:
        raise RefusedObjectsError([f'{name} with unusual content'])


def _is_shape(values: Any) -> bool:
    """True for a shape that numpy and torch accept: up to 64 dimensions below 2**48."""
    return (
        type(values) in (tuple, torch.Size)
        and len(values) <= 64
        and all(type(value) is int and 0 <= value < 2**48 for value in values)
    )


def _is_plain_name(name: Any) -> bool:
    return type(name) is str and not name.startswith('__')


_CALLS: dict[str, Callable | None] = {
    'builtins.getattr': _getattr,
    'builtins.bytes': _empty_bytes,
    'builtins.bytearray': _bytearray,
    'builtins.set': _set,
    'builtins.complex': _complex,
    '_codecs.encode': _encode,
    'collections.Counter': _counter,
    'collections.OrderedDict': _ordered_dict,
    'argparse.Namespace': _namespace,  # timm stores its command line in a checkpoint
    'mmengine.logging.history_buffer.HistoryBuffer': _history_buffer,
    'mmengine.config.config.ConfigDict': _config_dict,
    'numpy.ndarray': None,
    'numpy.dtype': _dtype,
    # numpy 1 and numpy 2 call the same functions by two names.
    **{f'numpy.{core}.multiarray._reconstruct': _new_array for core in ('core', '_core')},
    **{f'numpy.{core}.multiarray.scalar': _scalar for core in ('core', '_core')},
    'torch.Size': _size,
    'torch.Tensor': None,
    'torch.device': _device,
    'torch.nn.parameter.Parameter': None,
    'torch._tensor._rebuild_from_type_v2': _tensor_of_type,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor_v3,
}
_STORAGES = {
    'Bool': torch.bool, 'Byte': torch.uint8, 'Char': torch.int8, 'Short': torch.int16,
    'Int': torch.int32, 'Long': torch.int64, 'Half': torch.half, 'BFloat16': torch.bfloat16,
    'Float': torch.float, 'Double': torch.double, 'ComplexFloat': torch.cfloat,
    'ComplexDouble': torch.cdouble,
}  # fmt: skip
# Not here, and so refused by name: sparse, quantised, nested and meta tensors.
ALLOWED: dict[str, Any] = {
    **{name: Allowed(name, call) for name, call in _CALLS.items()},
    **{f'torch.{name}Storage': StorageType(dtype) for name, dtype in _STORAGES.items()},
    'torch.storage.UntypedStorage': StorageType(torch.uint8),
    **{
        f'torch.{name}': dtype
        for name, dtype in vars(torch).items()
        if isinstance(dtype, torch.dtype) and not _OPAQUE.match(name)
    },
}
# Types that a pickle may give a state, and how.
BUILDERS: dict[type, Callable[[Any, Any], Any]] = {
    OrderedDict: build_ordered_dict,
    HistoryBuffer: build_history_buffer,
    argparse.Namespace: build_namespace,
    np.ndarray: build_array,
}
