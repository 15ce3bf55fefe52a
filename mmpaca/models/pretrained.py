"""Fitting given weights into a PaCaViT: whose names they have, how many clusters, what is missing.

The name table stands next to the model because it must change with it. Both the module itself
(``PaCaViT._load_from_state_dict``) and the converter (``mmpaca.checkpoint``) use it.
"""

import copy
import re
import warnings
from collections.abc import Callable, Iterable, Mapping

from mmengine.logging import print_log
from torch import Tensor, nn

from mmpaca.rng import seeded

from .layers import init_module

# The authors' names -> ours. Their stages count from 1, ours from 0: {i} is the first number less
# one; {0} is it as it stands, for a transition from stage 1 is part of our stages.1.
# fmt: off
_OFFICIAL = [
    (r'patch_embed\.proj\.(\d+)\.(.+)', 'stem.convs.{0}.{1}'),
    (r'patch_embed\.norm\.(.+)', 'stem.norm.{0}'),
    (r'stage(\d+)\.(\d+)\.norm([12])_before\.(.+)', 'stages.{i}.blocks.{1}.norm{2}.{3}'),
    (r'stage(\d+)\.(\d+)\.attn\.clustering\.(.+)', 'stages.{i}.blocks.{1}.attn.{2}'),
    (r'stage(\d+)\.(\d+)\.attn\.(.+)', 'stages.{i}.blocks.{1}.attn.{2}'),
    (r'stage(\d+)\.(\d+)\.mlp\.dwconv\.(.+)', 'stages.{i}.blocks.{1}.mlp.{2}'),
    (r'stage(\d+)\.(\d+)\.mlp\.(.+)', 'stages.{i}.blocks.{1}.mlp.{2}'),
    (r'norm(\d+)\.(.+)', 'stages.{i}.norm.{1}'),
    (r'transition(\d+)\.proj\.(.+)', 'stages.{0}.downsample.conv.{1}'),
    (r'transition(\d+)\.norm\.(.+)', 'stages.{0}.downsample.norm.{1}'),
    (r'paca_teacher\.block(\d+)\.(\d+)\.0\.fn\.0\.(.+)', 'teacher.stages.{i}.blocks.{1}.depthwise.{2}'),
    (r'paca_teacher\.block(\d+)\.(\d+)\.0\.fn\.2\.(.+)', 'teacher.stages.{i}.blocks.{1}.norm1.{2}'),
    (r'paca_teacher\.block(\d+)\.(\d+)\.1\.(.+)', 'teacher.stages.{i}.blocks.{1}.pointwise.{2}'),
    (r'paca_teacher\.block(\d+)\.(\d+)\.3\.(.+)', 'teacher.stages.{i}.blocks.{1}.norm2.{2}'),
    (r'paca_teacher\.transition(\d+)\.0\.(.+)', 'teacher.stages.{0}.transition.{1}'),
    (r'paca_teacher\.transition(\d+)\.2\.(.+)', 'teacher.stages.{0}.transition.norm.{1}'),
    (r'paca_teacher\.lateral(\d+)\.0\.(.+)', 'teacher.stages.{i}.lateral.conv.{1}'),
    (r'paca_teacher\.lateral(\d+)\.2\.(.+)', 'teacher.stages.{i}.lateral.norm.{1}'),
    (r'paca_teacher\.fpn(\d+)\.0\.fn\.0\.(.+)', 'teacher.stages.{i}.smooth.depthwise.{1}'),
    (r'paca_teacher\.fpn(\d+)\.0\.fn\.2\.(.+)', 'teacher.stages.{i}.smooth.norm1.{1}'),
    (r'paca_teacher\.fpn(\d+)\.1\.(.+)', 'teacher.stages.{i}.smooth.pointwise.{1}'),
    (r'paca_teacher\.fpn(\d+)\.3\.(.+)', 'teacher.stages.{i}.smooth.norm2.{1}'),
    (r'paca_teacher\.to_clusters(\d+)\.(.+)', 'teacher.stages.{i}.to_clusters.{1}'),
]
# fmt: on
# Names that only the authors' backbone, and only ours, have.
_OFFICIAL_MARK = re.compile(r'(|.*\.)stage\d+\.\d+\.(?:norm[12]_before|attn|mlp)\.')
_OWN_MARK = re.compile(r'(|.*\.)stages\.\d+\.blocks\.\d+\.(?:attn\.[qkv]|mlp\.dwconv)\.')


def rename_official(name: str) -> str | None:
    """Our name of a backbone tensor of the authors' release, None where it is none of theirs."""
    for pattern, ours in _OFFICIAL:
        match = re.fullmatch(pattern, name)
        if match:
            first = match[1]
            return ours.format(*match.groups(), i=int(first) - 1 if first.isdigit() else None)
    return None


def find_prefix(names: Iterable[str], official: bool) -> str | None:
    """Under which prefix (``''``, ``'backbone.'``, ...) a PaCa-ViT backbone stands.

    Args:
        names: of all tensors of a file.
        official: look for the authors' names instead of ours.

    Returns:
        The prefix, None where there is no such backbone.

    Raises:
        ValueError: there are several.
    """
    mark = _OFFICIAL_MARK if official else _OWN_MARK
    prefixes = {match[1] for match in map(mark.match, names) if match}
    if len(prefixes) > 1:
        raise ValueError(
            f'several PaCa-ViT backbones in one file, under {sorted(prefixes)}: keep one, e.g. '
            "with init_cfg=dict(type='Pretrained', prefix=...)"
        )
    return prefixes.pop() if prefixes else None


def backbone_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a PaCa-ViT backbone under our names, whatever prefix and names they have.

    Args:
        state_dict: of a backbone, classifier or detector; the authors' or ours.

    Returns:
        ``{name in PaCaViT: tensor}``. A tensor of the backbone whose name is not known keeps its
        name; what is not under the backbone's prefix is left out. Where no backbone is
        recognised, everything as it is.
    """
    for official in (True, False):
        prefix = find_prefix(state_dict, official)
        if prefix is not None:
            weights = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
            if official:
                # The classifier's head is a sibling of the backbone's tensors in these files.
                weights = {
                    rename_official(k) or k: v
                    for k, v in weights.items()
                    if not k.startswith('head.')
                }
            return weights
    return dict(state_dict)


def fit_state_dict(model: nn.Module, state_dict: dict[str, Tensor], prefix: str = '') -> None:
    """Turn ``state_dict`` in place into one that loads into ``model`` without remainder.

    Args:
        model: a PaCaViT.
        state_dict: weights under any of the names of :func:`backbone_weights`.
        prefix: the model's place in ``state_dict``.

    Raises:
        RuntimeError: tensors are missing, unexpected or of another shape. A stage with another
            number of clusters than the file's is no error: the layers concerned are
            initialised anew, from a seed of their own, and named in a warning.
    """
    given = {k: state_dict.pop(k) for k in list(state_dict) if k.startswith(prefix)}
    weights = backbone_weights({k[len(prefix) :]: v for k, v in given.items()})
    taken = {id(value) for value in weights.values()}
    rest = [name for name, value in given.items() if id(value) not in taken]
    if rest:
        names = ', '.join(rest[:8]) + (f' and {len(rest) - 8} more' if len(rest) > 8 else '')
        print_log(f'Not taken, for it is not of the backbone: {names}', logger='current')
    expected = model.state_dict()
    # As in torch and mmengine, a BatchNorm's step counter may be missing.
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
        raise RuntimeError(f'The weights do not fit {type(model).__name__}{where}: {misfit}')
    renewed = [
        name
        for name, value in expected.items()
        if concerned(name) and (name not in weights or weights[name].shape != value.shape)
    ]
    # All processes must draw the same, on any device: nobody broadcasts weights after loading.
    with seeded(0):
        for name in renewed:
            parent, _, local = name.rpartition('.')
            layer = copy.deepcopy(model.get_submodule(parent)).cpu()
            init_module(layer)
            weights[name] = layer.state_dict()[local]
    if renewed or any(concerned(name) for name in weights):
        warnings.warn(
            f'the weights were trained with {_counts(theirs)} clusters, this model has '
            f'{_counts(ours)}; newly initialised: {", ".join(renewed) or "nothing"}',
            stacklevel=2,
        )
    state_dict.update((prefix + name, weights[name]) for name in expected)


def describe_misfit(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What is missing, unexpected and wrong-shaped in ``given``; empty where everything fits."""
    missing = [name for name in expected if name not in given]
    unexpected = [name for name in given if name not in expected]
    wrong = [
        f'{name} {tuple(given[name].shape)} instead of {tuple(value.shape)}'
        for name, value in expected.items()
        if name in given and given[name].shape != value.shape
    ]
    parts = [
        f'{len(names)} {what}: {", ".join(names[:20])}{", ..." if len(names) > 20 else ""}'
        for what, names in (
            ('missing', missing),
            ('unexpected', unexpected),
            ('wrong shape', wrong),
        )
        if names
    ]
    fitting = len(expected) - len(missing) - len(wrong)
    return f'{fitting} of {len(expected)} tensors fit. {"; ".join(parts)}.' if parts else ''


def _depends_on_clusters(ours: dict, theirs: dict) -> Callable[[str], bool]:
    """A test for the names that exist, or have their shape, because of a number that differs."""
    patterns = []
    for stage in {*ours, *theirs}:
        here, layer = ours.get(stage, (0, ''))
        there, _ = theirs.get(stage, (0, ''))
        if here == there:
            continue
        if here and there:  # the last layer makes one map per cluster, the rest does not care
            own, teacher = f'(?:{layer}|cluster_pos_embed)', 'to_clusters'
        else:  # self-attention on one side: it has no clusters at all
            own, teacher = 'cluster', '(?:to_clusters|lateral|smooth)'
        patterns.append(rf'stages\.{stage}\.blocks\.\d+\.attn\.{own}')
        patterns.append(rf'teacher\.stages\.{stage}\.{teacher}\.')
    compiled = re.compile('|'.join(patterns) or '(?!)')  # (?!) matches nothing
    return lambda name: compiled.match(name) is not None


def _cluster_counts(weights: Mapping[str, Tensor]) -> dict[int, tuple[int, str]]:
    """{stage: (number of clusters, name of the layer in its attention that makes them)}."""
    counts = {}
    pattern = re.compile(
        r'stages\.(\d+)\.blocks\.0\.attn\.(clustering\.\d+)\.weight'
        r'|teacher\.stages\.(\d+)\.(to_clusters)\.weight'
    )
    for match in filter(None, map(pattern.fullmatch, sorted(weights))):
        # Sorted names: the last layer of a clustering comes last.
        counts[int(match[1] or match[3])] = (len(weights[match[0]]), match[2] or match[4])
    return counts


def _counts(counts: dict[int, tuple[int, str]]) -> tuple[int, ...]:
    return tuple(counts.get(stage, (0,))[0] for stage in range(max(counts, default=-1) + 1))
