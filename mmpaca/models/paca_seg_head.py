"""PaCa segmentation head: patch-to-cluster attention whose clusters are the classes.

Follows the authors' release (github.com/iVMCL/PaCaViT); its parameter names are kept, so that the
released segmentors load without conversion of the head. The interface is that of mmsegmentation's
decode heads, which is not imported here.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule, build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from torch import Tensor, nn

from mmpaca.registry import MODELS

_CLASSIFIER_INIT = dict(type='Normal', std=0.01, override=dict(name='conv_seg'))


class ClusterLinear(nn.Sequential):
    """Linear layer, norm and ReLU on clusters; the statistics are over all clusters of the batch.

    Args:
        in_channels: input channels C.
        out_channels: output channels D.
        norm_cfg: config of a norm for 2D feature maps.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict) -> None:
        super().__init__(
            nn.Linear(in_channels, out_channels),
            nn.Identity(),  # the authors reshape here: the norm is number 2
            build_norm_layer(norm_cfg, out_channels)[1],
        )

    def forward(self, clusters: Tensor) -> Tensor:
        """Map clusters (B, K, C) to (B, K, D)."""
        linear, _, norm = self
        x = linear(clusters).transpose(1, 2).unsqueeze(-1)  # (B, K, D) -> (B, D, K, 1)
        return F.relu(norm(x)).squeeze(-1).transpose(1, 2)  # (B, D, K, 1) -> (B, K, D)


@ROOT_MODELS.register_module()
@MODELS.register_module()
class PaCaSegHead(BaseModule):
    """Decode head whose clusters are the classes, with a supervised assignment.

    All losses come in one dict, as mmseg's stock ``EncoderDecoder`` expects.

    Args:
        in_channels: channels C_i of the feature maps of the backbone, finest first.
        num_classes: number of classes K.
        channels: channels D of the head.
        dropout_ratio: channel dropout rate before the classifier.
        norm_cfg: norm of all layers, also of keys and values.
        align_corners: passed to the interpolation of logits.
        ignore_index: label of pixels without a loss.
        loss_decode: loss of the logits; None is cross-entropy averaged over the labelled pixels.
        loss_cluster: loss of the cluster logits, None as for ``loss_decode``.
        cluster_loss_weight: weight of the loss of the cluster logits.
        init_cfg: initialisation config of mmengine.

    Example:
        >>> import torch
        >>> from mmpaca.models import PaCaSegHead
        >>> head = PaCaSegHead([8, 16], num_classes=5, channels=4).eval()
        >>> tuple(head([torch.rand(1, 8, 8, 12), torch.rand(1, 16, 4, 6)]).shape)
        (1, 5, 8, 12)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_classes: int,
        channels: int = 256,
        dropout_ratio: float = 0.1,
        norm_cfg: dict | None = None,
        align_corners: bool = False,
        ignore_index: int = 255,
        loss_decode: dict | None = None,
        loss_cluster: dict | None = None,
        cluster_loss_weight: float = 0.4,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg or _CLASSIFIER_INIT)
        norm_cfg = norm_cfg or dict(type='BN')
        self.in_channels = list(in_channels)
        self.num_classes = self.out_channels = num_classes
        self.align_corners = align_corners
        self.ignore_index = ignore_index
        self.cluster_loss_weight = cluster_loss_weight
        self.loss_decode = self._build_loss(loss_decode)
        self.loss_cluster = self._build_loss(loss_cluster)
        fused = channels * len(self.in_channels)

        def conv(inputs: int) -> ConvModule:
            return ConvModule(inputs, channels, 1, norm_cfg=norm_cfg)

        self.convs = nn.ModuleList(conv(c) for c in self.in_channels)
        self.clustering = nn.Sequential(conv(fused), nn.Conv2d(channels, num_classes, 1))
        self.q = nn.Sequential(conv(fused))
        self.k = ClusterLinear(fused, channels, norm_cfg)
        self.v = ClusterLinear(fused, channels, norm_cfg)
        self.proj = conv(channels)
        self.dropout = nn.Dropout2d(dropout_ratio)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Compute the logits.

        Args:
            inputs: feature maps of the backbone, (B, C_i, H_i, W_i), finest first.

        Returns:
            Logits, (B, K, H_0, W_0).
        """
        return self.logits_and_clusters(inputs)[0]

    def logits_and_clusters(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the logits and the cluster logits, both (B, K, H_0, W_0)."""
        x = self._fuse(inputs)  # (B, 4D, H, W)
        cluster_logits = self.clustering(x)  # (B, K, H, W)
        clusters = pool_clusters(x, cluster_logits)  # (B, K, 4D)
        queries = self.q(x).flatten(2).transpose(1, 2)  # (B, D, H, W) -> (B, N, D)
        out = attend(queries, self.k(clusters), self.v(clusters))  # (B, N, D)
        # (B, N, D) -> (B, D, H, W)
        out = self.proj(out.transpose(1, 2).unflatten(2, x.shape[2:]))
        return self.conv_seg(self.dropout(out)), cluster_logits

    def assignment_and_attention(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Compute what the head does with its clusters.

        Args:
            inputs: feature maps of the backbone, (B, C_i, H_i, W_i), finest first.

        Returns:
            Assignment Z, (B, K, H_0, W_0), whose maps sum to one, and attention A of each patch to
            the clusters, (B, H_0, W_0, K), whose rows do; both in float32 at least.
        """
        with _without_autocast(inputs[0]):
            dtype = self.conv_seg.weight.dtype
            x = self._fuse([features.to(dtype) for features in inputs])
            cluster_logits = self.clustering(x)
            keys = self.k(pool_clusters(x, cluster_logits).to(dtype))  # (B, K, D)
            queries = self.q(x).flatten(2).transpose(1, 2)  # (B, D, H, W) -> (B, N, D)
            attention = attention_weights(queries, keys).unflatten(1, x.shape[2:])
            return assign(cluster_logits).unflatten(2, x.shape[2:]), attention

    def loss(self, inputs: Sequence[Tensor], batch_data_samples: list, train_cfg: dict) -> dict:
        """Compute both losses and accuracies; called by mmseg's segmentors.

        Args:
            inputs: feature maps of the backbone, (B, C_i, H_i, W_i), finest first.
            batch_data_samples: B samples with the labels ``gt_sem_seg.data``, (1, H, W).
            train_cfg: ignored.

        Returns:
            Weighted losses ``loss_ce`` and ``paca.loss_ce``, accuracies in percent ``acc_seg``
            and ``paca.acc_seg``.
        """
        label = torch.cat([sample.gt_sem_seg.data for sample in batch_data_samples])  # (B, H, W)
        logits, cluster_logits = (
            self._resize(out, label.shape[1:]) for out in self.logits_and_clusters(inputs)
        )
        cluster_loss = self.loss_cluster(cluster_logits, label, ignore_index=self.ignore_index)
        return {
            'loss_ce': self.loss_decode(logits, label, ignore_index=self.ignore_index),
            'acc_seg': self._accuracy(logits, label),
            'paca.loss_ce': self.cluster_loss_weight * cluster_loss,
            'paca.acc_seg': self._accuracy(cluster_logits, label),
        }

    def predict(
        self, inputs: Sequence[Tensor], batch_img_metas: list[dict], test_cfg: dict
    ) -> Tensor:
        """Compute logits of the size of the network's input; called by mmseg's segmentors.

        Args:
            inputs: feature maps of the backbone, (B, C_i, H_i, W_i), finest first.
            batch_img_metas: meta information, of which ``img_shape`` and ``pad_shape`` are read.
            test_cfg: ignored.

        Returns:
            (B, K, H, W).
        """
        meta = batch_img_metas[0]
        # In slide inference img_shape is the size of the window, a torch.Size.
        is_window = isinstance(meta['img_shape'], torch.Size)
        size = meta['img_shape'] if is_window else meta.get('pad_shape', meta['img_shape'])
        return self._resize(self(inputs), size[:2])

    def _fuse(self, inputs: Sequence[Tensor]) -> Tensor:
        """Project all feature maps, resize them to the finest and concatenate: (B, 4D, H, W)."""
        maps = [conv(x) for conv, x in zip(self.convs, inputs, strict=True)]
        size = maps[0].shape[2:]
        # Not align_corners: the authors resize feature maps like this in any case.
        maps = [
            x if x.shape[2:] == size else F.interpolate(x, size=size, mode='bilinear') for x in maps
        ]
        return torch.cat(maps, dim=1)

    def _resize(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=self.align_corners)

    def _accuracy(self, logits: Tensor, label: Tensor) -> Tensor:
        valid = label != self.ignore_index
        return 100 * ((logits.argmax(1) == label) & valid).sum() / valid.sum().clamp(min=1)

    @staticmethod
    def _build_loss(config: dict | None) -> Any:
        return cross_entropy if config is None else MODELS.build(config)


def pool_clusters(x: Tensor, cluster_logits: Tensor) -> Tensor:
    """Average patches by the softmax of the cluster logits over the patches, in float32 at least.

    Args:
        x: feature map, (B, C, H, W).
        cluster_logits: (B, K, H, W).

    Returns:
        Clusters, (B, K, C).
    """
    with _without_autocast(x):
        assignment = assign(cluster_logits)
        return assignment @ x.flatten(2).to(assignment).transpose(1, 2)


def _without_autocast(x: Tensor) -> AbstractContextManager:
    if not torch.amp.is_autocast_available(x.device.type):  # meta, which counts operations
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Single-head attention without scaling, in float32 at least.

    The logits are sums over D non-negative products: in bfloat16 neighbouring numbers of their
    size are 1/8 apart and more, which changes 4 % of the predicted classes.

    Args:
        queries: (B, N, D).
        keys: (B, K, D).
        values: (B, K, D).

    Returns:
        (B, N, D), in the dtype of ``queries``.
    """
    with _without_autocast(queries):
        attention = attention_weights(queries, keys)
        return (attention @ values.to(attention)).to(queries.dtype)


def assign(cluster_logits: Tensor) -> Tensor:
    """Softmax over the patches: (B, K, H, W) -> (B, K, N), in float32 at least."""
    return _raise_precision(cluster_logits.flatten(2)).softmax(-1)


def attention_weights(queries: Tensor, keys: Tensor) -> Tensor:
    """Softmax over the clusters: (B, N, D), (B, K, D) -> (B, N, K), in float32 at least."""
    return (_raise_precision(queries) @ _raise_precision(keys).transpose(1, 2)).softmax(-1)


def _raise_precision(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def cross_entropy(logits: Tensor, label: Tensor, ignore_index: int) -> Tensor:
    """Cross-entropy averaged over the labelled pixels; 0 if there are none.

    Args:
        logits: (B, K, H, W).
        label: class indices, (B, H, W).
        ignore_index: label of pixels without a loss.
    """
    total = F.cross_entropy(logits, label, ignore_index=ignore_index, reduction='sum')
    return total / (label != ignore_index).sum().clamp(min=1)
