"""Resuming with another number of processes: no sample is lost or repeated, the run stays the run."""

import functools
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import toy
from mmengine.dataset import DefaultSampler
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from mmpaca.engine.elastic import micro_batches, sampler_of_rank, split

RUNS = {
    'epochs': dict(epochs=True, checkpoint=dict(interval=9)),
    'iterations': dict(epochs=False, checkpoint=dict(interval=90)),
}


@HOOKS.register_module('Note')
class Note(Hook):
    """Write down the samples of each iteration of training; get a SIGTERM after one."""

    def __init__(self, folder: str, stop: int | None = None) -> None:
        self.folder, self.stop = Path(folder), stop

    def after_train_iter(self, runner, batch_idx, data_batch, outputs) -> None:
        names = [sample.img_path.removesuffix('.jpg') for sample in data_batch['data_samples']]
        with (self.folder / f'samples_{runner.rank}').open('a') as file:
            file.write(f'{runner.iter} {",".join(names)}\n')
        if runner.iter + 1 == self.stop:
            signal.raise_signal(signal.SIGTERM)


def linear(self) -> None:
    """A model whose gradients do not depend on which samples a process gets together."""
    toy.BaseModel.__init__(self)
    self.layers = nn.Sequential(nn.Linear(4, 1))


def run(work_dir: Path, processes: int, stop: int | None = None, elastic: bool = True, **kwargs):
    """Train in so many processes; their exit statuses."""
    work_dir.mkdir(exist_ok=True, parents=True)
    hooks = (dict(type='Note', folder=str(work_dir), stop=stop),)

    def train(**world) -> None:
        toy.Model.__init__ = linear
        toy.train(work_dir, hooks=hooks, elastic=elastic, **world, **kwargs)

    if processes == 1:
        return toy.forked(train)
    worlds = [(rank, processes) for rank in range(processes)]
    return toy.forked(*(functools.partial(train, world=world) for world in worlds))


def samples(work_dir: Path) -> dict[int, list[int]]:
    """The samples of each iteration, of all processes."""
    found: dict[int, list[int]] = {}
    for file in work_dir.glob('samples_*'):
        for line in file.read_text().splitlines():
            iteration, names = line.split()
            found.setdefault(int(iteration), []).extend(map(int, names.split(',')))
    return {iteration: sorted(names) for iteration, names in found.items()}


@pytest.mark.parametrize(
    ('kind', 'changes'),
    [('epochs', (1, 2)), ('epochs', (2, 1)), ('iterations', (2, 1, 1, 2))],
)
def test_no_sample_is_lost_or_repeated(tmp_path, kind, changes):
    """Stopped inside an epoch after each part; as much as a run that was not stopped."""
    assert run(tmp_path / 'undisturbed', changes[0], **RUNS[kind]) == [0] * changes[0]
    per_epoch = toy.SIZE // (toy.BATCH * changes[0])
    for part, processes in enumerate(changes):
        last = part == len(changes) - 1
        stop = None if last else per_epoch + 1 + part
        statuses = run(tmp_path / 'run', processes, stop, resume=part > 0, **RUNS[kind])
        assert statuses == [0 if last else 143] * processes
    expected, got = samples(tmp_path / 'undisturbed'), samples(tmp_path / 'run')
    assert got == expected
    epoch = [i for step in range(per_epoch, 2 * per_epoch) for i in got[step]]
    assert sorted(epoch) == list(range(toy.SIZE))

    a, b = (toy.last(tmp_path / name) for name in ('undisturbed', 'run'))
    assert (a['meta']['iter'], a['meta']['epoch']) == (b['meta']['iter'], b['meta']['epoch'])
    rates = [x['message_hub']['log_scalars']['train/lr'].data[0] for x in (a, b)]
    assert np.array_equal(*rates)
    for name, weights in a['state_dict'].items():
        torch.testing.assert_close(b['state_dict'][name], weights, rtol=1e-5, atol=1e-6)


def restarted(work_dir: Path, kill: int | None) -> None:
    """A rank of torchrun's; the second one is killed once, after so many iterations."""
    toy.Model.__init__ = linear
    first = os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'
    hooks = [dict(type='Note', folder=str(work_dir))]
    if kill and first and os.environ['RANK'] == '1':
        hooks.append(dict(type='Killer', train=kill))
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
    options = dict(hooks=tuple(hooks), elastic=True, resume=not first, **RUNS['iterations'])
    options['checkpoint'] = dict(interval=4)
    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    toy.runner(work_dir, launcher='pytorch', model_wrapper_cfg=wrapper, **options).train()


def test_torchrun_restarts_after_a_killed_rank(tmp_path):
    """By torchrun's own agent, in its elastic form: 1 to 2 nodes, of which one comes."""

    def train(name: str, kill: int | None) -> None:
        (tmp_path / name).mkdir()
        config = LaunchConfig(
            min_nodes=1, max_nodes=2, nproc_per_node=2, max_restarts=1, monitor_interval=0.1,
            run_id=name, rdzv_backend='c10d', rdzv_endpoint='localhost:0', start_method='fork',
            rdzv_configs=dict(last_call_timeout=1),
        )  # fmt: skip
        # As docs/training.md says; otherwise restarted processes meet the store of those that died.
        os.environ['TORCH_DISABLE_SHARE_RDZV_TCP_STORE'] = '1'
        elastic_launch(config, restarted)(tmp_path / name, kill)

    for name, kill in (('undisturbed', None), ('run', 10)):
        assert toy.forked(functools.partial(train, name, kill)) == [0]
    a, b = (toy.last(tmp_path / name) for name in ('undisturbed', 'run'))
    assert a['meta']['iter'] == b['meta']['iter'] == 24
    for name, weights in a['state_dict'].items():
        assert torch.equal(b['state_dict'][name], weights), name
    expected, got = samples(tmp_path / 'undisturbed'), samples(tmp_path / 'run')
    assert got.keys() == expected.keys() == set(range(24))
    again = [i for i in got if got[i] != expected[i]]
    assert again == [8, 9]  # from the checkpoint after 8 iterations on
    assert all(got[i] == sorted(2 * expected[i]) for i in again)


@pytest.mark.parametrize(
    ('batch_size', 'started', 'processes', 'expected'),
    [
        (2, 2, 1, 2),  # 4 images as 2 + 2
        (2, 1, 2, 1),  # 1 image each
        (2, 8, 4, 2),
        (4, 2, 8, 1),
        (3, 4, 6, 1),  # 2 images each
        (2, 3, 2, 3),  # 3 images as 1 + 1 + 1: 3 exceed the configured 2
    ],
)
def test_micro_batches(batch_size, started, processes, expected):
    assert micro_batches(batch_size, started, processes) == expected


def test_a_global_batch_that_cannot_be_shared():
    says = r'3 processes cannot share the global batch of 4 images \(2 x 2\) evenly'
    with pytest.raises(ValueError, match=says):
        micro_batches(2, 2, 3)


@pytest.mark.parametrize('round_up', [True, False])
def test_samplers_of_other_ranks(monkeypatch, round_up):
    """As the ranks themselves would build them."""
    config = dict(type='DefaultSampler', shuffle=True, round_up=round_up)
    for rank in range(3):
        mine = sampler_of_rank(config, range(10), 5, rank, 3)
        with monkeypatch.context() as patch:
            patch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 3))
            theirs = DefaultSampler(range(10), seed=5, round_up=round_up)
        assert list(mine) == list(theirs) and len(mine) == len(theirs)


def test_samplers_that_are_not_supported():
    config = dict(type='ClassAwareSampler', _scope_='mmdet')
    with pytest.raises(TypeError, match='ClassAwareSampler is not supported.*with 2 processes'):
        sampler_of_rank(config, Classes(), 5, 0, 2)


class Classes(list):
    """As much of a dataset as ClassAwareSampler looks at."""

    metainfo = dict(classes=('a',))

    def get_cat2imgs(self) -> dict:
        return {0: [0]}


def test_split():
    batch = dict(inputs=[1, 2, 3, 4], data_samples=dict(gt=torch.arange(4)))
    first, second = split(batch, 2)
    assert first['inputs'] == [1, 2] and second['inputs'] == [3, 4]
    assert torch.equal(second['data_samples']['gt'], torch.tensor([2, 3]))
