"""Prove mmpaca on a GPU: numbers, training, processes and speed, in one report.

Each part is a function that returns figures; a part that fails is reported and does not stop the
others. No network, no data. Imports torch.
"""

import json
import os
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mmpaca
from mmpaca.analysis.timing import CUDA_STEPS, Task, gemm_flops, peak_memory, run_backbone
from mmpaca.analysis.timing import time_steps as steps
from mmpaca.analysis.zoo import PEERS, build_backbone
from mmpaca.models import PaCaViT
from mmpaca.models.clustering import assign, cluster_logits, pool

from .golden import check_golden
from .gpu_attention import attention_order
from .gpu_training import SMALL, check_processes, check_resume, train_detector
from .live import check_backbone, check_nms, check_roi_align, precisions

HALF = (torch.float16, torch.bfloat16)


class FailedError(Exception):
    """A figure is out of its limits."""


@dataclass
class Check:
    """What a run of the parts shares.

    Attributes:
        device: e.g. ``cuda:0``.
        quick: small sizes and few repeats; tests the logic, gives no figures worth reading.
        seconds: parts that would begin later than this are left out and reported as such.
        parts: results by name.
    """

    device: torch.device
    quick: bool = False
    seconds: float = 600.0
    parts: dict[str, dict] = field(default_factory=dict)
    _start: float = field(default_factory=time.monotonic)

    def run(self, name: str, part: Callable[[], Any]) -> dict:
        """Run a part; keep its figures or its error, and how long it took."""
        started = time.monotonic()
        result: dict[str, Any]
        if started - self._start > self.seconds:
            result = dict(status='left out', error=f'no time left of {self.seconds:.0f} s')
        else:
            try:
                result = dict(status='ok', figures=part())
            except Exception as error:  # any error is a result
                result = dict(
                    status='FAILED',
                    error=f'{type(error).__name__}: {error}',
                    traceback=traceback.format_exc(),
                )
        result['seconds'] = round(time.monotonic() - started, 1)
        self.parts[name] = result
        return result


def run_checks(device: str, quick: bool = False, seconds: float = 600.0) -> dict[str, dict]:
    """Run all parts on a device, printing one line for each.

    Args:
        device: ``'cuda'``, ``'cuda:N'`` or ``'cpu'``.
        quick: small sizes and few repeats.
        seconds: time for all parts; later ones are left out.

    Returns:
        Results by the name of the part: ``status``, ``figures`` or ``error``, and ``seconds``.
    """
    check = Check(torch.device(device), quick, seconds)
    target, cuda = check.device, check.device.type == 'cuda'
    dtypes = precisions(target)
    half = [dtype for dtype in dtypes if dtype in HALF]
    parts: list[tuple[str, Callable[[], Any]]] = [
        ('environment', partial(environment, target)),
        ('NMS', partial(check_nms, target)),
        ('RoIAlign', partial(check_roi_align, target)),
        *((f'backbone {_name(d)}', partial(check_backbone, target, d)) for d in dtypes),
        ('golden parity', partial(check_golden, target)),
        *((f'operators {_name(d)}', partial(operators, target, d)) for d in dtypes),
        *((f'pooling {_name(d)}', partial(pooling, target, d, quick)) for d in half),
        ('attention order', partial(attention_order, target, dtypes, quick)),
        ('new image sizes', partial(first_calls, target, half[0], 3 if quick else 30)),
        ('depthwise layouts', partial(depthwise, target, half[-1], quick)),
        ('copy bandwidth', partial(copy_bandwidth, target, quick)),
    ]
    for name in ('mask_rcnn',) if quick else ('mask_rcnn', 'retinanet', 'dino', 'teacher'):
        for dtype in half if cuda else half[-1:]:
            train = partial(train_detector, name, target, dtype, 2 if quick else 20)
            parts.append((f'train {name} {_name(dtype)}', train))
    parts.append(('kill and resume', partial(check_resume, target)))
    if cuda:
        parts.append(('NCCL', partial(check_processes, torch.cuda.device_count())))
    else:
        parts.append(('gloo', partial(check_processes, 2, 'gloo')))
    names = ('paca-t',) if quick else ('paca-t', 'paca-s', 'swin-t', 'convnext-t', 'pvtv2-b2', 'resnet-50')  # fmt: skip
    for name in names:
        for mode in ('forward', 'train'):
            for dtype in dtypes:
                parts.append((f'speed {name} {mode} {_name(dtype)}', partial(speed, check, name, mode, dtype)))  # fmt: skip
    if not quick:
        for name in ('paca-t', 'paca-s'):
            for change in (dict(recompute=True), dict(fast_paths=False), dict(compile=True)):
                label = f'speed {name} train {_name(half[-1])} {change}'
                parts.append((label, partial(speed, check, name, 'train', half[-1], **change)))
    for name, part in parts:
        result = check.run(name, part)
        print(f'{result["status"]:8} {name} ({result["seconds"]} s)', flush=True)
    return check.parts


def write_report(parts: dict[str, dict], folder: Path) -> tuple[Path, Path]:
    """Write ``gpu_check.json`` and ``gpu_check.md``; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data, text = folder / 'gpu_check.json', folder / 'gpu_check.md'
    data.write_text(json.dumps(parts, indent=1, default=str))
    failed = [name for name, part in parts.items() if part['status'] == 'FAILED']
    lines = ['# GPU check', '', f'{len(parts)} parts, {len(failed)} failed: {", ".join(failed) or "-"}', '']  # fmt: skip
    lines += ['| part | status | figures | s |', '|---|---|---|---|']
    for name, part in parts.items():
        shown = _readable(part.get('figures', part.get('error', '')))
        lines.append(f'| {name} | {part["status"]} | {shown} | {part["seconds"]} |')
    text.write_text('\n'.join(lines) + '\n')
    return data, text


def _readable(figures: Any) -> str:
    if isinstance(figures, dict):
        return '; '.join(f'{key} {_readable(value)}' for key, value in figures.items())
    if isinstance(figures, float):
        return f'{figures:.4g}'
    return ' '.join(str(figures).split()).replace('|', '/')


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix('torch.')


def environment(device: torch.device) -> dict:
    """Versions, and the device."""
    import torchvision

    found: dict[str, Any] = dict(mmpaca=mmpaca.__version__, python=platform.python_version(), torch=torch.__version__)  # fmt: skip
    found.update(torchvision=torchvision.__version__, cuda=torch.version.cuda)
    if device.type == 'cuda':
        properties = torch.cuda.get_device_properties(device)
        found.update(
            device=properties.name,
            capability=f'{properties.major}.{properties.minor}',
            memory_gib=properties.total_memory / 2**30,
            cudnn=torch.backends.cudnn.version(),
            gpus=torch.cuda.device_count(),
            tf32_matmul=torch.backends.cuda.matmul.allow_tf32,
            tf32_cudnn=torch.backends.cudnn.allow_tf32,
        )
    return found


def operators(device: torch.device, dtype: torch.dtype) -> dict:
    """Served operators, forward and backward, against float64 on the CPU.

    Raises:
        FailedError: an error is above 1e-4 (float32) or 2e-2 (half) of the largest value.
    """
    from mmcv.ops import deform_conv2d, modulated_deform_conv2d, roi_align, roi_pool
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

    x, w = torch.rand(2, 4, 9, 11), torch.rand(6, 4, 3, 3)
    offset, mask = torch.rand(2, 18, 9, 11), torch.rand(2, 9, 9, 11)
    rois = torch.tensor([[0.0, 1, 1, 7, 6], [1, 0, 2, 9, 8]])
    value, points, shares = torch.rand(2, 20, 2, 4), torch.rand(2, 5, 2, 1, 3, 2), torch.rand(2, 5, 2, 1, 3)  # fmt: skip
    shapes, start = torch.tensor([[4, 5]]), torch.tensor([0])
    cases: dict[str, tuple[Callable, tuple[Tensor, ...]]] = {
        'roi_align': (lambda x: roi_align(x, rois.to(x), 3, 1.0, 2), (x,)),
        'roi_pool': (lambda x: roi_pool(x, rois.to(x), 3, 1.0), (x,)),
        'deform_conv': (lambda x, o, w: deform_conv2d(x, o, w, 1, 1), (x, offset, w)),
        'modulated_deform_conv': (
            lambda x, o, m, w: modulated_deform_conv2d(x, o, m, w, None, 1, 1, 1, 1, 1),
            (x, offset, mask, w),
        ),
        'ms_deform_attn': (
            lambda v, p, s: MultiScaleDeformableAttnFunction.apply(
                v, shapes.to(v.device), start.to(v.device), p, s, 64
            ),
            (value, points, shares),
        ),
    }
    limit = 1e-4 if dtype == torch.float32 else 2e-2
    errors = {}
    for name, (call, operands) in cases.items():
        # Rounded to the type first, so that only the arithmetic differs.
        given = [t.to(dtype) for t in operands]
        right = _with_gradients(call, [t.double() for t in given])
        found = _with_gradients(call, [t.to(device) for t in given])
        errors[name] = max(_error(a, b) for a, b in zip(found, right, strict=True))
    if wrong := {name: error for name, error in errors.items() if not error <= limit}:
        raise FailedError(f'more than {limit} of the largest value: {wrong}')
    return errors


def _with_gradients(call: Callable, operands: list[Tensor]) -> list[Tensor]:
    operands = [t.detach().requires_grad_() for t in operands]
    out = call(*operands)
    return [out, *torch.autograd.grad(out.double().sin().sum(), operands)]


def _error(found: Tensor, right: Tensor) -> float:
    """Largest difference relative to the largest value."""
    found, right = found.detach().cpu().double(), right.detach()
    return float((found - right).abs().max() / right.abs().max().clamp(min=1e-12))


def pooling(device: torch.device, dtype: torch.dtype, quick: bool) -> dict:
    """Clusters of 67,200 patches with logits of standard deviation 36, against float64.

    Raises:
        FailedError: clusters are off by more than 1e-3 of the largest value.
    """
    height, width, channels, clusters = (20, 33, 16, 10) if quick else (200, 336, 96, 100)
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(channels, clusters, bias=False)
    with torch.no_grad():
        weight = torch.randn(clusters, channels, generator=generator) * 36 / channels**0.5
        layer.weight.copy_(weight.to(dtype))
    x = torch.randn(1, height, width, channels, generator=generator).to(dtype)
    right = pool(assign(cluster_logits(x.double(), layer.double())), x.double().flatten(1, 2))
    layer, x = layer.float().to(device), x.to(device)
    patches = x.flatten(1, 2)
    with torch.no_grad(), torch.autocast(device.type, dtype):
        found = pool(assign(cluster_logits(x, layer)), patches.float())
    figures: dict[str, float] = dict(error=_error(found, right))
    weights = torch.rand(1, clusters, height * width, device=device)
    for kind in (torch.float32, dtype):
        operands = weights.to(kind), patches.to(kind)
        figures[f'ms_{_name(kind)}'] = steps(partial(torch.matmul, *operands), str(device))[0] * 1e3
    if not figures['error'] <= 1e-3:
        raise FailedError(f'clusters are off: {figures}')
    return figures


def first_calls(device: torch.device, dtype: torch.dtype, sizes: int) -> dict:
    """Time of the first training step at image sizes never seen before, and of the second."""
    model = PaCaViT(SMALL if device.type == 'cpu' else 'tiny').to(device).train()
    first: list[float] = []
    second: list[float] = []
    for i in range(sizes):
        height, width = (64, 64 + 32 * i) if device.type == 'cpu' else (480 + 32 * (i % 11), 640 + 32 * i)  # fmt: skip
        x = torch.rand(1, 3, height, width, device=device)
        for times in (first, second):
            _wait(device)
            start = time.perf_counter()
            run_backbone(model, Task('train', (1, height, width), _name(dtype)), x)
            _wait(device)
            times.append(time.perf_counter() - start)
    return dict(first_ms=sum(first) / sizes * 1e3, second_ms=sum(second) / sizes * 1e3, worst_ms=max(first) * 1e3)  # fmt: skip


def _wait(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def depthwise(device: torch.device, dtype: torch.dtype, quick: bool) -> dict:
    """Time of the depthwise 3x3 convolution of each stage's MLP, channels-last and contiguous."""
    sides = ((20, 32, 64),) if quick else ((200, 336, 384), (100, 168, 768), (50, 84, 1280), (25, 42, 1536))  # fmt: skip
    figures = {}
    kinds = dict(last=torch.channels_last, first=torch.contiguous_format)
    for height, width, channels in sides:
        for kind, layout in kinds.items():
            conv = torch.nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
            conv = conv.to(device, dtype)
            x = torch.rand(2, channels, height, width, device=device, dtype=dtype)
            x = x.contiguous(memory_format=layout).requires_grad_()

            def step(conv=conv, x=x) -> None:  # type: ignore[no-untyped-def]
                conv(x).sum().backward()

            figures[f'{height}x{width}x{channels} {kind} ms'] = steps(step, str(device))[0] * 1e3
    return figures


def copy_bandwidth(device: torch.device, quick: bool) -> dict:
    """Bytes a second of a large copy, read and written."""
    source = torch.empty(2**20 if quick else 2**29, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    seconds, _ = steps(lambda: target.copy_(source), str(device))
    return dict(gb_per_s=2 * source.numel() / seconds / 1e9)


def speed(check: Check, name: str, mode: str, dtype: torch.dtype, **changes: Any) -> dict:
    """Time of a backbone, device and host, kernel launches, memory and share of the peaks."""
    shape = (1, 64, 96) if check.quick else (2, 800, 1344)
    task, device = Task(mode, shape, _name(dtype)), str(check.device)
    backbone = dict(PEERS[name][0], **changes)
    if check.quick:
        backbone['arch'] = SMALL
    model = build_backbone(backbone).to(device).train(mode == 'train')
    x = torch.rand(shape[0], 3, *shape[1:], device=device)
    call = partial(run_backbone, model, task, x)
    seconds, host = steps(call, device)
    figures = dict(device_ms=seconds * 1e3, host_ms=host * 1e3)
    figures['peak_gib'] = peak_memory(device, call) / 2**30
    figures['kernels'] = _kernels(call, check.device)
    figures['gemm_tflops'] = gemm_flops(task, device) / 1e12
    return figures


def _kernels(call: Callable[[], object], device: torch.device) -> int:
    """Number of kernels that a call launches on CUDA; of operators on CPUs."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == 'cuda'
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as found:
        call()
        _wait(device)
    wanted = torch.autograd.DeviceType.CUDA if cuda else torch.autograd.DeviceType.CPU
    return sum(event.device_type == wanted for event in found.events() or ())


def main(device: str, quick: bool, folder: Path) -> int:
    """Run all parts and write the report; returns 1 if a part failed."""
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # for deterministic algorithms
    print(f'{CUDA_STEPS} steps a timing; at most 10 minutes')
    parts = run_checks(device, quick)
    for path in write_report(parts, folder):
        print(f'wrote {path}')
    failed = [name for name, part in parts.items() if part['status'] == 'FAILED']
    for name in failed:
        print(f'FAILED {name}: {parts[name]["error"]}')
    return 1 if failed else 0
