"""Run mmpaca on every device and compare the results. Imports torch, unlike the other modules."""

import copy
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import TextIO

import torch
from torch import Tensor

import mmpaca
from mmpaca.ops import SERVED
from mmpaca.plugin import operators

from .installed import nvidia_gpus
from .report import NOTE, OK, WRONG, Finding
from .symptoms import REINSTALL_TORCH, REPLACE_MMCV, explain

# Error of the backbone's outputs and gradients against float64 on the CPU, relative to the largest.
# CUDA computes float32 convolutions in TF32, whose mantissa has the 10 bits of float16.
TOLERANCE = {torch.float32: 2e-2, torch.float16: 5e-2, torch.bfloat16: 2e-1}


class WrongNumbersError(Exception):
    """A computation gave a wrong result."""


def check_running() -> Iterator[Finding]:
    """Check imports, configs and operators, then NMS, RoIAlign and a backbone on every device."""
    yield Finding('import mmpaca', OK, mmpaca.__file__)
    yield _run('torchvision', check_torchvision)
    sources = _run('operators', operator_sources)
    yield sources
    yield _run('configs', check_configs)
    yield check_cuda()
    for device in devices():
        if sources.level == OK:
            yield _run(f'{device} NMS', partial(check_nms, device))
            yield _run(f'{device} RoIAlign', partial(check_roi_align, device))
        for dtype in precisions(device):
            name = str(dtype).removeprefix('torch.')
            yield _run(f'{device} backbone, {name}', partial(check_backbone, device, dtype))


def main(report: TextIO) -> None:
    """Write each finding immediately as a line of JSON."""
    for finding in check_running():
        print(finding.to_json(), file=report, flush=True)


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, OK, check())
    except Exception as error:  # any error is a finding
        return Finding(name, WRONG, explain(error))


def devices() -> list[torch.device]:
    """Return the CPU and all CUDA devices."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device('cpu'), *(torch.device('cuda', i) for i in range(count))]


def precisions(device: torch.device) -> list[torch.dtype]:
    """Return the precisions to check on a device: float32, and others through autocast."""
    if device.type == 'cpu':
        return [torch.float32, torch.bfloat16]
    with torch.cuda.device(device):
        half = [torch.bfloat16] if torch.cuda.is_bf16_supported() else []
    return [torch.float32, torch.float16, *half]


def check_cuda() -> Finding:
    """Check that torch can use the GPUs that the driver reports."""
    gpus = nvidia_gpus()
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding('CUDA', OK, f'{torch.version.cuda}, {", ".join(names)}')
    if not gpus:
        return Finding('CUDA', NOTE, 'no usable NVIDIA GPU on this machine: CPU only')
    listed = ', '.join(gpus)
    if torch.version.cuda is None:
        text = f'torch {torch.__version__} is built without CUDA and cannot use {listed}'
        return Finding('CUDA', WRONG, f'{text}; run: {REINSTALL_TORCH} (see pytorch.org)')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            torch.cuda.init()
        reason = 'No CUDA GPUs are available'
    except RuntimeError as error:
        reason = str(error)
    return Finding('CUDA', WRONG, f'torch cannot use {listed}: {explain(reason)}')


def check_torchvision() -> str:
    """Import torchvision, whose kernels must match torch."""
    import torchvision

    return f'{torchvision.__version__} loads'


def operator_sources() -> str:
    """Return where each of mmcv's operators comes from.

    Raises:
        ImportError: mmcv.ops or mmdet's models cannot be imported.
    """
    spec = operators.compiled_ext()
    try:
        import mmcv._ext  # either one
    except ImportError as error:
        raise ImportError(f'mmcv._ext: {error}') from error
    import mmdet.models  # noqa: F401  (imports the operators that it needs)

    if spec is not None:
        return f'all of mmcv, compiled ({spec.origin})'
    import torchvision

    others = {name for name in vars(mmcv._ext) if not name.startswith('_')} - set(SERVED)
    kinds = {
        name.partition('_forward')[0].partition('_backward')[0]
        for name in SERVED
        if not name.startswith('get_')
    }
    return (
        f'{", ".join(sorted(kinds))} from torchvision {torchvision.__version__} and PyTorch '
        f'(mmpaca.ops); the other {len(others)} entries of mmcv.ops need compiled mmcv'
    )


def check_configs() -> str:
    """Read a config of this package that inherits from mmdet's."""
    from mmengine.config import Config

    from mmpaca.apis.configs import config_dir

    name = 'mask_rcnn_paca.py'
    config = Config.fromfile(config_dir() / name)
    return f'{name} is a {config.model.type} on {config.model.backbone.type}'


def check_nms(device: torch.device) -> str:
    """Check NMS on four boxes, the second of which overlaps the first by 0.81 of its area.

    Raises:
        WrongNumbersError: other boxes than the first, third and fourth are kept.
    """
    from mmcv.ops import nms

    boxes = [[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30], [0, 6, 10, 16]]
    scores = [0.9, 0.8, 0.3, 0.7]
    given = (
        torch.tensor(numbers, dtype=torch.float32, device=device) for numbers in (boxes, scores)
    )
    _, kept = nms(*given, iou_threshold=0.5)
    if kept.tolist() != [0, 3, 2]:
        raise WrongNumbersError(
            f'NMS keeps boxes {kept.tolist()} instead of [0, 3, 2]; {_fix_operators()}'
        )
    return 'keeps the right boxes'


def check_roi_align(device: torch.device) -> str:
    """Check RoIAlign on a plane: bins have the value at their centre, gradients of a bin sum to 1.

    Raises:
        WrongNumbersError: either is off by more than 1e-3.
    """
    from mmcv.ops import roi_align

    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing='ij')
    plane = (2 * x + 3 * y)[None, None].to(device).requires_grad_()  # (1, 1, H, W)
    roi = torch.tensor([[0, 8.0, 4.0, 24.0, 20.0]], device=device)
    pooled = roi_align(plane, roi, 4, 0.5, 2, 'avg', True)  # (1, 1, 4, 4), bins 2 pixels wide
    (gradients,) = torch.autograd.grad(pooled.sum(), plane)
    centres = torch.arange(4.0) * 2 + 0.5  # from the RoI's corner, (4, 2) in pixels of the plane
    right = 2 * (4 + centres)[None, :] + 3 * (2 + centres)[:, None]
    error = (pooled.detach().cpu()[0, 0] - right).abs().max()
    gradient = float(gradients.sum())
    if not error < 1e-3 or not abs(gradient - 16) < 1e-3:
        raise WrongNumbersError(
            f'RoIAlign of a plane is off by {error:.3g} and its gradients sum to '
            f'{gradient:.5g} instead of 16; {_fix_operators()}'
        )
    return f'off by {error:.1g}'


def _fix_operators() -> str:
    return f'run: {REPLACE_MMCV if operators.compiled_ext() else REINSTALL_TORCH}'


def check_backbone(device: torch.device, dtype: torch.dtype) -> str:
    """Compare forward and backward of a PaCa-ViT with float64 on the CPU.

    Args:
        device: device to check.
        dtype: float32, or another precision for autocast.

    Raises:
        WrongNumbersError: outputs or gradients differ by more than :data:`TOLERANCE`.
    """
    reference, images = _backbone()
    right = _step(reference, images)
    model = copy.deepcopy(reference).to(device, torch.float32)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        found = _step(model, images.to(device, torch.float32))
    errors = [
        float((a.cpu() - b).abs().max() / b.abs().max()) for a, b in zip(found, right, strict=True)
    ]
    worst = max(errors, key=lambda error: float('inf') if error != error else error)
    if not worst <= TOLERANCE[dtype]:
        raise WrongNumbersError(
            f'outputs and gradients are off by {worst:.3g} of their largest value, more than '
            f'{TOLERANCE[dtype]}; run: {REINSTALL_TORCH}'
        )
    return f'outputs and gradients are off by {worst:.1g} of their largest value'


def _backbone() -> tuple[torch.nn.Module, Tensor]:
    """Return a small PaCa-ViT in float64 and an image, always the same."""
    from mmpaca.models import PaCaViT

    arch = dict(embed_dims=(32, 32, 64, 64), num_heads=(1, 1, 2, 2), depths=(1,) * 4, mlp_ratios=(4,) * 4)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = PaCaViT(arch, num_clusters=(16, 16, 16, 0), drop_path_rate=0.0)
        model.init_weights()
        return model.double(), torch.randn(1, 3, 64, 96, dtype=torch.float64)


def _step(model: torch.nn.Module, images: Tensor) -> list[Tensor]:
    """Return the last stage's map and the gradients of the first and last layer, in float64."""
    out = model(images)[-1]
    out.double().sin().sum().backward()  # a plain sum is constant after LayerNorm
    grads = [p.grad for p in model.parameters() if p.grad is not None and p.dim() > 1]
    return [t.detach().double() for t in (out, grads[0], grads[-1])]
