"""A neck that does not fit its backbone is an error before training, with the right numbers."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmpaca.models import PaCaViT
from mmpaca.registry import HOOKS

from .wrappers import unwrapped


@HOOKS.register_module()
class NeckHook(Hook):
    """Compare ``neck.in_channels`` with what the PaCaViT backbone returns."""

    def before_run(self, runner: Runner) -> None:
        """Runs before training, validation and testing.

        Raises:
            ValueError: says the channels that are right.
        """
        model = unwrapped(runner.model)
        backbone = getattr(model, 'backbone', None)
        given = getattr(getattr(model, 'neck', None), 'in_channels', None)
        if not isinstance(backbone, PaCaViT) or not isinstance(given, list | tuple):
            return
        right = [backbone.embed_dims[i] for i in backbone.out_indices]
        if list(given) != right:
            raise ValueError(
                f'model.neck.in_channels={list(given)} does not fit the backbone, whose '
                f'out_indices={backbone.out_indices} have {right} channels: set '
                f'neck=dict(in_channels={right})'
            )
