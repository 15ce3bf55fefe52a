"""A toy run of mmengine's Runner that takes a tenth of a second and can be killed anywhere.

The model and the data draw from every random generator, so that a resumed run which is not the
same run ends with other weights.
"""

import functools
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot  # noqa: F401  (what a run imports is imported before the fork)
import mmengine.runner.runner
import numpy as np
import torch
import torch._dynamo
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

import mmpaca  # noqa: F401
from mmpaca.checkpoint import load_from_local

SIZE, BATCH = 12, 2
# The smallest PaCaViT, for runs of real detectors.
TINY = dict(
    embed_dims=(8, 8, 8, 8), num_heads=(1, 1, 1, 1), mlp_ratios=(1, 1, 1, 1), depths=(1, 1, 1, 1)
)


@DATASETS.register_module('ToyData')
class Data(Dataset):
    """Vectors, augmented by draws from all generators."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> dict:
        noise = random.random() + np.random.rand() + torch.rand(4)
        return dict(
            inputs=noise * (index + 1) / SIZE, data_samples=SimpleNamespace(img_path=f'{index}.jpg')
        )


@MODELS.register_module('ToyModel')
class Model(BaseModel):
    """Two layers, dropout and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)
        )

    def forward(self, inputs, data_samples=None, mode: str = 'loss'):
        out = self.layers(torch.stack(inputs))
        if mode == 'loss':
            return dict(loss=F.mse_loss(out, torch.ones_like(out)))
        torch.rand(3)  # validation draws, too
        return list(out)


@METRICS.register_module('ToyScore')
class Score(BaseMetric):
    """A metric that rises with every validation, so that each one is the best."""

    def process(self, data_batch, data_samples) -> None:
        self.results.append(float(torch.stack(list(data_samples)).mean()))

    def compute_metrics(self, results: list) -> dict:
        scalars = MessageHub.get_current_instance().log_scalars
        before = len(scalars['val/mAP'].data[0]) if 'val/mAP' in scalars else 0
        return dict(mAP=float(before), loss=float(before))


@HOOKS.register_module('Killer')
class Killer(Hook):
    """Kill the process at an iteration of training or validation."""

    def __init__(self, train: int | None = None, val: int | None = None) -> None:
        self.train, self.val = train, val

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        if runner.iter + 1 == self.train:
            os.kill(os.getpid(), signal.SIGKILL)

    def after_val_iter(self, runner, *args, **kwargs) -> None:
        if runner.iter == self.val:
            os.kill(os.getpid(), signal.SIGKILL)


def runner(
    work_dir: Path,
    epochs: bool = True,
    resume: bool = False,
    checkpoint: dict | None = None,
    hooks: tuple = (),
    seed: int | None = 3,
    infinite: bool = True,
    end: int = 4,
    elastic: bool = False,
    **options,
) -> Runner:
    """``end`` epochs of six iterations (on one process), or as many iterations.

    Validation comes after every six.
    """
    hook = dict(type='mmpaca.AtomicCheckpointHook', by_epoch=epochs, interval=1 if epochs else 2)
    loader = dict(batch_size=BATCH, num_workers=0, dataset=dict(type='ToyData'))
    sampler = 'DefaultSampler' if epochs or not infinite else 'InfiniteSampler'
    cfg = dict(
        model=dict(type='ToyModel'),
        work_dir=str(work_dir),
        train_dataloader=dict(loader, sampler=dict(type=sampler, shuffle=True)),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_evaluator=dict(type='ToyScore'),
        train_cfg=dict(by_epoch=True, max_epochs=end, val_interval=1)
        if epochs
        else dict(by_epoch=False, max_iters=6 * end, val_interval=6),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.05)),
        param_scheduler=dict(type='CosineAnnealingLR', T_max=30, by_epoch=False),
        default_hooks=dict(checkpoint={**hook, **(checkpoint or {})}),
        custom_hooks=[
            dict(type='mmpaca.WorkDirLockHook'),
            dict(type='mmpaca.PreemptionHook'),
            dict(type='mmpaca.ResumeCheckHook'),
            dict(type='mmpaca.ExactResumeHook', elastic=elastic),
            dict(type='EMAHook'),
            *hooks,
        ],
        resume=resume,
        log_level='WARNING',
        randomness=dict(seed=seed),
        experiment_name=f'{work_dir.name}_{resume}',
        default_scope='mmengine',
        **options,
    )
    return Runner.from_cfg(Config(cfg))


def train(work_dir: Path, world: tuple[int, int] | None = None, **kwargs) -> None:
    """Train in a forked process; ``world`` is (rank, number of processes)."""
    torch.set_num_threads(1)
    work_dir.parent.mkdir(parents=True, exist_ok=True)
    os.chdir('/proc')  # nothing can be written there, not even by root
    if world is not None:
        rank, size = world
        os.environ['LOCAL_RANK'] = str(rank)
        # The dead leave their addresses in the store, so that a resumed run needs another one.
        store = f'file://{work_dir}.{kwargs.get("resume", False)}'
        dist.init_process_group('gloo', init_method=store, rank=rank, world_size=size)
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
        kwargs.update(launcher='pytorch', model_wrapper_cfg=wrapper)
    runner(work_dir, **kwargs).train()


def in_processes(folder: Path, body: Callable[[int], None], number: int = 2) -> None:
    """Run ``body(rank)`` in several forked processes that are connected."""

    def run(rank: int) -> None:
        store = f'file://{folder}/store'
        dist.init_process_group('gloo', init_method=store, rank=rank, world_size=number)
        body(rank)

    assert forked(*(functools.partial(run, rank) for rank in range(number))) == [0] * number


def forked(*calls: Callable[[], None]) -> list[int]:
    """Run calls in parallel processes; returns their exit statuses.

    If one dies, the others have a minute to end by themselves.
    """
    context = multiprocessing.get_context('fork')
    processes = [context.Process(target=_quiet, args=(call,)) for call in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
        if process.exitcode != 0:  # as torchrun does, which waits 30 s
            for other in processes:
                other.join(timeout=60)
                other.kill()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def _quiet(call: Callable[[], None]) -> None:
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    # What takes longer than the training: asking compilers for their versions and so on.
    mmengine.runner.runner.collect_env = dict
    Config.pretty_text = property(lambda self: '')
    time.sleep = lambda seconds: None  # mmengine's loop does, after each pass
    try:
        call()
    except SystemExit as stop:
        os._exit(int(stop.code))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def last(work_dir: Path) -> dict:
    """The checkpoint that last_checkpoint names."""
    return load_from_local((work_dir / 'last_checkpoint').read_text())


def equal(a, b) -> bool:
    """True if two nested states are exactly equal."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b
