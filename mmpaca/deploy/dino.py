"""DINO: deformable transformer with queries from the encoder; no NMS.

Source: ``mmdet/models/detectors/dino.py`` and ``deformable_detr.py``, ``layers/transformer/``,
``dense_heads/detr_head.py``. All images of a batch fill it, so nothing is masked.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .boxes import image_limit, numbers, take
from .images import Normalise

Sizes = Sequence[Sequence[int]]  # height and width of each level


def grid_points(height: int, width: int, like: Tensor) -> Tensor:
    """Centres of the cells of a map, (height * width, 2), x and y in 0 to 1."""
    x = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) / width
    y = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) / height
    x, y = x.expand(height, -1), y[:, None].expand(-1, width)
    return torch.stack((x, y), -1).flatten(0, 1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Logits of probabilities, finite for 0 and 1."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def deformable_attention(
    attn: Any, query: Tensor, query_pos: Tensor, value: Tensor, points: Tensor, sizes: Sizes
) -> Tensor:
    """Run the layers of mmcv's MultiScaleDeformableAttention.

    Args:
        attn: the module.
        query: (B, Q, C).
        query_pos: (B, Q, C).
        value: (B, N, C), all levels one after the other.
        points: (B or 1, Q, 2 or 4), centres, or boxes with their sizes, in 0 to 1.
        sizes: height and width of each level.

    Returns:
        (B, Q, C), with the query added.
    """
    identity, query = query, query + query_pos
    heads, levels, samples = attn.num_heads, attn.num_levels, attn.num_points
    value = attn.value_proj(value).unflatten(2, (heads, -1))  # (B, N, heads, d)
    offsets = attn.sampling_offsets(query).unflatten(2, (heads, levels, samples, 2))
    weights = attn.attention_weights(query).unflatten(2, (heads, -1)).softmax(-1)
    points = points[:, :, None, None, None]
    if points.shape[-1] == 2:
        width_height = torch.stack([numbers((w, h), offsets) for h, w in sizes])
        where = points + offsets / width_height[:, None]
    else:
        where = points[..., :2] + offsets / samples * points[..., 2:] * 0.5
    where = (2 * where - 1).transpose(1, 2).flatten(0, 1)  # (B * heads, Q, levels, samples, 2)
    sampled = []
    for level, (part, size) in enumerate(
        zip(value.split([h * w for h, w in sizes], 1), sizes, strict=True)
    ):
        # (B, h * w, heads, d) -> (B * heads, d, h, w)
        maps = part.permute(0, 2, 3, 1).flatten(0, 1).unflatten(2, tuple(size))
        sampled.append(F.grid_sample(maps, where[:, :, level], align_corners=False))
    features = torch.cat(sampled, -1)  # (B * heads, d, Q, levels * samples)
    weights = weights.transpose(1, 2).flatten(0, 1)[:, None]
    out = (features * weights).sum(-1).unflatten(0, (-1, heads))  # (B, heads, d, Q)
    return attn.output_proj(out.flatten(1, 2).transpose(1, 2)) + identity


def self_attention(attn: Any, query: Tensor, query_pos: Tensor) -> Tensor:
    """Run the layers of mmcv's MultiheadAttention on (B, Q, C), with the query added."""
    layer = attn.attn
    weights = layer.in_proj_weight.chunk(3)
    biases = layer.in_proj_bias.chunk(3)
    inputs = (query + query_pos, query + query_pos, query)
    q, k, v = (
        # (B, Q, C) -> (B, heads, Q, d)
        F.linear(x, weight, bias).unflatten(2, (layer.num_heads, -1)).transpose(1, 2)
        for x, weight, bias in zip(inputs, weights, biases, strict=True)
    )
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return layer.out_proj(out) + query


class DINODetector(nn.Module):
    """Backbone, neck, transformer and DINOHead.

    Args:
        model: DINO of mmdet.
    """

    outputs = ('boxes', 'scores', 'labels')

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(model.data_preprocessor)

    def forward(self, image: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        """Detect; see :meth:`mmpaca.deploy.dense.DenseDetector.forward`."""
        feats = self.model.extract_feat(self.normalise(image))
        sizes = [feat.shape[2:] for feat in feats]
        memory = self.encode(feats, sizes)
        query, boxes = self.first_queries(memory, sizes)
        logits, boxes = self.decode(query, boxes, memory, sizes)
        classes = logits.shape[2]
        scores, pair = logits.sigmoid().flatten(1).topk(self.max_per_img)
        boxes = take(boxes, pair // classes)
        centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
        limit = image_limit(image)
        boxes = torch.cat((centre - half, centre + half), -1) * limit
        boxes = torch.minimum(boxes.clamp(min=0), limit) * scale
        return boxes, scores, pair % classes

    @property
    def max_per_img(self) -> int:
        """Number of detections."""
        head = self.model.bbox_head
        return head.test_cfg.get('max_per_img', self.model.num_queries)

    def encode(self, feats: Sequence[Tensor], sizes: Sizes) -> Tensor:
        """Run the encoder on feature maps: memory (B, N, C)."""
        positions = [
            self.model.positional_encoding(None, input=feat).flatten(2).transpose(1, 2) + embed
            for feat, embed in zip(feats, self.model.level_embed, strict=True)
        ]
        query_pos = torch.cat(positions, 1)
        memory = torch.cat([feat.flatten(2).transpose(1, 2) for feat in feats], 1)
        points = torch.cat([grid_points(h, w, memory) for h, w in sizes])[None]
        for layer in self.model.encoder.layers:
            memory = deformable_attention(layer.self_attn, memory, query_pos, memory, points, sizes)
            memory = layer.norms[1](layer.ffn(layer.norms[0](memory)))
        return memory

    def first_queries(self, memory: Tensor, sizes: Sizes) -> tuple[Tensor, Tensor]:
        """Queries (B, Q, C) and boxes (B, Q, 4) as logits: the best places of the encoder."""
        model, head = self.model, self.model.bbox_head
        proposals = []
        for level, (h, w) in enumerate(sizes):
            points = grid_points(h, w, memory)
            proposals.append(torch.cat((points, torch.full_like(points, 0.05 * 2.0**level)), -1))
        proposal = torch.cat(proposals)[None]  # (1, N, 4)
        valid = ((proposal > 0.01) & (proposal < 0.99)).all(-1, keepdim=True)
        proposal = torch.log(proposal / (1 - proposal)).masked_fill(~valid, float('inf'))
        memory = memory.masked_fill(~valid, 0.0)
        memory = model.memory_trans_norm(model.memory_trans_fc(memory))
        last = model.decoder.num_layers
        best = head.cls_branches[last](memory).amax(-1).topk(model.num_queries).indices
        boxes = head.reg_branches[last](memory) + proposal
        query = model.query_embedding.weight.expand(memory.shape[0], -1, -1)
        return query, take(boxes, best)

    def decode(
        self, query: Tensor, logits: Tensor, memory: Tensor, sizes: Sizes
    ) -> tuple[Tensor, Tensor]:
        """Run the decoder: class logits (B, Q, classes) and boxes (B, Q, 4), centre and size."""
        from mmdet.models.layers.transformer.utils import coordinate_to_encoding

        decoder, head = self.model.decoder, self.model.bbox_head
        boxes = logits.sigmoid()
        for i, layer in enumerate(decoder.layers):
            reference = boxes
            query_pos = decoder.ref_point_head(coordinate_to_encoding(reference))
            query = layer.norms[0](self_attention(layer.self_attn, query, query_pos))
            query = deformable_attention(
                layer.cross_attn, query, query_pos, memory, reference, sizes
            )
            query = layer.norms[2](layer.ffn(layer.norms[1](query)))
            boxes = head.reg_branches[i](query) + inverse_sigmoid(reference, eps=1e-3)
            boxes = boxes.sigmoid()
        hidden = decoder.norm(query)
        boxes = head.reg_branches[i](hidden) + inverse_sigmoid(reference)
        return head.cls_branches[i](hidden), boxes.sigmoid()
