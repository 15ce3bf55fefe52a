"""Adapt state dicts to a PaCaViT: names, prefixes and numbers of clusters."""

import copy
import re
import warnings
from collections.abc import Callable, Mapping

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .layers import init_module
from .official import backbone_weights


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message is one sentence that says why."""


def fit_state_dict(model: nn.Module, state_dict: dict[str, Tensor], prefix: str = '') -> None:
    """Rename and complete ``state_dict`` in place so that it matches ``model`` exactly.

    A stage may have another number of clusters than in ``state_dict``. Its layers that depend on
    this number are re-initialised with a fixed seed and named in a warning.

    Args:
        model: A PaCaViT.
        state_dict: Weights under any of the names that :func:`backbone_weights` accepts.
        prefix: Prefix of the model's keys in ``state_dict``.

    Raises:
        CheckpointError: Tensors are missing, unexpected or of the wrong shape or type.
    """
    given = {k: state_dict.pop(k) for k in list(state_dict) if k.startswith(prefix)}
    weights = backbone_weights({k[len(prefix) :]: v for k, v in given.items()})
    taken = {id(value) for value in weights.values()}
    rest = [name for name, value in given.items() if id(value) not in taken]
    if rest:
        names = ', '.join(rest[:8]) + (f' and {len(rest) - 8} more' if len(rest) > 8 else '')
        print_log(f'Ignored keys that are not backbone weights: {names}', logger='current')
    others = [name for name, value in weights.items() if not isinstance(value, Tensor)]
    if others:
        kind = type(weights[others[0]]).__name__
        raise CheckpointError(f'The weights have a {kind} for {others[0]}, expected a tensor')
    expected = model.state_dict()
    # As in torch and mmengine, BatchNorm's step counter may be missing.
    for name, value in expected.items():
        if name.endswith('num_batches_tracked'):
            weights.setdefault(name, value)

    ours, theirs = _cluster_counts(expected), _cluster_counts(weights)
    concerned = _depends_on_clusters(ours, theirs)
    misfit = describe_misfit(
        *({k: v for k, v in w.items() if not concerned(k)} for w in (expected, weights))
    )
    if misfit:
        where = f' under {prefix!r}' if prefix else ''
        misfit = describe_misfit(expected, weights)
        raise CheckpointError(f'The weights do not match {type(model).__name__}{where}: {misfit}')
    renewed = [
        name
        for name, value in expected.items()
        if concerned(name) and (name not in weights or weights[name].shape != value.shape)
    ]
    # Same values on all ranks and devices: weights are not broadcast after loading.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name in renewed:
            parent, _, local = name.rpartition('.')
            layer = copy.deepcopy(model.get_submodule(parent)).cpu()
            init_module(layer)
            weights[name] = layer.state_dict()[local]
    if renewed or any(concerned(name) for name in weights):
        warnings.warn(
            f'the weights were trained with {_counts(theirs)} clusters, this model has '
            f'{_counts(ours)}; re-initialised: {", ".join(renewed) or "nothing"}',
            stacklevel=2,
        )
    state_dict.update((prefix + name, weights[name]) for name in expected)


def describe_misfit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """List missing, unexpected and wrong-shaped tensors of ``given``; empty if all match.

    A tensor of another kind is wrong, too: integers as weights are of a quantised model.
    """
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    common = {name: (given[name], value) for name, value in expected.items() if name in given}
    shapes = {
        name: f'{name} {tuple(its.shape)} instead of {tuple(ours.shape)}'
        for name, (its, ours) in common.items()
        if its.shape != ours.shape
    }
    types = {
        name: f'{name} {its.dtype} instead of {ours.dtype}'
        for name, (its, ours) in common.items()
        if not torch.can_cast(its.dtype, ours.dtype)
        or its.is_floating_point() != ours.is_floating_point()
    }
    parts = [
        f'{len(names)} {what}: {", ".join(names[:20])}{", ..." if len(names) > 20 else ""}'
        for what, names in (
            ('missing', missing),
            ('unexpected', unexpected),
            ('wrong shape', [*shapes.values()]),
            ('wrong type', [*types.values()]),
        )
        if names
    ]
    fitting = len(expected) - len({*missing, *shapes, *types})
    return f'{fitting} of {len(expected)} tensors match. {"; ".join(parts)}.' if parts else ''


def _depends_on_clusters(ours: dict, theirs: dict) -> Callable[[str], bool]:
    """Return a predicate: does a tensor depend on a number of clusters that differs?"""
    patterns = []
    for stage in {*ours, *theirs}:
        here, layer = ours.get(stage, (0, ''))
        there, _ = theirs.get(stage, (0, ''))
        if here == there:
            continue
        if here and there:  # only the last layer, with one map per cluster, depends on it
            own, teacher = f'(?:{layer}|cluster_pos_embed)', 'to_clusters'
        else:  # one of the two has plain self-attention, without any clusters
            own, teacher = 'cluster', '(?:to_clusters|lateral|smooth)'
        patterns.append(rf'stages\.{stage}\.blocks\.\d+\.attn\.{own}')
        patterns.append(rf'teacher\.stages\.{stage}\.{teacher}\.')
    compiled = re.compile('|'.join(patterns) or '(?!)')  # (?!) matches nothing
    return lambda name: compiled.match(name) is not None


def _cluster_counts(weights: Mapping[str, Tensor]) -> dict[int, tuple[int, str]]:
    """{stage: (number of clusters, name of the attention's layer that outputs them)}."""
    counts = {}
    pattern = re.compile(
        r'stages\.(\d+)\.blocks\.0\.attn\.(clustering\.\d+)\.weight'
        r'|teacher\.stages\.(\d+)\.(to_clusters)\.weight'
    )
    for match in filter(None, map(pattern.fullmatch, sorted(weights))):
        # Names are sorted, so the last layer of a clustering comes last.
        counts[int(match[1] or match[3])] = (len(weights[match[0]]), match[2] or match[4])
    return counts


def _counts(counts: dict[int, tuple[int, str]]) -> tuple[int, ...]:
    return tuple(counts.get(stage, (0,))[0] for stage in range(max(counts, default=-1) + 1))
