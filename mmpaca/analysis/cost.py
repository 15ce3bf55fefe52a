"""Count multiply-accumulates and the bytes that a forward pass saves for the backward pass."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass.

    Attributes:
        macs: multiply-accumulates of matrix products, convolutions and attention, which papers
            call FLOPs.
        params: number of parameters.
        saved_bytes: memory allocated until the backward pass, each storage once, without the
            parameters and the input.
        macs_by_module: multiply-accumulates by module name; '' is the entire model.
    """

    macs: int
    params: int
    saved_bytes: int
    macs_by_module: dict[str, int]


class _Allocations(TorchDispatchMode):
    """Record every storage that an operator returns.

    Saved-tensor hooks do not see what activation checkpointing keeps.
    """

    def __init__(self) -> None:
        super().__init__()
        self._storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(
        self,
        func: Callable,
        types: Collection[type],
        args: tuple = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                self._storages[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return out

    def live_bytes(self, without: set[int]) -> int:
        """Return the bytes of the storages that still exist, except those in ``without``."""
        return sum(
            size
            for key, (reference, size) in self._storages.items()
            if key not in without and not reference.expired()
        )


def _cpu_attention(query: _Shape, key: _Shape, value: _Shape, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _convolution_per_output(
    x: _Shape, weight: _Shape, *args: Any, out_shape: _Shape, **kwargs: Any
) -> int:
    return 2 * x[0] * math.prod(out_shape[2:]) * math.prod(weight)


def count_cost(
    model: nn.Module, run: Callable[[], object], published_convention: bool = False
) -> Cost:
    """Run a forward pass and count its cost.

    Gradients are enabled, because inference on a CPU computes some rows twice (see
    ``mlp_in_bands`` in mmpaca.models.fast_paths).

    Args:
        model: model whose parameters and modules are counted.
        run: function that calls the model and returns its outputs.
        published_convention: count a transposed convolution as if every output had all taps of
            the kernel. The counters behind published figures of detectors did, which is four
            times too much for the one in the mask head.

    Returns:
        The cost of the call.

    Example:
        >>> import torch
        >>> from mmpaca.analysis import count_cost
        >>> model = torch.nn.Conv2d(3, 8, kernel_size=3, padding=1)
        >>> x = torch.rand(1, 3, 10, 10)
        >>> cost = count_cost(model, lambda: model(x))
        >>> cost.macs, cost.params  # 3 x 3 x 3 products for each of 8 x 10 x 10 outputs
        (21600, 224)
        >>> cost.saved_bytes  # the output, in float32
        3200
    """
    # torch has attention formulas for its CUDA kernels only.
    formulas: dict[Any, Callable[..., int]] = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention
    }
    if published_convention:
        formulas[torch.ops.aten.convolution] = _convolution_per_output
    flops = FlopCounterMode(display=False, custom_mapping=formulas)
    allocations = _Allocations()
    with torch.enable_grad(), flops, allocations:
        outputs = run()
    fixed = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    saved = allocations.live_bytes(fixed)
    del outputs
    root = type(model).__name__
    by_module = {
        name.removeprefix(root).removeprefix('.'): sum(counts.values()) // 2
        for name, counts in flops.get_flop_counts().items()
        if name == root or name.startswith(root + '.')
    }
    return Cost(
        macs=flops.get_total_flops() // 2,
        params=sum(parameter.numel() for parameter in model.parameters()),
        saved_bytes=saved,
        macs_by_module=by_module,
    )
