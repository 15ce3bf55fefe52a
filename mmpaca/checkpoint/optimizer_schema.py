"""Check the optimizer of a training checkpoint against that of the run.

The functions raise :class:`.schema.SchemaError` for what cannot be continued. They return what is
legal and differs from the config: the run continues with the values of the checkpoint.
:mod:`.scheduler_schema` does the same for schedulers.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor

from .schema import (
    LARGEST,
    NEW_RUN,
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
            f'Use the paramwise_cfg of the checkpoint, or {NEW_RUN}',
        )
    differences = []
    for number, (group, ours) in enumerate(zip(groups, fresh['param_groups'], strict=True)):
        name = f'{entry}.param_groups[{number}]'
        differences += _check_group(group, ours, name, type(wrapper.optimizer).__name__)
        numbers = check_list(group['params'], f'{name}.params')
        for one in numbers:
            check_whole(one, f'an element of {name}.params')
        if list(numbers) != ours['params']:
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
            f'Use the optimizer of the checkpoint, or {NEW_RUN}',
        )
    differences = []
    for key, value in group.items():
        if key == 'params':
            continue
        like = ours.get(key, ours.get(key.removeprefix('initial_')))
        _check_setting(value, like, f'{entry}.{key}', _RANGES.get(key, _ANY))
        if f'initial_{key}' in group or f'initial_{key}' in ours:
            continue  # changed by a scheduler
        if key in _SWITCHES and key not in ours:
            continue
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
