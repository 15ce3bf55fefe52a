"""PaCa-ViT's modules with the memory layout that ONNX runtimes compute convolutions in.

PyTorch keeps feature maps channels-last, and convolutions read them without a copy. ONNX has
channels-first convolutions only: around each depthwise convolution a runtime would transpose maps of
4C channels. With linear layers as 1x1 convolutions only maps of C channels are transposed.
"""

import torch
from torch import Tensor, nn

from mmpaca.models.clustering import ConvClustering
from mmpaca.models.layers import ConvMLP


class ChannelsFirstMLP(nn.Module):
    """ConvMLP for inference, without its optional LayerNorm.

    Args:
        mlp: trained module.
    """

    def __init__(self, mlp: ConvMLP) -> None:
        super().__init__()
        depthwise = mlp.dwconv
        with torch.no_grad():
            depthwise.weight += mlp.identity  # the shortcut around the convolution
        self.layers = nn.Sequential(as_conv(mlp.fc1), depthwise, mlp.act, as_conv(mlp.fc2))

    def forward(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Map (B, H, W, C), normalised by ``norm`` first, to (B, H, W, C)."""
        x = x if norm is None else norm(x)
        return self.layers(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ChannelsFirstClustering(nn.Sequential):
    """ConvClustering; its last convolution is one in the graph, too."""

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (B, H, W, C) to logits (B, M, H, W)."""
        return super().forward(x.permute(0, 3, 1, 2))


def as_conv(linear: nn.Linear) -> nn.Conv2d:
    """Return the 1x1 convolution that equals a linear layer."""
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1)
    conv.load_state_dict({'weight': linear.weight[:, :, None, None], 'bias': linear.bias})
    return conv


def put_channels_first(model: nn.Module) -> nn.Module:
    """Replace the modules above in a model, in place."""
    for parent in [*model.modules()]:
        for name, module in parent.named_children():
            if isinstance(module, ConvMLP) and isinstance(module.norm, nn.Identity):
                setattr(parent, name, ChannelsFirstMLP(module))
            elif isinstance(module, ConvClustering):
                setattr(parent, name, ChannelsFirstClustering(*module))
    return model
