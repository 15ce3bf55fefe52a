"""The authors' checkpoints without their files: names and shapes, and weights made from names."""

import functools
import gzip
import json
from pathlib import Path

import torch

from mmpaca.doctor.golden import official_tensor

DATA = Path(__file__).parent / 'data'
GOLDEN = json.loads((DATA / 'golden.json').read_text())
PARAMS = json.loads((DATA / 'params.json').read_text())
SHAPES = json.loads(gzip.decompress((DATA / 'official_keys.json.gz').read_bytes()))

# How each of the authors' variants is spelled as arguments of PaCaViT.
VARIANTS = dict(
    tiny_conv=dict(arch='tiny'),
    small_conv=dict(arch='small'),
    base_conv=dict(arch='base'),
    small_mlp=dict(arch='small', clustering='mlp'),
    tiny_linear=dict(arch='tiny', clustering='linear'),
    small_blockwise=dict(arch='small', num_clusters=(100,) * 4, cluster_interval=1),
    small_conv_2_0=dict(arch='small', num_clusters=(2, 2, 2, 0)),
    small_conv_49_0=dict(arch='small', num_clusters=(49, 49, 49, 0)),
    small_conv_49_100=dict(arch='small', num_clusters=(49, 64, 81, 100)),
    small_conv_100_49=dict(arch='small', num_clusters=(100, 81, 64, 49)),
    small_conv_100=dict(arch='small', num_clusters=(100,) * 4),
    tiny_every2=dict(arch='tiny', num_clusters=(100,) * 4, cluster_interval=2),
    tiny_teacher=dict(arch='tiny_teacher'),
    small_teacher=dict(arch='small_teacher'),
    base_teacher=dict(arch='base_teacher'),
)


def official_weights(variant: str) -> dict[str, torch.Tensor]:
    """State dict of a variant's classifier; the same numbers as behind ``golden.json``."""
    return official_tensors(SHAPES[variant])


def official_tensors(shapes: dict[str, list]) -> dict[str, torch.Tensor]:
    """Weights that follow from the authors' names, for ``{name: shape}``."""
    return {name: _tensor(name, tuple(shape)) for name, shape in shapes.items()}


@functools.cache  # shared: nobody writes into given weights
def _tensor(name: str, shape: tuple) -> torch.Tensor:
    return official_tensor(name, shape)
