"""The entry ``run_state`` of a checkpoint, which ExactResumeHook saves."""

from collections.abc import Mapping
from typing import Any

from mmengine.dist import get_world_size
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmpaca.checkpoint.schema import (
    NEW_RUN,
    SchemaError,
    check_list,
    check_mapping,
    check_whole,
    require,
)
from mmpaca.engine.rng import try_rng_state

_MAX_SEED = 2**64 - 1


def sampler_of(dataloader: DataLoader) -> Any:
    """The sampler of indices; None if there is none."""
    return getattr(dataloader.batch_sampler, 'sampler', None)


def describe_optimizers(wrapper: OptimWrapper | OptimWrapperDict) -> list[dict]:
    """Class, and number of parameters that have a state, of each optimizer."""
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    return [
        dict(type=type(part.optimizer).__name__, states=len(part.optimizer.state_dict()['state']))
        for part in wrappers
    ]


def epoch_start(state: Mapping, epoch: int) -> Mapping:
    """Where the epoch of a checkpoint began: ``epoch`` and ``iter``.

    Args:
        state: a ``run_state``. That of 0.1 does not say: the number of batches never changed.
        epoch: ``meta.epoch``.
    """
    return state.get('epoch_start', dict(epoch=epoch, iter=epoch * state['batches_per_epoch']))


def batches_done(state: Mapping, epoch: int, iterations: int) -> int:
    """Number of batches of the current epoch before the checkpoint."""
    start = epoch_start(state, epoch)
    return iterations - start['iter'] if start['epoch'] == epoch else 0


def check_run_state(checkpoint: Mapping, runner: Runner) -> list[str]:
    """Check random states, sampler's seed and the place in the epoch.

    Args:
        checkpoint: from the loader; its ``meta`` has been checked.
        runner: with its train loop built.

    Returns:
        What differs from the config.

    Raises:
        SchemaError: an entry is missing, malformed or contradicts another one.
    """
    if 'run_state' not in checkpoint:
        raise SchemaError(
            'run_state',
            'is missing: the file was saved without mmpaca.ExactResumeHook',
            'To resume with other random numbers and another order of the data, set '
            'default_hooks=dict(exact_resume=dict(enabled=False))',
        )
    state = check_mapping(checkpoint['run_state'], 'run_state')
    meta = checkpoint['meta']
    for number, rng in enumerate(check_list(state.get('rng'), 'run_state.rng')):
        _check_rng(rng, f'run_state.rng[{number}]')
    require(len(state['rng']) > 0, 'run_state.rng', state['rng'], 'a state for each process')
    require(
        type(state.get('validated')) is bool,
        'run_state.validated',
        state.get('validated'),
        'a bool',
    )
    check_whole(state.get('batches_per_epoch'), 'run_state.batches_per_epoch', least=1)
    if 'started' in state:  # by another number of processes
        check_whole(state['started'], 'run_state.started', least=1)
    _check_seed(state, meta, runner)
    if type(runner.train_loop) is EpochBasedTrainLoop:
        _check_epoch(state, meta)
    if 'optimizers' in state and 'optimizer' in checkpoint:
        _check_optimizers(state['optimizers'], checkpoint['optimizer'], runner.optim_wrapper)
    return _check_epoch_length(state, meta, runner)


def _check_rng(state: Any, entry: str) -> None:
    check_mapping(state, entry)
    for name in ('python', 'numpy', 'torch'):
        if name not in state:
            raise SchemaError(f'{entry}.{name}', 'is missing')
    for name in state:
        try:
            try_rng_state(name, state[name])
        except Exception as error:  # what the generators raise for anything
            raise SchemaError(
                f'{entry}.{name}', f'is not a state of a generator: {error}'
            ) from None


def _check_seed(state: Mapping, meta: Mapping, runner: Runner) -> None:
    """The sampler's seed is that of the run, if samplers take the runner's."""
    ours = getattr(sampler_of(runner.train_dataloader), 'seed', None)
    seed = state.get('sampler_seed')
    if ours is None:
        require(seed is None, 'run_state.sampler_seed', seed, 'None, for a sampler without seed')
        return
    check_whole(seed, 'run_state.sampler_seed', most=_MAX_SEED)
    if ours == runner.seed and meta.get('seed') not in (None, seed):
        raise SchemaError('run_state.sampler_seed', f'is {seed}, but meta.seed {meta["seed"]}')


def _check_epoch(state: Mapping, meta: Mapping) -> None:
    """``epoch`` and ``iter`` belong together."""
    if 'epoch_start' in state:
        check_mapping(state['epoch_start'], 'run_state.epoch_start')
        for key in ('epoch', 'iter'):
            check_whole(state['epoch_start'].get(key), f'run_state.epoch_start.{key}')
    start = epoch_start(state, meta['epoch'])
    done = meta['iter'] - start['iter']
    epochs = meta['epoch'] - start['epoch']
    inside = epochs == 0 and 0 <= done <= state['batches_per_epoch']
    if not inside and not (epochs == 1 and done == state['batches_per_epoch']):
        raise SchemaError(
            'meta',
            f'has epoch {meta["epoch"]} and iter {meta["iter"]}, but epoch {start["epoch"]} of '
            f'{state["batches_per_epoch"]} batches began at iter {start["iter"]}',
        )


def _check_epoch_length(state: Mapping, meta: Mapping, runner: Runner) -> list[str]:
    """The batches are those of the checkpoint, unless it was saved at the end of an epoch."""
    now, saved = len(runner.train_dataloader), state['batches_per_epoch']
    elastic = 'started' in state or len(state['rng']) != get_world_size()
    if now == saved or elastic:
        return []  # ExactResumeHook decides about another number of processes
    epochs = type(runner.train_loop) is EpochBasedTrainLoop
    if batches_done(state, meta['epoch'], meta['iter']) if epochs else meta['iter']:
        raise SchemaError(
            'the checkpoint',
            f'was saved inside an epoch of {saved} batches, which now has {now}',
            'Resume with the same data and batch size',
        )
    return [f'batches per epoch: {now} now, {saved} in the checkpoint']


def _check_optimizers(
    saved: Any, states: Mapping, wrapper: OptimWrapper | OptimWrapperDict
) -> None:
    ours = describe_optimizers(wrapper)
    check_list(saved, 'run_state.optimizers', len(ours))
    several = isinstance(wrapper, OptimWrapperDict)
    parts = [states.get(name) for name, _ in wrapper.items()] if several else [states]
    for number, (there, here, part) in enumerate(zip(saved, ours, parts, strict=True)):
        entry = f'run_state.optimizers[{number}]'
        check_mapping(there, entry)
        if there.get('type') != here['type']:
            raise SchemaError(
                'optimizer',
                f'is of {there.get("type")}, the optimizer of the config is {here["type"]}',
                f'Use the optimizer of the checkpoint, or {NEW_RUN}',
            )
        check_whole(there.get('states'), f'{entry}.states')
        if isinstance(part, Mapping) and isinstance(part.get('state'), Mapping):
            found = len(part['state'])
            if found != there['states']:
                raise SchemaError(
                    'optimizer.state', f'has {found} parameters, {there["states"]} were saved'
                )
