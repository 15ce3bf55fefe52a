"""Checkpoint loaders that run no code from a file.

Replaces all of mmengine's loaders through ``CheckpointLoader.register_scheme``, its public
extension point. For local files mmengine calls a bare ``torch.load``, which since torch 2.6 refuses
the checkpoints that mmengine itself writes (HistoryBuffer in the message hub); files that it
downloads (``http://``, ``torchvision://``, ...) may run code.

The steps: :mod:`.archive` checks the container, :mod:`.unpickling` rebuilds the objects by the
functions of :mod:`.standins`, :mod:`.config_text` checks the configuration text.
"""

import difflib
import os
import pickle
import re
import urllib.error
import warnings
from collections.abc import Callable, Mapping
from functools import partial, update_wrapper
from typing import Any

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.runner.checkpoint import (
    CheckpointLoader,
    _get_mmengine_home,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)
from torch import Tensor

from mmpaca.models.fitting import CheckpointError
from mmpaca.models.official import PREPROCESSING, convert_official, find_prefix

from .archive import DamagedError, storage_sizes
from .config_text import CodeInConfigError, check_configs
from .contents import check_contents
from .preprocessing import META_KEY
from .safetensors import SUFFIX, load_safetensors
from .standins import RefusedObjectsError
from .unpickling import PickleModule

_WEIGHT_KEYS = ('state_dict', 'model')
_FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
_HTTP = ('http://', 'https://')
# Schemes and mmengine's list of names for each.
_ZOOS = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'open-mmlab': get_external_models,
    'openmmlab': get_external_models,
    'mmcls': get_mmcls_models,
}
# mmengine's patterns for object stores.
_STORES = (r'(\S+\:)?s3://', r'(\S+\:)?petrel://', 'pavi://')


class UnsafeCheckpointError(pickle.UnpicklingError):
    """A checkpoint contains objects or text that can run code when loaded."""


def load_from_local(
    filename: str | os.PathLike,
    map_location: Any = None,
    rename: bool = True,
    trust: bool = False,
) -> Any:
    """Load a local checkpoint without running code from it.

    Args:
        filename: path of a checkpoint (.pth, or .safetensors by suffix). The authors' weights
            are returned under ``'state_dict'`` with OpenMMLab's names.
        map_location: as in ``torch.load``.
        rename: False keeps the authors' names.
        trust: full unpickling (``weights_only=False``); executes code in the file.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: it is a folder, a FIFO or a device.
        UnsafeCheckpointError: it contains objects other than tensors, numbers, strings, their
            containers and ``mmpaca.checkpoint.standins.ALLOWED``, or code in its
            configuration text; the message names them.
        CheckpointError: it is truncated, damaged or not a checkpoint.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from mmpaca.checkpoint import load_from_local, weights_of
        >>> with tempfile.NamedTemporaryFile(suffix='.pth') as file:
        ...     torch.save(dict(state_dict=dict(weight=torch.ones(2, 3))), file.name)
        ...     weights = weights_of(load_from_local(file.name))
        >>> {name: tuple(value.shape) for name, value in weights.items()}
        {'weight': (2, 3)}
    """
    filename = os.path.expanduser(filename)
    if os.path.isdir(filename):
        raise IsADirectoryError(f'checkpoint {filename} is a folder: give a file in it')
    if os.path.exists(filename) and not os.path.isfile(filename):
        raise OSError(f'checkpoint {filename} is not a regular file')
    if not os.path.isfile(filename):
        raise FileNotFoundError(f'checkpoint {filename} does not exist')
    if filename.endswith(SUFFIX):
        checkpoint = load_safetensors(filename, map_location)
    else:
        checkpoint = _unpickle(filename, map_location, trust)
    if not trust:
        try:
            check_configs(checkpoint, filename)
        except CodeInConfigError as error:
            raise _refusal(filename, str(error)) from None
        check_contents(checkpoint, filename)
    return to_openmmlab(checkpoint) if rename else checkpoint


def _unpickle(filename: str, map_location: Any, trust: bool) -> Any:
    if os.environ.get(_FORCE, '0').lower() in ('1', 'y', 'yes', 'true'):
        raise CheckpointError(
            f'checkpoint {filename} is not loaded: with {_FORCE} torch accepts no stricter '
            f'unpickler than its own; unset {_FORCE}'
        )
    try:
        if trust:
            return torch.load(filename, map_location=map_location, weights_only=False)
        with open(filename, 'rb') as file:
            sizes = storage_sizes(file)
            own = PickleModule(os.path.getsize(filename), sizes)
            # False, for torch accepts no other unpickler with True. Ours is the narrower one.
            loaded = torch.load(
                file, map_location=map_location, pickle_module=own, weights_only=False
            )
            own.check()
            return loaded
    except torch.OutOfMemoryError:
        raise
    except RefusedObjectsError as error:
        raise _refusal(filename, f'it holds {", ".join(error.names)}') from error
    except DamagedError as error:
        raise CheckpointError(f'checkpoint {filename} is damaged: {error}') from None
    except Exception as error:  # what arbitrary bytes make an unpickler raise
        first = re.split(r'\n|(?<=\.) ', str(error))[0] or type(error).__name__
        raise CheckpointError(
            f'checkpoint {filename} ({os.path.getsize(filename)} bytes) is truncated, '
            f'unreadable or no checkpoint: {first}'
        ) from None


def _refusal(filename: str, reason: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f'checkpoint {filename} is not loaded: {reason}. Loading anything but tensors, numbers, '
        'strings, their containers and a configuration of literals can run code. Ask its author '
        'for a .safetensors file, or one with only the state_dict; if you trust the author, call '
        '`mmpaca train` or `mmpaca test` with --trust-checkpoint'
    )


def load_from_http(url: str, map_location: Any = None, trust: bool = False) -> Any:
    """:func:`load_from_local` for an http address: local rank 0 downloads into torch's hub cache.

    Args:
        url: address of the file. A cached file of that name is not downloaded again.
        map_location: as in ``torch.load``.
        trust: as in :func:`load_from_local`.

    Raises:
        urllib.error.URLError: the download failed.
        UnsafeCheckpointError, RuntimeError: as :func:`load_from_local`.
    """
    path = os.path.join(torch.hub.get_dir(), 'checkpoints', os.path.basename(url))
    if int(os.environ.get('LOCAL_RANK', get_dist_info()[0])) == 0 and not os.path.isfile(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, path)
        except urllib.error.URLError as error:
            raise urllib.error.URLError(
                f'{error.reason}: {url} cannot be downloaded; get it elsewhere and put it at '
                f'{path}, or give its path instead of the address'
            ) from None
    barrier()
    return load_from_local(path, map_location, trust=trust)


def load_from_zoo(filename: str, map_location: Any = None, trust: bool = False) -> Any:
    """:func:`load_from_http` for a name in one of mmengine's lists of models.

    Args:
        filename: e.g. ``'torchvision://resnet50'``, ``'open-mmlab://msra/hrnetv2_w18'``.
            ``'mmcls://...'`` returns the backbone only, as in mmengine.
        map_location: as in ``torch.load``.
        trust: as in :func:`load_from_local`.

    Raises:
        ValueError: the name is not in the list.
        FileNotFoundError, urllib.error.URLError, UnsafeCheckpointError, RuntimeError: as the
            loaders of files and addresses.
    """
    scheme, name = filename.split('://', 1)
    addresses = _ZOOS[scheme]()
    if _ZOOS[scheme] is get_external_models:
        renamed = get_deprecated_model_names().get(name, name)
        if renamed != name:
            warnings.warn(f'{filename} is now called {scheme}://{renamed}', stacklevel=2)
        name = renamed
    if name not in addresses:
        close = ', '.join(difflib.get_close_matches(name, addresses)) or 'no similar one'
        raise ValueError(
            f"{filename} is not loaded: mmengine's list has no {name!r} ({close}); give a name "
            'from the list, an http address or a local file'
        )
    address = addresses[name]
    if address.startswith(_HTTP):
        checkpoint = load_from_http(address, map_location, trust)
    else:  # the user's own list names files in the same folder
        path = os.path.join(_get_mmengine_home(), address)
        checkpoint = load_from_local(path, map_location, trust=trust)
    if scheme != 'mmcls':
        return checkpoint
    prefix = 'backbone.'
    weights = weights_of(checkpoint).items()
    return dict(state_dict={k[len(prefix) :]: v for k, v in weights if k.startswith(prefix)})


def load_from_store(filename: str, map_location: Any = None, trust: bool = False) -> Any:
    """Raise an error: object stores are not supported.

    Raises:
        ValueError: always, with the remedy.
    """
    raise ValueError(
        f'checkpoint {filename} is not loaded: object stores are not supported, only local files, '
        'http addresses and '
        f"mmengine's named models ({', '.join(_ZOOS)}); download it and give the local path"
    )


def weights_of(checkpoint: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return the weights of a checkpoint: ``'state_dict'``, ``'model'`` or the dict itself.

    Raises:
        CheckpointError: the checkpoint is not a dict.
    """
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'a checkpoint is a dict of tensors, or holds one, and this file is a '
            f'{type(checkpoint).__name__}'
        )
    for key in _WEIGHT_KEYS:
        if isinstance(checkpoint.get(key), Mapping):
            return checkpoint[key]
    return checkpoint


def to_openmmlab(checkpoint: Any) -> Any:
    """Rename the authors' weights to OpenMMLab's names; return other checkpoints as they are.

    ``meta`` then says which images the weights expect, :mod:`mmpaca.checkpoint.preprocessing`.
    """
    if not isinstance(checkpoint, Mapping):
        return checkpoint
    weights = weights_of(checkpoint)
    if not all(isinstance(name, str) for name in weights):
        return checkpoint
    prefix = find_prefix(weights, official=True)
    if prefix is None:
        return checkpoint
    is_classifier = prefix + 'head.weight' in weights and all(k.startswith(prefix) for k in weights)
    task = 'classifier' if is_classifier else 'detector'
    rest = {} if weights is checkpoint else checkpoint
    rest = {key: value for key, value in rest.items() if key not in _WEIGHT_KEYS}
    return {
        **rest,
        'meta': with_official_preprocessing(rest.get('meta')),
        'state_dict': convert_official(weights, task),
    }


def with_official_preprocessing(meta: Any) -> dict:
    """Return the ``meta`` of one of the authors' files with the images that its weights expect."""
    return {**(meta if isinstance(meta, Mapping) else {}), META_KEY: dict(PREPROCESSING)}


def register_loaders(trust: bool = False) -> None:
    """Replace mmengine's checkpoint loaders (Runner, ``init_cfg``, inferencers) by these.

    Args:
        trust: as in :func:`load_from_local`, for every file from now on.
    """
    loaders: dict[tuple[str, ...], Callable] = {
        ('',): load_from_local,
        _HTTP: load_from_http,
        tuple(f'{scheme}://' for scheme in _ZOOS): load_from_zoo,
        _STORES: load_from_store,
    }
    for prefixes, load in loaders.items():
        loader = update_wrapper(partial(load, trust=trust), load)  # mmengine prints its name
        CheckpointLoader.register_scheme(prefixes, loader=loader, force=True)


register_loaders()  # imported by mmpaca.plugin.install()
