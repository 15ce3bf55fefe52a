"""NaN and infinite gradients never reach the weights, on any rank."""

import functools
from types import SimpleNamespace

import pytest
import torch
import toy
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.structures import BaseDataElement

from mmpaca.checkpoint import load_from_local
from mmpaca.engine import CheckInvalidGradHook
from mmpaca.engine.hooks.check_invalid_grad_hook import image_names

HOOK = dict(type='mmpaca.CheckInvalidGradHook', max_skips=2)


@HOOKS.register_module('Poison')
class Poison(Hook):
    """Make an image, or only a gradient, NaN or infinite at some iterations."""

    def __init__(self, at: list[int], kind: str, rank: int = 0) -> None:
        self.at, self.kind, self.rank = at, kind, rank

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.rank != self.rank or runner.iter not in self.at:
            return
        if self.kind == 'gradient':
            weight = next(runner.model.parameters())
            handle = weight.register_hook(lambda grad: handle.remove() or grad * float('inf'))
        else:
            data_batch['inputs'][0][0] = float(self.kind)


@HOOKS.register_module('Recorder')
class Recorder(Hook):
    """Record weights, buffers and warnings after each iteration."""

    def __init__(self, states: list, warnings: list) -> None:
        self.states, self.warnings = states, warnings

    def before_train(self, runner) -> None:
        runner.logger.warning = self.warnings.append
        self.after_train_iter(runner)

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        self.states.append({k: v.clone() for k, v in runner.model.state_dict().items()})


def check(work_dir, kind: str, optim: dict, at: int, changed: list[bool], **kwargs) -> None:
    """Train, and check which iterations changed the weights."""
    runner = toy.runner(
        work_dir, end=2, hooks=(HOOK, dict(type='Poison', at=[at], kind=kind)), **kwargs
    )
    runner.cfg.optim_wrapper = optim
    runner.optim_wrapper = optim
    states, warnings = [], []
    runner.register_hook(Recorder(states, warnings), 'LOWEST')
    runner.train()
    weights = [state['layers.0.weight'] for state in states]
    differs = [not torch.equal(a, b) for a, b in zip(weights, weights[1:], strict=False)]
    assert differs == changed, differs
    assert all(v.isfinite().all() for v in states[-1].values())
    # The running statistics are those before the step.
    mean = 'layers.1.running_mean'
    after = at + optim.get('accumulative_counts', 1)
    assert torch.equal(states[after][mean], states[at][mean])
    assert not torch.equal(states[after + 1][mean], states[at][mean])
    assert len(warnings) == 1 and 'at iteration' in warnings[0] and '.jpg, ' in warnings[0]


ADAMW = dict(type='AdamW', lr=0.05)


@pytest.mark.parametrize('kind', ['nan', 'inf', 'gradient'])
@pytest.mark.parametrize(
    'wrapper', [dict(), dict(clip_grad=dict(max_norm=1.0)), dict(accumulative_counts=2)]
)
def test_one_bad_step_is_skipped(tmp_path, kind, wrapper):
    wrapper = dict(type='OptimWrapper', optimizer=ADAMW, **wrapper)
    if 'accumulative_counts' in wrapper:  # iterations 5 and 6 make a step, the first is bad
        at, changed = 4, [i % 2 == 1 and i != 5 for i in range(12)]
    else:
        at, changed = 4, [i != 4 for i in range(12)]
    call = functools.partial(check, tmp_path / 'run', kind, wrapper, at, changed)
    assert toy.forked(call) == [0]


def test_too_many_stop_the_run_with_names_and_a_checkpoint(tmp_path, capfd):
    poison = dict(type='Poison', at=[7, 8, 9, 10], kind='nan')
    call = functools.partial(toy.train, tmp_path / 'run', hooks=(HOOK, poison))
    assert toy.forked(call) == [1]
    printed = capfd.readouterr().err
    assert (
        'FloatingPointError: NaN or infinite gradients at iteration 10 (loss here: nan)' in printed
    )
    saved = load_from_local(tmp_path / 'run/nonfinite_iter_10.pth')
    names = saved['meta']['nonfinite_images']
    assert len(names) == toy.BATCH and f'images {names[0]}, {names[1]}' in printed
    assert all(value.isfinite().all() for value in saved['state_dict'].values())
    # Twice two consecutive skips are within the limit.
    poison = dict(type='Poison', at=[2, 3, 5, 6], kind='nan')
    call = functools.partial(toy.train, tmp_path / 'b', hooks=(HOOK, poison), end=2)
    assert toy.forked(call) == [0]


def test_all_ranks_together(tmp_path):
    """One rank has the bad image; both skip the step and stay equal."""
    poison = dict(type='Poison', at=[4], kind='nan', rank=1)

    def train(rank: int) -> None:
        toy.train(
            tmp_path / 'run', world=(rank, 2), end=2, hooks=(HOOK, poison, dict(type='Equal'))
        )

    assert toy.forked(*(functools.partial(train, rank) for rank in (0, 1))) == [0, 0]


@HOOKS.register_module('Equal')
class Equal(Hook):
    """Assert that all ranks have equal finite weights, changed by all steps except the bad one."""

    def before_train(self, runner) -> None:
        self.weight = next(runner.model.parameters())
        self.last = self.weight.clone()

    def after_train_iter(self, runner, *args, **kwargs) -> None:
        weights = [torch.empty_like(self.weight.data) for _ in range(2)]
        torch.distributed.all_gather(weights, self.weight.data)
        assert torch.equal(*weights) and weights[0].isfinite().all()
        assert torch.equal(self.weight, self.last) == (runner.iter == 4)
        self.last = self.weight.clone()


class Scaler:
    """The part of GradScaler that the hook uses."""

    def __init__(self, scale: float) -> None:
        self.get_scale = lambda: scale


@pytest.mark.parametrize(
    ('scale', 'loss', 'skipped'),
    [(1024.0, 1.0, 0), (1024.0, float('nan'), 1), (1.0, 1.0, 1)],
)
def test_the_loss_scaler_may_look_for_a_scale(scale, loss, skipped):
    """A step skipped by the scaler counts if the loss is not finite or the scale is at most 1."""
    wrapper = SimpleNamespace(loss_scaler=Scaler(scale), should_update=lambda: True)
    logger = SimpleNamespace(warning=lambda _: None)
    hook = CheckInvalidGradHook()
    hook.after_train_iter(
        SimpleNamespace(optim_wrapper=wrapper, iter=0, logger=logger),
        0,
        outputs=dict(loss=torch.tensor(loss)),
    )
    assert hook.skipped == skipped


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('clip_grad', [None, dict(max_norm=1.0)])
def test_scale_search_with_a_fused_optimizer(fused, clip_grad):
    """At four scales the gradients overflow in float16: these steps are skipped but not counted."""
    weight = torch.nn.Parameter(torch.ones(3))
    wrapper = OptimWrapper(torch.optim.AdamW([weight], lr=0.1, fused=fused), clip_grad=clip_grad)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**17)
    wrapper.loss_scaler = scaler  # AmpOptimWrapper itself asks for a GPU
    runner = SimpleNamespace(
        optim_wrapper=wrapper, model=torch.nn.Identity(), iter=0, logger=SimpleNamespace()
    )
    hook = CheckInvalidGradHook(max_skips=0)
    hook.before_train(runner)
    changed = []
    for _ in range(6):
        before = weight.detach().clone()
        loss = (weight.half() * 4).float().sum()
        scaler.scale(loss).backward()
        if clip_grad:
            scaler.unscale_(wrapper.optimizer)
            torch.nn.utils.clip_grad_norm_([weight], **clip_grad)
        scaler.step(wrapper.optimizer)
        scaler.update()
        wrapper.zero_grad()
        hook.after_train_iter(runner, 0, outputs=dict(loss=loss))
        changed.append(not torch.equal(before, weight))
    assert changed == [False] * 4 + [True] * 2 and weight.isfinite().all()
    assert hook.skipped == 0 and scaler.get_scale() == 2.0**13


def test_weights_that_are_not_finite_are_not_called_so(tmp_path):
    runner = toy.runner(tmp_path / 'run', end=1, hooks=(dict(HOOK, max_skips=0),))
    runner.model.layers[0].weight.data[0, 0] = float('nan')
    says = (
        r'the weights are not finite either \(layers.0.weight\): resume from the checkpoint before'
    )
    with pytest.raises(FloatingPointError, match=says):
        runner.train()


def test_several_optimizers_are_refused():
    optimizers = {
        k: OptimWrapper(torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), 1)) for k in 'ab'
    }
    with pytest.raises(TypeError, match='one optimizer, and optim_wrapper has 2'):
        CheckInvalidGradHook().before_train(
            SimpleNamespace(optim_wrapper=OptimWrapperDict(**optimizers))
        )


def test_image_names():
    samples = [
        BaseDataElement(metainfo=dict(img_path='a.jpg', img_id=1)),
        BaseDataElement(metainfo=dict(img_id=2)),
        BaseDataElement(),
    ]
    assert image_names(dict(data_samples=samples)) == ['a.jpg', '2']
    assert image_names([1]) == []
