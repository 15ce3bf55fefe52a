"""Mutate the content of a training checkpoint and resume from it: the mode of fuzz_checkpoints.py.

A tiny run is trained once. Its checkpoint is loaded, one to three entries get another type, shape,
length, key or a value out of range, and a run resumes from the file. It must be the same run, be
refused by an error that names the file, or warn of what differs from the config. Values that any
run could have (e.g. another weight) are not tried: only the SHA-256 tells them.
"""

import contextlib
import copy
import io
import logging
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import mmengine.runner.runner
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset

import mmpaca  # noqa: F401

ODD = (
    None, 'x', '', -1, -7, 2**70, -(2**70), 0.5, float('nan'), float('inf'), -float('inf'), True, False,
    b'x', (), [], {}, [1], ['x'], dict(x=1), torch.tensor([2, 2]), torch.zeros(0), torch.ones(2, 2),
    torch.tensor(float('nan')), HistoryBuffer([1.0], [1]),
)  # fmt: skip
HUGE = (1e30, -1e30, 10**9)
KINDS = ('epochs', 'inside', 'iterations')


@DATASETS.register_module()
class FuzzedData(Dataset):
    """Eight vectors with noise."""

    metainfo = dict(classes=('a',))

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.full((3,), index / 8) + random.random() + torch.rand(3))


@MODELS.register_module()
class FuzzedModel(BaseModel):
    """Two layers, dropout and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1)
        )

    def forward(self, inputs: list[Tensor], mode: str = 'loss') -> dict:
        """Returns the loss."""
        out = self.layers(torch.stack(inputs))
        return dict(loss=F.mse_loss(out, torch.ones_like(out)))


def build(work_dir: Path, kind: str, resume: bool = False) -> Runner:
    """A run of three epochs of four iterations."""
    epochs = kind != 'iterations'
    hook = dict(
        type='mmpaca.AtomicCheckpointHook', by_epoch=kind == 'epochs', interval=1, max_keep_ckpts=3
    )
    if kind != 'epochs':
        hook['interval'] = 6
    cfg = dict(
        model=dict(type='FuzzedModel'),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            dataset=dict(type='FuzzedData'),
            sampler=dict(type='DefaultSampler' if epochs else 'InfiniteSampler', shuffle=True),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3)
        if epochs
        else dict(by_epoch=False, max_iters=12),
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=0.05, weight_decay=0.1),
            paramwise_cfg=dict(bias_decay_mult=0.0) if kind == 'inside' else None,
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, begin=0, end=3, by_epoch=False),
            dict(type='MultiStepLR', milestones=[1], by_epoch=True)
            if kind == 'epochs'
            else dict(type='CosineAnnealingLR', begin=3, T_max=9, by_epoch=False),
        ],
        default_hooks=dict(
            checkpoint=hook,
            resume_check=dict(type='mmpaca.ResumeCheckHook'),
            exact_resume=dict(type='mmpaca.ExactResumeHook'),
            invalid_grad=dict(type='mmpaca.CheckInvalidGradHook'),
            logger=dict(type='LoggerHook', interval=5),
        ),
        custom_hooks=[dict(type='EMAHook')],
        visualizer=None,
        resume=resume,
        log_level='WARNING',
        randomness=dict(seed=5),
        experiment_name=f'fuzzed_{time.time_ns()}',
        default_scope='mmengine',
    )
    return Runner.from_cfg(Config(cfg))


def quicken() -> None:
    """Leave out what takes longer than this training; the process does nothing else."""
    torch.set_num_threads(1)
    mmengine.runner.runner.collect_env = dict
    time.sleep = lambda seconds: None  # mmengine's loop does, after each epoch
    logging.raiseExceptions = False


class Fuzzer:
    """Runs to resume.

    Args:
        folder: for all runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with contextlib.redirect_stdout(io.StringIO()):
            self.runs = {kind: self._train(kind) for kind in KINDS}
        self.counts: dict[str, int] = {}

    def _train(self, kind: str) -> tuple[str, dict, dict]:
        work_dir = self.folder / kind
        build(work_dir, kind).train()
        name, last = (
            ('epoch_2.pth', 'epoch_3.pth') if kind == 'epochs' else ('iter_6.pth', 'iter_12.pth')
        )
        return name, *(torch.load(work_dir / n, weights_only=False) for n in (name, last))

    def finding(self, seed: int) -> str | None:
        """Resume from the mutated checkpoint of a seed; returns what is wrong."""
        rng = random.Random(seed)
        kind = rng.choice(KINDS)
        name, content, expected = self.runs[kind]
        content = copy.deepcopy(content)
        mutations = [mutate(content, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        work_dir = self.folder / 'fuzzed'
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir()
        torch.save(content, work_dir / name)
        (work_dir / 'last_checkpoint').write_text(str(work_dir / name))
        with contextlib.redirect_stdout(io.StringIO()):
            result = self._resume(work_dir, kind, expected)
        self.counts[result.partition(':')[0]] = self.counts.get(result.partition(':')[0], 0) + 1
        good = ('same run', 'refused', 'warned')
        return None if result.startswith(good) else f'{kind}, {"; ".join(mutations)}: {result}'

    def _resume(self, work_dir: Path, kind: str, expected: dict) -> str:
        said: list[str] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: said.append(record.getMessage())  # type: ignore
        try:
            run = build(work_dir, kind, resume=True)
            run.logger.addHandler(handler)
            run.train()
        except (RuntimeError, ValueError) as error:
            first = str(error).replace('\n', ' ')
            if str(work_dir) in first and 'cannot resume' in first or 'cannot be resumed' in first:
                return f'refused: {first}'
            return f'traceback: {type(error).__name__}: {first}'
        except Exception as error:
            return f'traceback: {type(error).__name__}: {error}'
        last = (work_dir / 'last_checkpoint').read_text()
        found = torch.load(last, weights_only=False)
        for state in (found, expected):
            state['optimizer'].pop('base_param_settings', None)  # for logs only
        same = os.path.basename(last) in ('epoch_3.pth', 'iter_12.pth') and all(
            equal(found[key], expected[key])
            for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
        )
        if same:
            return 'same run'
        named = [
            line for line in said if 'differs from the config' in line or 'random seed' in line
        ]
        return f'warned: {named[0]}' if named else 'silent difference'


def mutate(content: dict, rng: random.Random) -> str:
    """Change one entry in place; returns its name and what was done."""
    parent, path = content, ''
    while True:
        key = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        value = parent[key]
        path += f'.{key}'
        # Deeper into containers, but not by chance into the numbers of the generators.
        if not isinstance(value, dict | list) or not len(value) or rng.random() < 0.15:
            break
        parent = value
    new = _mutated(value, rng)
    if new is _DELETED:
        del parent[key]
    elif new is _RENAMED:
        parent['renamed'] = parent.pop(key) if isinstance(parent, dict) else None
    else:
        parent[key] = new
    return f'{path[1:]} = {type(new).__name__} {str(new)[:60]!r}'


_DELETED, _RENAMED = type('deleted', (), {}), 'renamed'


def _mutated(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.2:
        return _DELETED
    if isinstance(value, Tensor) and rng.random() < 0.8:
        return _mutated_tensor(value, rng)
    if isinstance(value, dict | list | tuple) and len(value) and rng.random() < 0.6:
        return _mutated_container(value, rng)
    if isinstance(value, bool) or not isinstance(value, int | float) or rng.random() < 0.7:
        new = rng.choice(ODD)
        return copy.deepcopy(new)
    return rng.choice(
        (-value - 1, value * 1e30 + 1e30, float(value) + 0.5, str(value), [value], *HUGE)
    )


def _mutated_tensor(value: Tensor, rng: random.Random) -> Tensor:
    changed = value.clone()
    if value.is_floating_point() and value.numel() and rng.random() < 0.4:
        changed.view(-1)[rng.randrange(value.numel())] = rng.choice((float('nan'), float('inf')))
        return changed
    return rng.choice((
        lambda: changed.reshape(-1)[:-1],
        lambda: torch.cat([changed.reshape(-1)] * 2),
        lambda: changed[None],
        lambda: changed.to(torch.bool),
        lambda: changed.to(torch.int8),
        lambda: changed.to(torch.float16),
        lambda: changed.to(torch.float64),
        lambda: changed.to(torch.complex64),
        lambda: changed.to_sparse(),
        lambda: changed.tolist(),
        lambda: changed.reshape(-1).to('meta') if rng.random() < 0.2 else changed.reshape(-1)[:0],
    ))()  # fmt: skip


def _mutated_container(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        place = rng.randrange(len(items))
        key, part = items[place]
        changed = rng.choice((
            lambda: items[:place],
            lambda: items[:place] + items[place + 1 :],
            lambda: [*items, ('unknown', part)],
            lambda: [*items[:place], (f'{key}x', part), *items[place + 1 :]],
            lambda: [*items[:place], (5, part), *items[place + 1 :]],
        ))()  # fmt: skip
        return dict(changed)
    items = list(value)
    changed = rng.choice((items[:-1], items * 2, [*items, None], items[:-1] + ['x'], [items]))
    return type(value)(changed)


def equal(a: Any, b: Any) -> bool:
    """True if two nested states are exactly equal."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)
