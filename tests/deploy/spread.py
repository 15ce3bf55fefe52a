"""Random weights that detect something: outputs of the last layers spread like a trained model's."""

import torch
from torch import nn

# Mean and standard deviation of the outputs: few of many candidates have high scores.
_LOGITS = dict(mean=-3.0, std=1.5)
_DELTAS = dict(mean=0.0, std=0.3)
LAYERS = {
    'rpn_cls': dict(mean=0.0, std=2.0),
    'rpn_reg': _DELTAS,
    'fc_cls': dict(mean=0.0, std=1.5),
    'fc_reg': dict(mean=0.0, std=0.5),
    'conv_logits': dict(mean=0.0, std=2.0),
    'retina_cls': _LOGITS,
    'retina_reg': _DELTAS,
    'atss_cls': _LOGITS,
    'atss_reg': _DELTAS,
    'atss_centerness': dict(mean=0.0, std=1.0),
    'conv_cls': _LOGITS,
    'conv_reg': dict(mean=1.5, std=0.7),
    'conv_centerness': dict(mean=0.0, std=1.0),
    'rtm_cls': _LOGITS,
    'rtm_reg': dict(mean=2.0, std=0.7),
    'rtm_kernel': dict(mean=0.0, std=0.5),
    'projection': dict(mean=0.0, std=1.0),
    'cls_branches': _LOGITS,
    'reg_branches.0.4': dict(mean=0.0, std=0.5),
    'fc': dict(mean=0.0, std=2.0),
}


@torch.no_grad()
def spread(model: nn.Module, run) -> nn.Module:
    """Rescale the weights of the layers above, while `run` calls the model."""

    def rescale(layer, inputs, output, mean, std):
        # Before the layer's second call it has the wanted spread; RoI heads see few RoIs.
        if output.numel() and layer not in done:
            factor = std / max(output.std().item(), 1e-6)
            layer.weight.mul_(factor)
            layer.bias.add_(mean - output.mean() * factor - layer.bias * (1 - factor))
            done.add(layer)
            return layer(*inputs)
        return None

    done: set[nn.Module] = set()
    handles = []
    for name, module in model.named_modules():
        for part, target in LAYERS.items():
            last = isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d)
            if last and f'.{name}.'.find(f'.{part}.') >= 0:
                hook = lambda m, i, o, target=target: rescale(m, i, o, **target)  # noqa: E731
                handles.append(module.register_forward_hook(hook))
    # BatchNorms with statistics of their own: a chain of random layers neither dies nor explodes.
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.5, 0.5)
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    run()
    for handle in handles:
        handle.remove()
    return model
