"""Check optimizers and schedulers of a training checkpoint against those of the run.

The functions raise :class:`.schema.SchemaError` for what cannot be continued. They return what is
legal and differs from the config: the run continues with the values of the checkpoint.
"""

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from torch import Tensor

from .schema import (
    LARGEST,
    SchemaError,
    check_keys,
    check_list,
    check_mapping,
    check_number,
    check_tensor,
    check_whole,
    needed,
    require,
)

# Hyper-parameters with a range; other numbers must be finite.
_RANGES = {
    'lr': (0, LARGEST),
    'initial_lr': (0, LARGEST),
    'weight_decay': (0, LARGEST),
    'eps': (0, LARGEST),
    'momentum': (0, 1),
    'initial_momentum': (0, 1),
    'alpha': (0, 1),
    'betas': (0, 1),
}
_ANY = (-LARGEST, LARGEST)
# Of torch's optimizers: how the step is computed. Other versions of torch have more or fewer.
_SWITCHES = {
    'foreach', 'fused', 'capturable', 'differentiable', 'maximize', 'decoupled_weight_decay',
}  # fmt: skip
_NOT_NEGATIVE = ('exp_avg_sq', 'max_exp_avg_sq', 'square_avg', 'sum')
_PROGRESS = ('last_step', '_global_step', '_last_value', 'verbose')
_NEW_RUN = 'start a new run from its weights with --cfg-options load_from=FILE (without --resume)'


def check_optimizer(
    checkpoint: Mapping, wrapper: OptimWrapper | OptimWrapperDict, iterations: int
) -> list[str]:
    """Check ``optimizer``.

    Args:
        checkpoint: from the loader; unchanged.
        wrapper: of the run, with its schedulers built.
        iterations: ``meta.iter``.

    Returns:
        What differs from the config.

    Raises:
        SchemaError: the state is missing, malformed, not finite or another optimizer's.
    """
    state = check_mapping(needed(checkpoint, 'optimizer'), 'optimizer')
    if not isinstance(wrapper, OptimWrapperDict):
        return _check_one(state, wrapper, 'optimizer', iterations)
    check_keys(state, dict(wrapper.items()), 'optimizer')
    differences = []
    for name, part in wrapper.items():
        differences += _check_one(state[name], part, f'optimizer.{name}', iterations)
    return differences


def _check_one(state: Any, wrapper: OptimWrapper, entry: str, iterations: int) -> list[str]:
    check_mapping(state, entry)
    fresh = wrapper.state_dict()
    if 'base_param_settings' in fresh:
        check_mapping(state.get('base_param_settings'), f'{entry}.base_param_settings')
    groups = check_list(state.get('param_groups'), f'{entry}.param_groups')
    if len(groups) != len(fresh['param_groups']):
        raise SchemaError(
            f'{entry}.param_groups',
            f'has {len(groups)} groups, the optimizer of this run {len(fresh["param_groups"])}',
            f'Use the paramwise_cfg of the checkpoint, or {_NEW_RUN}',
        )
    differences = []
    for number, (group, ours) in enumerate(zip(groups, fresh['param_groups'], strict=True)):
        name = f'{entry}.param_groups[{number}]'
        differences += _check_group(group, ours, name, type(wrapper.optimizer).__name__)
        if list(check_list(group['params'], f'{name}.params')) != ours['params']:
            raise SchemaError(f'{name}.params', 'are not those of the optimizer of this run')
    if 'base_param_settings' in fresh:
        ours, base = fresh['base_param_settings'], f'{entry}.base_param_settings'
        _check_group(state['base_param_settings'], ours, base, type(wrapper.optimizer).__name__)
        check_tensor(state['base_param_settings']['params'], f'{base}.params', ours['params'], 'it')
    _check_moments(state.get('state'), groups, wrapper, f'{entry}.state', iterations)
    differences += _check_loss_scaler(state, fresh, entry)
    return differences


def _check_group(group: Any, ours: Mapping, entry: str, optimizer: str) -> list[str]:
    """Hyper-parameters of a group; returns those that differ from the config's."""
    check_mapping(group, entry)
    lacking = ours.keys() - group.keys() - _SWITCHES
    scheduled = {key for key in group if key.startswith('initial_')}
    others = group.keys() - ours.keys() - _SWITCHES - scheduled
    if lacking or others:
        names = ', '.join(sorted(lacking | others)[:3])
        raise SchemaError(
            entry,
            f'is not a group of {optimizer}, the optimizer of this run, which differs in {names}',
            f'Use the optimizer of the checkpoint, or {_NEW_RUN}',
        )
    differences = []
    for key, value in group.items():
        if key == 'params':
            continue
        like = ours.get(key, ours.get(key.removeprefix('initial_')))
        _check_setting(value, like, f'{entry}.{key}', _RANGES.get(key, _ANY))
        if f'initial_{key}' in group or key in _SWITCHES or f'initial_{key}' in ours:
            continue  # changed by a scheduler
        if (tuple(value) if isinstance(like, tuple) else value) != like:
            differences.append(f'{entry}.{key}: {like} in the config, {value} in the checkpoint')
    return differences


def _check_setting(value: Any, like: Any, entry: str, limits: tuple[float, float]) -> None:
    if isinstance(like, bool) or like is None or isinstance(like, str):
        # None leaves the choice to torch, which may have stored one.
        kinds = (bool, type(None)) if like is None else (type(like),)
        require(isinstance(value, kinds), entry, value, f'a value like {like}')
    elif isinstance(like, list | tuple):
        check_list(value, entry, len(like))
        for number, (part, ours) in enumerate(zip(value, like, strict=True)):
            _check_setting(part, ours, f'{entry}[{number}]', limits)
    elif isinstance(like, Tensor):
        check_tensor(value, entry, like.to('meta'), 'the config')
        check_number(value.item(), entry, *limits)
    elif isinstance(like, int | float):
        check_number(value, entry, *limits)


def _check_moments(
    state: Any, groups: Sequence[Mapping], wrapper: OptimWrapper, entry: str, iterations: int
) -> None:
    """State of each parameter: that which the optimizer makes in a step."""
    require(isinstance(state, Mapping), entry, state, 'a dict')
    numbered = {}
    for group, ours in zip(groups, wrapper.optimizer.param_groups, strict=True):
        for number, parameter in zip(group['params'], ours['params'], strict=True):
            numbered[number] = parameter, group
    for number in state:
        require(type(number) is int and number in numbered, f'a key of {entry}', number, 'a number '
                'of a parameter')  # fmt: skip
    templates: dict[tuple, Mapping | None] = {}
    for number, (parameter, group) in numbered.items():
        if number not in state:
            continue
        kind = id(group), parameter.dim(), parameter.dtype
        if kind not in templates:
            templates[kind] = _state_after_step(wrapper, group, parameter)
        _check_moment(state[number], templates[kind], parameter, f'{entry}[{number}]', iterations)
    updates = iterations // wrapper._accumulative_counts
    if updates and not state and numbered:
        parameter, group = next(iter(numbered.values()))
        if _state_after_step(wrapper, group, parameter):
            raise SchemaError(entry, f'is empty after {iterations} iterations')


def _state_after_step(
    wrapper: OptimWrapper, group: Mapping, parameter: Tensor
) -> Mapping[str, Any] | None:
    """The state that a step of this optimizer leaves for a small parameter; None if unknown."""
    shape = tuple(range(2, 2 + parameter.dim()))
    small = torch.nn.Parameter(torch.zeros(shape, dtype=parameter.dtype))
    small.grad = torch.zeros_like(small)
    kind = type(wrapper.optimizer)
    known = inspect.signature(kind.__init__).parameters.keys() - {'params', 'fused', 'capturable'}
    try:
        optimizer = kind([small], **{k: v for k, v in group.items() if k in known})
        optimizer.step()
        return _filled(optimizer.state.get(small, {}))
    except Exception:  # an optimizer with other arguments, or whose step needs a closure
        return None


def _filled(state: Mapping) -> dict:
    """Without entries that are None, which some versions of torch leave out."""
    return {key: value for key, value in state.items() if value is not None}


def _check_moment(
    state: Any, template: Mapping | None, parameter: Tensor, entry: str, iterations: int
) -> None:
    check_mapping(state, entry)
    if template is not None:
        check_keys(_filled(state), template, entry)
    for key, value in state.items():
        name = f'{entry}.{key}'
        if key == 'step':  # a number by older versions of torch
            number = value
            if isinstance(value, Tensor):
                ours = (template or {}).get(key)
                like = ours if isinstance(ours, Tensor) else torch.tensor(0.0)
                check_tensor(value, name, like.to('meta'), 'the optimizer')
                number = value.item()
            check_number(number, name, 0, iterations)
        elif template is None:
            if isinstance(value, Tensor):
                check_tensor(value, name, value.to('meta'), 'it')
        elif value is not None and isinstance(template[key], Tensor):
            is_moment = template[key].shape == tuple(range(2, 2 + parameter.dim()))
            shape = parameter.shape if is_moment else template[key].shape
            like = torch.empty(shape, dtype=template[key].dtype, device='meta')
            check_tensor(value, name, like, 'the parameter' if is_moment else 'the optimizer')
        elif value is not None:
            _check_setting(value, template[key], name, _ANY)
        if key in _NOT_NEGATIVE and isinstance(value, Tensor) and bool((value < 0).any()):
            raise SchemaError(name, 'has negative values')


def _check_loss_scaler(state: Mapping, fresh: Mapping, entry: str) -> list[str]:
    ours = fresh.get('loss_scaler')
    if 'loss_scaler' not in state or ours is None:
        if ('loss_scaler' in state) == (ours is not None):
            return []
        said = 'without, with', 'with, without'
        here, there = said[ours is not None].split(', ')
        return [f'mixed precision (--amp): {here} it now, {there} it in the checkpoint']
    scaler = check_mapping(state['loss_scaler'], f'{entry}.loss_scaler')
    check_keys(scaler, ours, f'{entry}.loss_scaler')
    for key, value in scaler.items():
        name = f'{entry}.loss_scaler.{key}'
        if isinstance(ours[key], int) and not isinstance(ours[key], bool):
            check_whole(value, name)
        else:
            check_number(value, name, 1e-30)
    return []


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
        f'Use the param_scheduler of the checkpoint, or {_NEW_RUN}',
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
            f'Use the param_scheduler of the checkpoint, or {_NEW_RUN}',
        )
    for key, value in state.items():
        _check_like(value, ours[key], f'{entry}.{key}')
    for key in ('param_name', 'by_epoch'):
        if state[key] != ours[key]:
            raise SchemaError(
                f'{entry}.{key}',
                f'is {state[key]}, in the config {ours[key]}',
                f'Use the param_scheduler of the checkpoint, or {_NEW_RUN}',
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
