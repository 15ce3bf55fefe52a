"""Training parts of the GPU check: detectors, interrupted runs, several processes."""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmpaca.models import PaCaViT

CONFIGS = dict(
    mask_rcnn='mask-rcnn_paca-t_1x_coco',
    retinanet='retinanet_paca-t_1x_coco',
    dino='dino-4scale_paca-t_8xb2-12e_coco',
    teacher='mask-rcnn_paca-s-teacher_1x_coco',
)
_QUICK_CONFIG = 'mask-rcnn_paca-demo_shapes'
# GradScaler starts at 2 ** 16 and halves it at each skipped step.
_EARLY_STEPS = 5
SMALL = dict(
    embed_dims=(16, 16, 32, 32), num_heads=(1, 1, 2, 2), mlp_ratios=(2,) * 4, depths=(1,) * 4
)
_STEPS, _KILLED_AFTER = 4, 2


class TrainingFailedError(Exception):
    """A training gave a wrong result."""


def train_detector(name: str, device: torch.device, dtype: torch.dtype, steps: int) -> dict:
    """Train a detector with random weights on generated boxes, in mixed precision.

    Args:
        name: a key of :data:`CONFIGS`; with fewer than 3 steps a small model takes its place.
        device: device to train on.
        dtype: precision of autocast; float16 on CUDA with a GradScaler.
        steps: optimizer steps.

    Raises:
        TrainingFailedError: a loss is not finite, or the scaler skips a late step.
    """
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    from mmpaca.apis.configs import find_config

    quick = steps < 3
    config = Config.fromfile(find_config(_QUICK_CONFIG if quick else CONFIGS[name]))
    config.model.backbone.init_cfg = None  # no network
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model: Any = MODELS.build(config.model)
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(
        device.type, enabled=dtype == torch.float16 and device.type == 'cuda'
    )
    data = model.data_preprocessor(_samples((64, 64) if quick else (512, 640)), training=True)
    losses, skipped = [], []
    for step in range(steps):
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype):
            loss, _ = model.parse_losses(model(**data, mode='loss'))
        scaler.scale(loss).backward()
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss.detach()))
        if scaler.get_scale() < before:
            skipped.append(step)
    figures = dict(first_loss=losses[0], last_loss=losses[-1], skipped_steps=str(skipped))
    if not np.isfinite(losses).all() or any(step >= _EARLY_STEPS for step in skipped):
        raise TrainingFailedError(f'losses {losses}, skipped steps {skipped}')
    return figures


def _samples(size: tuple[int, int]) -> dict:
    """Two images of noise with four boxes each, as mmdet's pipelines give them."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    height, width = size
    generator = torch.Generator().manual_seed(0)
    images, samples = [], []
    for _ in range(2):
        images.append(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8))
        corners = torch.rand(4, 2, generator=generator) * torch.tensor([width / 2, height / 2])
        boxes = torch.cat([corners, corners + torch.tensor([width / 4, height / 4])], dim=1)
        masks = np.zeros((4, *size), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        sample = DetDataSample(
            metainfo=dict(
                img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size,
                scale_factor=(1.0, 1.0), img_id=0, flip=False,
            )
        )  # fmt: skip
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.arange(4) % 4, masks=BitmapMasks(masks, *size)
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0))
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def _model(device: torch.device) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = PaCaViT(SMALL, num_clusters=8, drop_path_rate=0.1).to(device).train()
    return model, torch.optim.AdamW(model.parameters(), lr=1e-3)


def _loss(model: nn.Module, images: Tensor) -> Tensor:
    return sum(((out.float() - 1) ** 2).sin().mean() for out in model(images))


def _in_processes(target: Callable, arguments: list[tuple], killed: bool = False) -> None:
    """Run a function in one process per tuple of arguments; they must end as expected."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__])
    processes = [context.Process(target=target, args=args) for args in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        expected = -signal.SIGKILL if killed else 0
        if process.exitcode is None:
            process.kill()
        if process.exitcode != expected:
            raise TrainingFailedError(f'a process ended with status {process.exitcode}')


def check_resume(device: torch.device) -> dict:
    """Kill a training and resume it with deterministic algorithms.

    Raises:
        TrainingFailedError: the weights differ from those of an uninterrupted training.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _in_processes(_train, [(folder / 'whole.pth', device, False)])
        _in_processes(_train, [(folder / 'killed.pth', device, True)], killed=True)
        _in_processes(_train, [(folder / 'killed.pth', device, False)])
        whole, resumed = (
            torch.load(folder / f'{kind}.pth', weights_only=True)['model']
            for kind in ('whole', 'killed')
        )
    wrong = [key for key in whole if not torch.equal(whole[key], resumed[key])]
    if wrong:
        raise TrainingFailedError(f'{len(wrong)} of {len(whole)} tensors differ, e.g. {wrong[0]}')
    return dict(equal_tensors=len(whole))


def _train(path: Path, device: torch.device, kill: bool) -> None:
    """Train until the last step, continuing from ``path``; write it after each step."""
    os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    model, optimizer = _model(device)
    done = 0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state['model'])
        optimizer.load_state_dict(state['optimizer'])
        done = state['done']
    for step in range(done, _STEPS):
        torch.manual_seed(step)
        images = torch.rand(2, 3, 64, 96).to(device)
        optimizer.zero_grad()
        _loss(model, images).backward()
        optimizer.step()
        state = dict(model=model.state_dict(), optimizer=optimizer.state_dict(), done=step + 1)
        torch.save(state, path)
        if kill and step + 1 == _KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)


def check_processes(number: int, backend: str = 'nccl') -> dict:
    """Train a step with DistributedDataParallel on all GPUs.

    Args:
        number: processes, one per GPU.
        backend: ``'nccl'``, or ``'gloo'`` for CPUs.

    Raises:
        TrainingFailedError: a gradient is not the mean of those that each process computes alone.
    """
    with tempfile.TemporaryDirectory() as name:
        arguments = [(Path(name), backend, rank, number) for rank in range(number)]
        _in_processes(_compare_gradients, arguments)
        return dict(processes=number, error=float((Path(name) / 'error').read_text()))


def _compare_gradients(folder: Path, backend: str, rank: int, number: int) -> None:
    torch.set_num_threads(1)
    device = torch.device('cuda', rank) if backend == 'nccl' else torch.device('cpu')
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend, init_method=f'file://{folder}/store', rank=rank, world_size=number
    )
    model, _ = _model(device)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(rank)).to(device)
    torch.manual_seed(rank)  # stochastic depth
    _loss(model, images).backward()
    mean = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
    dist.all_reduce(mean)
    mean /= number
    model.zero_grad()
    ids = [rank] if device.type == 'cuda' else None
    wrapped = nn.parallel.DistributedDataParallel(model, device_ids=ids)
    torch.manual_seed(rank)
    _loss(wrapped, images).backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
    error = float((found - mean).abs().max() / mean.abs().max())
    dist.destroy_process_group()
    if rank == 0:
        (folder / 'error').write_text(str(error))
    if not error <= 1e-3:
        raise TrainingFailedError(f'gradients are off by {error:.3g} of the largest')
