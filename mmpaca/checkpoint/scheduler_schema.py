"""Check the schedulers of a training checkpoint against those of the run, as :mod:`.optimizer_schema`."""

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.optim import _ParamScheduler

from .schema import (
    LARGEST,
    NEW_RUN,
    SchemaError,
    check_keys,
    check_list,
    check_mapping,
    check_number,
    needed,
    require,
)

_PROGRESS = ('last_step', '_global_step', '_last_value')


def check_schedulers(
    checkpoint: Mapping,
    schedulers: Sequence[_ParamScheduler] | Mapping[str, Sequence[_ParamScheduler]] | None,
    meta: Mapping,
) -> list[str]:
    """Check ``param_schedulers``.

    Args:
        checkpoint: from the loader; its ``optimizer`` has been checked.
        schedulers: of the run.
        meta: place in the run.

    Returns:
        What differs from the config.

    Raises:
        SchemaError: states are missing, malformed, of another place in the run or of other
            schedulers.
    """
    if schedulers is None:
        there = checkpoint.get('param_schedulers')
        if there:
            raise _other_schedulers('param_schedulers', there, [])
        return []
    states = needed(checkpoint, 'param_schedulers')
    if not isinstance(schedulers, Mapping):
        return _check_list(states, schedulers, checkpoint['optimizer'], 'param_schedulers', meta)
    check_keys(check_mapping(states, 'param_schedulers'), schedulers, 'param_schedulers')
    differences = []
    for name, ours in schedulers.items():
        optimizer = checkpoint['optimizer'].get(name, checkpoint['optimizer'])
        entry = f'param_schedulers.{name}'
        differences += _check_list(states[name], ours, optimizer, entry, meta)
    return differences


def _other_schedulers(entry: str, states: Sequence, ours: Sequence) -> SchemaError:
    return SchemaError(
        entry,
        f'has {len(states)} schedulers, the config {len(ours)}',
        f'Use the param_scheduler of the checkpoint, or {NEW_RUN}',
    )


def _check_list(
    states: Any,
    schedulers: Sequence[_ParamScheduler],
    optimizer: Mapping,
    entry: str,
    meta: Mapping,
) -> list[str]:
    check_list(states, entry)
    if len(states) != len(schedulers):
        raise _other_schedulers(entry, states, schedulers)
    groups = [*optimizer['param_groups'], *filter(None, [optimizer.get('base_param_settings')])]
    differences = []
    for number, (state, ours) in enumerate(zip(states, schedulers, strict=True)):
        differences += _check_scheduler(state, ours, groups, f'{entry}[{number}]', meta)
    for name in {ours.param_name for ours in schedulers}:
        _check_last_values(states, groups, entry, name)
    return differences


def _check_scheduler(
    state: Any, scheduler: _ParamScheduler, groups: Sequence[Mapping], entry: str, meta: Mapping
) -> list[str]:
    check_mapping(state, entry)
    ours = scheduler.state_dict()
    if state.keys() != ours.keys():
        names = ', '.join(sorted(state.keys() ^ ours.keys())[:3])
        raise SchemaError(
            entry,
            f'is not of a {type(scheduler).__name__}, which the config has: it differs in {names}',
            f'Use the param_scheduler of the checkpoint, or {NEW_RUN}',
        )
    for key, value in state.items():
        _check_like(value, ours[key], f'{entry}.{key}')
    for key in ('param_name', 'by_epoch'):
        if state[key] != ours[key]:
            raise SchemaError(
                f'{entry}.{key}',
                f'is {state[key]}, in the config {ours[key]}',
                f'Use the param_scheduler of the checkpoint, or {NEW_RUN}',
            )
    if type(scheduler).step is _ParamScheduler.step:  # steps each epoch or each iteration
        _check_progress(state, entry, meta)
        _try_step(state, scheduler, groups, entry)
    constants = _constants(scheduler) - {*_PROGRESS, 'base_values'}
    return [
        f'{entry}.{key}: {ours[key]} in the config, {state[key]} in the checkpoint'
        for key in ours
        if key in constants and state[key] != ours[key]
    ]


def _constants(scheduler: _ParamScheduler) -> set[str]:
    """Entries of a scheduler's state that do not change in a run."""
    kind = type(scheduler)
    if kind.step is _ParamScheduler.step and kind.__module__.startswith(('mmengine.', 'mmpaca.')):
        return {*scheduler.state_dict()}
    return {key for base in kind.__mro__[:-1] for key in inspect.signature(base).parameters}


def _check_like(value: Any, like: Any, entry: str) -> None:
    """The kind of value that a new scheduler has; infinite only where its is."""
    if isinstance(like, bool) or like is None or isinstance(like, str | Mapping):
        require(type(value) is type(like), entry, value, f'a {type(like).__name__}')
    elif isinstance(like, int | float):
        if not (math.isinf(like) and value == like):
            check_number(value, entry, -LARGEST)
    elif isinstance(like, list | tuple):
        length = len(like) if entry.endswith(('base_values', '_last_value')) else None
        check_list(value, entry, length)
        for number, part in enumerate(value):
            if like:
                _check_like(part, like[min(number, len(like) - 1)], f'{entry}[{number}]')


def _check_progress(state: Mapping, entry: str, meta: Mapping) -> None:
    """A scheduler is where the run is."""
    key = 'epoch' if state['by_epoch'] else 'iter'
    begin, end = state['begin'], state['end']
    expected = dict(
        _global_step=meta[key], last_step=max(0, min(meta[key], end - 1) - begin + 1) - 1
    )
    for name, step in expected.items():
        if type(state[name]) is not int or state[name] != step:
            raise SchemaError(
                f'{entry}.{name}',
                f'is {state[name]}, expected {step} for begin={begin}, end={end} and '
                f'meta.{key}={meta[key]}',
            )


class _Values:
    """An optimizer for a trial: hyper-parameters without parameters."""

    def __init__(self, groups: Sequence[Mapping]) -> None:
        self.param_groups = [{k: v for k, v in group.items() if k != 'params'} for group in groups]
        self.defaults = self.param_groups[0]


def _try_step(
    state: Mapping, scheduler: _ParamScheduler, groups: Sequence[Mapping], entry: str
) -> None:
    """The next step of a scheduler gives finite values."""
    trial = copy.copy(scheduler)
    trial.__dict__.update(state)
    trial.optimizer = values = _Values(groups)
    trial._global_step = max(trial._global_step, 1)  # the first one wants a real optimizer
    try:
        trial.step()
    except Exception as error:  # e.g. a division by a length of 0
        raise SchemaError(entry, f'cannot be continued: {error!r}') from None
    for group in values.param_groups:
        check_number(group[trial.param_name], f'the next {trial.param_name} of {entry}')


def _check_last_values(
    states: Sequence[Mapping], groups: Sequence[Mapping], entry: str, name: str
) -> None:
    """The optimizer has the values that one of its schedulers set last."""
    states = [state for state in states if state['param_name'] == name]
    for number, group in enumerate(groups):
        lasts = {float(state['_last_value'][number]) for state in states}
        bases = {float(state['base_values'][number]) for state in states}
        for key, known in ((name, lasts), (f'initial_{name}', bases)):
            one = key == name or len(known) == 1
            if key in group and not (one and float(group[key]) in known):
                raise SchemaError(
                    f'optimizer.param_groups[{number}].{key}',
                    f'is {group[key]:g}, in {entry} {" and ".join(map(str, sorted(known)))}',
                )
