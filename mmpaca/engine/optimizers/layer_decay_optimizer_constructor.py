"""Lower learning rates for lower layers."""

from collections.abc import Callable

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from torch import nn

from mmpaca.registry import OPTIM_WRAPPER_CONSTRUCTORS

KEY = 'layer_decay_rate'


@ROOT_CONSTRUCTORS.register_module()
@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Layer-wise learning-rate decay for the backbone of a detector or classifier.

    A parameter of layer k of n learns at ``lr * layer_decay_rate ** (n - 1 - k)``; neck and heads
    are layer n - 1. The layers are those of the backbone's ``get_layer_depth(name, prefix)``,
    which PaCaViT has, as have the transformers of mmpretrain. All options of mmengine's default
    constructor hold besides: ``norm_decay_mult``, ``custom_keys`` and so on, whose learning rates
    are decayed, too.

    Args:
        optim_wrapper_cfg: with an ``optimizer`` that has ``lr``.
        paramwise_cfg: with ``layer_decay_rate``, more than 0 and at most 1.

    Raises:
        ValueError: the rate or ``lr`` is missing or wrong; when called, modules share parameters
            and ``bypass_duplicate`` is not set.
        TypeError: when called, with a model whose backbone does not know its layers.

    Example:
        >>> optim_wrapper = dict(
        ...     constructor='LayerDecayOptimWrapperConstructor',
        ...     optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        ...     paramwise_cfg=dict(layer_decay_rate=0.8, norm_decay_mult=0.0),
        ... )
    """

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        rate = self.paramwise_cfg.get(KEY)
        if not isinstance(rate, int | float) or not 0 < rate <= 1:
            raise ValueError(
                f'{KEY}={rate!r} must be a number > 0 and <= 1: set it in optim_wrapper by '
                f'paramwise_cfg=dict({KEY}=0.8)'
            )
        if self.base_lr is None:
            raise ValueError(f'{KEY} needs a learning rate: set optim_wrapper.optimizer.lr')

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: object
    ) -> None:
        """Add mmengine's groups of a module; of the whole model, decayed, one per kind."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:  # called from the line above, for a part of the model
            return
        depth_of = _layers_of(module)
        names = {parameter: name for name, parameter in module.named_parameters()}
        for group in params:
            (parameter,) = group['params']
            layer, num_layers = depth_of(names[parameter])
            scale = self.paramwise_cfg[KEY] ** (num_layers - 1 - layer)
            group.update(lr=group.get('lr', self.base_lr) * scale, lr_scale=scale)
        params[:] = _merged(params)
        rates = [group['lr'] for group in params]
        print_log(
            f'{KEY}={self.paramwise_cfg[KEY]}: learning rates from {min(rates):.3g} to '
            f'{max(rates):.3g} in {len(params)} groups',
            'current',
        )


def _layers_of(model: nn.Module) -> Callable[[str], tuple[int, int]]:
    """The function from a parameter's name to its layer and the number of layers."""
    backbone, prefix = getattr(model, 'backbone', None), 'backbone.'
    if backbone is None:
        backbone, prefix = model, ''
    layer_depth = getattr(backbone, 'get_layer_depth', None)
    if layer_depth is None:
        raise TypeError(
            f'{KEY} needs a backbone with get_layer_depth, which {type(backbone).__name__} has '
            'not: use PaCaViT, or another optim_wrapper.constructor'
        )
    return lambda name: layer_depth(name, prefix)


def _merged(groups: list[dict]) -> list[dict]:
    """One group for all parameters with the same options: optimizers are slow with many."""
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
