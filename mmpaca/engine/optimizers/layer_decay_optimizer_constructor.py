"""Layer-wise learning rate decay."""

from collections.abc import Callable

from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as ROOT_CONSTRUCTORS
from torch import nn

from mmpaca.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .merged_optimizer_constructor import MergedOptimWrapperConstructor, merge_groups

KEY = 'layer_decay_rate'


@ROOT_CONSTRUCTORS.register_module()
@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(MergedOptimWrapperConstructor):
    """Layer-wise learning rate decay for the backbone of a detector or classifier.

    The learning rate of layer k of n is ``lr * layer_decay_rate ** (n - 1 - k)``; neck and heads
    are layer n - 1. Layers are numbered by the backbone's ``get_layer_depth(name, prefix)``, which
    PaCaViT and mmpretrain's transformers have. All options of mmengine's default constructor
    (``norm_decay_mult``, ``custom_keys``, ...) keep their meaning, and their learning rates are
    decayed as well.

    Args:
        optim_wrapper_cfg: Optimizer wrapper config whose ``optimizer`` has ``lr``.
        paramwise_cfg: Parameter-wise options with ``layer_decay_rate`` in (0, 1].

    Raises:
        ValueError: The rate or ``lr`` is missing or invalid, or modules share parameters and
            ``bypass_duplicate`` is not set.
        TypeError: The model's backbone has no ``get_layer_depth``.

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
        """Add mmengine's groups of a module; for the entire model, decay and merge them."""
        # Not the parent's, which would merge groups before their rates are known.
        DefaultOptimWrapperConstructor.add_params(self, params, module, prefix=prefix, **kwargs)
        if prefix:  # recursive call for a submodule
            return
        depth_of = _layers_of(module)
        names = {parameter: name for name, parameter in module.named_parameters()}
        for group in params:
            (parameter,) = group['params']
            layer, num_layers = depth_of(names[parameter])
            scale = self.paramwise_cfg[KEY] ** (num_layers - 1 - layer)
            group.update(lr=group.get('lr', self.base_lr) * scale, lr_scale=scale)
        params[:] = merge_groups(params)
        rates = [group['lr'] for group in params]
        print_log(
            f'{KEY}={self.paramwise_cfg[KEY]}: learning rates from {min(rates):.3g} to '
            f'{max(rates):.3g} in {len(params)} groups',
            'current',
        )


def _layers_of(model: nn.Module) -> Callable[[str], tuple[int, int]]:
    """Return a function: parameter name -> (layer, number of layers)."""
    backbone, prefix = getattr(model, 'backbone', None), 'backbone.'
    if backbone is None:
        backbone, prefix = model, ''
    layer_depth = getattr(backbone, 'get_layer_depth', None)
    if layer_depth is None:
        raise TypeError(
            f'{KEY} needs a backbone with get_layer_depth, and {type(backbone).__name__} has none: '
            'use PaCaViT, or another optim_wrapper.constructor'
        )
    return lambda name: layer_depth(name, prefix)
