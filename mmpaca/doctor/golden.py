"""The authors' numbers: PaCa-T with weights that follow from the names of the authors' tensors.

``golden.json.gz`` was made once by running the authors' release (github.com/iVMCL/PaCaViT) in float64
on a CPU: names and shapes of its tensors, and some values of the maps and of a gradient.
"""

import gzip
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpaca.models import PaCaViT
from mmpaca.models.official import convert_official

# Largest error of a map of standard deviation 1: what rounding may do to sharp assignments.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 2e-3}
_FILE = Path(__file__).with_name('golden.json.gz')


class GoldenError(Exception):
    """The numbers are not those of the authors."""


def official_tensor(name: str, shape: tuple) -> Tensor:
    """Make the weight that follows from one of the authors' names, in float32 on the CPU.

    Args:
        name: name of the tensor; draws are seeded with it.
        shape: its shape; for integers the last element is ``'int64'``.
    """
    if shape and shape[-1] == 'int64':  # BatchNorm's step counter
        return torch.zeros(shape[:-1], dtype=torch.int64)
    if name.endswith('blur_filter'):
        row = torch.tensor([1.0, 2.0, 1.0])
        return (torch.outer(row, row) / 16).expand(*shape).clone()
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith('running_var'):
        value = 0.5 + rng.random_sample(shape)
    elif name.endswith(('running_mean', 'bias')):
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
        value = 1.0 + 0.1 * rng.standard_normal(shape)
    else:  # sharp assignments and attention, so that errors show
        sharp = 'clustering' in name or 'to_clusters' in name
        gain = 3.0 if sharp else 2.0 if '.attn.q.' in name or '.attn.k.' in name else 1.0
        value = gain * rng.standard_normal(shape) / math.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def golden_noise(seed: int, *shape: int) -> Tensor:
    """Make the images behind the numbers."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def check_golden(device: torch.device) -> dict[str, float]:
    """Compare PaCa-T with the authors' numbers, forward and backward, without TF32.

    Args:
        device: device that computes.

    Returns:
        The largest error of maps and of the image's gradient, by type.

    Raises:
        GoldenError: an error is above :data:`TOLERANCE`.
    """
    golden: dict[str, Any] = json.loads(gzip.decompress(_FILE.read_bytes()))
    weights = {name: official_tensor(name, tuple(s)) for name, s in golden['shapes'].items()}
    model = PaCaViT('tiny').eval()
    model.load_state_dict(convert_official(weights, 'backbone'))
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision('highest')
    try:
        with torch.backends.cudnn.flags(allow_tf32=False):
            errors = {
                str(dtype).removeprefix('torch.'): _error(model.to(device, dtype), golden)
                for dtype in TOLERANCE
            }
    finally:
        torch.set_float32_matmul_precision(precision)
    limits = {str(dtype).removeprefix('torch.'): limit for dtype, limit in TOLERANCE.items()}
    if any(not error <= limits[name] for name, error in errors.items()):
        raise GoldenError(f'errors {errors} are above {limits}')
    return errors


def _error(model: PaCaViT, golden: dict[str, Any]) -> float:
    """Largest difference from the authors' values."""
    like = next(model.parameters())
    with torch.no_grad():
        maps = model(golden_noise(7, 1, 3, 64, 96).to(like))
    found = {f'even_stage{i}': out for i, out in enumerate(maps, start=1)}
    image = golden_noise(11, 1, 3, 64, 64).to(like).requires_grad_()
    loss = sum(
        (out * torch.linspace(-1, 1, out.numel()).to(like).view(out.shape)).sum()
        for out in model(image)
    )
    (found['grad_input'],) = torch.autograd.grad(loss / 1000, image)
    errors = []
    for name, value in found.items():
        expected = torch.tensor(golden[name]['value'], dtype=torch.float64)
        chosen = value.detach().cpu().double().flatten()[golden[name]['index']]
        errors.append(float((chosen - expected).abs().max()))
    return float(np.max(errors))  # NaN stays NaN
