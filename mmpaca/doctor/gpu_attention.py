"""Attention part of the GPU check: which of PyTorch's backends serve the stages of PaCa-T."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmpaca.analysis.timing import time_steps
from mmpaca.models.archs import ARCHS
from mmpaca.models.fast_paths import DEFAULT


def attention_stages(quick: bool) -> list[tuple[int, int, int, int]]:
    """Heads, patches, keys and channels per head of PaCa-T's stages at 800 x 1344, or 80 x 134."""
    arch = ARCHS['tiny']
    patches = (672, 168, 42, 12) if quick else (67200, 16800, 4200, 1050)
    keys = (100, 100, 100, patches[3])  # the last stage has no clusters
    channels = [c // h for c, h in zip(arch['embed_dims'], arch['num_heads'], strict=True)]
    return list(zip(arch['num_heads'], patches, keys, channels, strict=True))


def attention_order(
    device: torch.device, dtypes: Sequence[torch.dtype], quick: bool
) -> dict[str, Any]:
    """List PyTorch's order of attention backends, and for each stage and type those that run.

    Args:
        device: device to check.
        dtypes: types of queries, keys and values.
        quick: small stages.

    Returns:
        ``'order'``, and per stage and type: what PyTorch takes by itself, the milliseconds of each
        usable backend, and those of :meth:`mmpaca.models.fast_paths.FastPaths.attention`.
    """
    backends = [SDPBackend(number) for number in torch._C._get_sdp_priority_order()]
    figures: dict[str, Any] = dict(order=' '.join(backend.name for backend in backends))
    for dtype in dtypes:
        for stage, (heads, patches, keys, channels) in enumerate(attention_stages(quick)):
            q = torch.rand(2, heads, patches, channels, device=device, dtype=dtype)
            k = torch.rand(2, heads, keys, channels, device=device, dtype=dtype)
            name = f'stage {stage} {str(dtype).removeprefix("torch.")}'
            figures[name] = _backends_of(q.requires_grad_(), k, backends)
    return figures


def _backends_of(q: Tensor, k: Tensor, backends: Sequence[SDPBackend]) -> dict[str, Any]:
    device = str(q.device)
    figures: dict[str, Any] = dict(taken=SDPBackend(torch._fused_sdp_choice(q, k, k)).name)
    for backend in backends:
        try:
            with sdpa_kernel(backend):
                call = partial(F.scaled_dot_product_attention, q, k, k)
                figures[f'{backend.name} ms'] = time_steps(call, device)[0] * 1e3
        except RuntimeError:  # it does not serve this device, type or shape
            continue
    call = partial(DEFAULT.attention, q, k, k, 0.0)
    figures['mmpaca ms'] = time_steps(call, device)[0] * 1e3
    return figures
