"""Model variants: the published ones, and two small ones for small datasets and CPUs."""

import fnmatch
from collections.abc import Sequence

_TINY = dict(
    embed_dims=(96, 192, 320, 384),
    num_heads=(2, 4, 8, 16),
    mlp_ratios=(4, 4, 4, 4),
    depths=(2, 2, 4, 2),
)
_SMALL = dict(_TINY, depths=(3, 3, 10, 3))
_BASE = dict(_TINY, embed_dims=(96, 192, 384, 512), depths=(3, 3, 18, 3))

# Ours, not the paper's: for images of 200 to 600 pixels, where stage 3 has a few hundred patches.
_NANO = dict(
    embed_dims=(32, 64, 96, 128),
    num_heads=(1, 2, 3, 4),
    mlp_ratios=(4, 4, 4, 4),
    depths=(2, 2, 2, 2),
    num_clusters=(49, 49, 49, 0),
)
_MICRO = dict(_NANO, embed_dims=(48, 96, 160, 224), num_heads=(2, 4, 5, 7), depths=(2, 2, 3, 2))

ARCHS = dict(
    nano=_NANO,
    micro=_MICRO,
    tiny=_TINY,
    small=_SMALL,
    base=_BASE,
    tiny_teacher=dict(_TINY, depths=(2, 2, 2, 2), teacher_depths=(2, 2, 2, 2)),
    small_teacher=dict(_SMALL, depths=(3, 3, 7, 3), teacher_depths=(2, 2, 2, 2)),
    base_teacher=dict(_BASE, depths=(3, 3, 16, 3), teacher_depths=(2, 2, 4, 2)),
)
_ARCH_KEYS = tuple(_TINY)
_OPTIONAL_KEYS = ('teacher_depths', 'num_clusters')


def list_models(pattern: str = '*') -> list[str]:
    """List the names for ``PaCaViT(arch=...)``, sorted.

    Args:
        pattern: glob pattern that the names must match.

    Example:
        >>> import mmpaca
        >>> mmpaca.list_models('*teacher')
        ['base_teacher', 'small_teacher', 'tiny_teacher']
    """
    return sorted(fnmatch.filter(ARCHS, pattern))


def check_arch(arch: str | dict) -> dict:
    """Resolve and validate an ``arch``.

    Args:
        arch: a name of :data:`ARCHS`, or a dict with the same keys.

    Returns:
        A dict with one value per stage under each key.

    Raises:
        ValueError: the name is unknown, a key is missing or unknown, or the lengths differ.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(
                f'arch={arch!r} is unknown, choose one of {tuple(ARCHS)} or give a dict'
            )
        return ARCHS[arch]
    missing = [key for key in _ARCH_KEYS if key not in arch]
    unknown = [key for key in arch if key not in (*_ARCH_KEYS, *_OPTIONAL_KEYS)]
    if missing or unknown:
        raise ValueError(
            f'arch={dict(arch)} must have the keys {_ARCH_KEYS} and may have {_OPTIONAL_KEYS}; '
            f'missing {missing}, unknown {unknown}'
        )
    lengths = {
        key: len(value) if isinstance(value, Sequence) else 'not a sequence'
        for key, value in arch.items()
        if value is not None
    }
    if len(set(lengths.values())) != 1 or 'not a sequence' in lengths.values():
        raise ValueError(f'arch={dict(arch)} must have one value per stage, got {lengths}')
    return arch
