"""Few parameter groups: optimizers run their kernels once a group."""

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from torch import nn
from torch.optim import Optimizer

from mmpaca.registry import OPTIM_WRAPPER_CONSTRUCTORS


@ROOT_CONSTRUCTORS.register_module()
@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MergedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, with equal parameter groups merged.

    With ``norm_decay_mult`` or ``custom_keys`` mmengine builds a group for each parameter, and AdamW
    launches its kernels for each group. Merged, the weights after a step are the same.

    Args:
        optim_wrapper_cfg: optimizer wrapper config.
        paramwise_cfg: parameter-wise options of mmengine's constructor.

    Raises:
        ValueError: modules share parameters and ``bypass_duplicate`` is not set.

    Example:
        >>> optim_wrapper = dict(
        ...     constructor='MergedOptimWrapperConstructor',
        ...     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...     paramwise_cfg=dict(norm_decay_mult=0.0),
        ... )
    """

    def __call__(self, model: nn.Module) -> OptimWrapper | OptimWrapperDict:
        """Build the optimizer wrapper, whose optimizer refuses states of other groups."""
        wrapper = super().__call__(model)
        wrapper.optimizer.register_load_state_dict_pre_hook(check_groups)
        return wrapper

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any
    ) -> None:
        """Add mmengine's groups of a module; for the entire model, merge them."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if not prefix:  # not a recursive call for a submodule
            params[:] = merge_groups(params)


def merge_groups(groups: list[dict]) -> list[dict]:
    """Merge groups with the same options, in the order of their first parameters.

    Raises:
        ValueError: a parameter is in two groups.
    """
    merged: list[tuple[dict, list[nn.Parameter]]] = []
    seen: set[nn.Parameter] = set()
    for group in groups:
        options = {key: value for key, value in group.items() if key != 'params'}
        parameters = next((p for same, p in merged if same == options), None)
        if parameters is None:
            merged.append((options, parameters := []))
        if not seen.isdisjoint(group['params']):
            raise ValueError(
                'modules share a parameter: set bypass_duplicate=True in paramwise_cfg'
            )
        seen.update(group['params'])
        parameters += group['params']
    return [dict(options, params=parameters) for options, parameters in merged]


def check_groups(optimizer: Optimizer, state_dict: dict) -> None:
    """Refuse the state of an optimizer with other groups, as a hook of ``load_state_dict``.

    Raises:
        ValueError: the groups have other sizes; says how to resume.
    """
    saved, own = (
        [len(group['params']) for group in groups]
        for groups in (state_dict['param_groups'], optimizer.param_groups)
    )
    if saved == own:
        return
    if sum(saved) != sum(own):
        raise ValueError(
            f'the checkpoint has the optimizer state of {sum(saved)} parameters and this model has '
            f'{sum(own)} to train: resume with the config of the interrupted run'
        )
    remedy = 'resume with the config of the interrupted run'
    if len(saved) == sum(saved):
        remedy = (
            'its run did not merge equal groups, so resume with --cfg-options '
            'optim_wrapper.constructor=DefaultOptimWrapperConstructor'
        )
    raise ValueError(
        f'the checkpoint has {len(saved)} parameter groups and this optimizer {len(own)}: {remedy}'
    )
