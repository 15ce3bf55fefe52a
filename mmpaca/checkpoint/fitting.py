"""Whether a checkpoint's weights are those of a model."""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from mmpaca.models import PaCaViT
from mmpaca.models.fitting import describe_misfit

from .loading import weights_of


def check_fit(model: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Refuse weights of which only a part, or nothing, fits beside the backbone.

    The backbone looks after itself: other cluster counts and the authors' names are fine there.

    Args:
        model: a detector or classifier with a PaCaViT, without wrappers.
        checkpoint: its weights, on their own or as training saves them.

    Raises:
        RuntimeError: lists what is missing, unexpected and wrong-shaped.
    """
    backbones = tuple(
        f'{name}.' if name else ''
        for name, module in model.named_modules()
        if isinstance(module, PaCaViT)
    )
    # As Runner.load_checkpoint does, without the prefix of DistributedDataParallel.
    given = {re.sub(r'^module\.', '', k): v for k, v in weights_of(checkpoint).items()}
    misfit = describe_misfit(
        *(
            {
                k: v
                for k, v in weights.items()
                if not k.startswith(backbones) and not k.endswith('num_batches_tracked')
            }
            for weights in (model.state_dict(), given)
        )
    )
    if misfit:
        raise RuntimeError(
            f'The checkpoint does not fit {type(model).__name__} (beside its backbone): '
            f'{misfit} For the weights of a backbone alone use model.backbone.init_cfg; to '
            'load what fits and leave the rest random, set strict=False of StrictLoadHook '
            'in custom_hooks.'
        )
