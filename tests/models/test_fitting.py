"""Weights with any names and prefix are loaded, or an error lists what does not match."""

import warnings

import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict
from official import VARIANTS, official_weights

from mmpaca.models import PaCaViT


def with_prefix(weights: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in weights.items()}


def is_loaded(model: PaCaViT, reference: PaCaViT) -> bool:
    ours, theirs = model.state_dict(), reference.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.fixture(scope='module')
def reference() -> PaCaViT:
    model = PaCaViT('tiny')
    model.load_state_dict(official_weights('tiny_conv'))
    return model


# mmengine's loader is what Runner and init_cfg use; it is never strict.
@pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, load_state_dict])
@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.', 'model.'])
@pytest.mark.parametrize('names', ['official', 'ours'])
def test_names_and_prefixes(reference, load, prefix, names):
    weights = official_weights('tiny_conv') if names == 'official' else reference.state_dict()
    model = PaCaViT('tiny')
    load(
        model, with_prefix(weights, prefix) | {'neck.weight': torch.zeros(1)} if prefix else weights
    )
    assert is_loaded(model, reference)


@pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, load_state_dict])
def test_inside_a_detector(reference, load):
    detector = torch.nn.ModuleDict(dict(backbone=PaCaViT('tiny'), neck=torch.nn.Linear(1, 1)))
    neck = dict(weight=torch.ones(1, 1), bias=torch.ones(1))
    weights = {k: v for k, v in official_weights('tiny_conv').items() if not k.startswith('head.')}
    load(detector, with_prefix(weights, 'backbone.') | with_prefix(neck, 'neck.'))
    assert is_loaded(detector['backbone'], reference)
    assert detector['neck'].bias.item() == 1


def test_teacher_weights():
    model = PaCaViT('tiny_teacher')
    load_state_dict(model, official_weights('tiny_teacher'))
    official = official_weights('tiny_teacher')
    assert torch.equal(
        model.teacher.stages[2].smooth.norm1.running_var,
        official['paca_teacher.fpn3.0.fn.2.running_var'],
    )
    assert torch.equal(
        model.teacher.stages[1].transition.conv.weight,
        official['paca_teacher.transition1.0.conv.weight'],
    )


@pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, load_state_dict])
@pytest.mark.parametrize('names', ['official', 'ours'])
def test_partly_matching_weights_are_an_error(reference, load, names):
    weights = dict(official_weights('tiny_conv') if names == 'official' else reference.state_dict())
    q = 'stage1.1.attn.q.weight' if names == 'official' else 'stages.0.blocks.1.attn.q.weight'
    fc1 = q.replace('attn.q', 'mlp.fc1')
    del weights[q]
    weights[q.replace('weight', 'scale')] = torch.zeros(1)
    weights[fc1] = torch.zeros(3, 96)
    with pytest.raises(RuntimeError) as error:
        load(PaCaViT('tiny'), weights)
    message = str(error.value)
    assert '235 of 237 tensors match' in message
    assert '1 missing: stages.0.blocks.1.attn.q.weight' in message
    assert '1 unexpected: stages.0.blocks.1.attn.q.scale' in message
    assert '1 wrong shape: stages.0.blocks.1.mlp.fc1.weight (3, 96) instead of (384, 96)' in message


@pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, load_state_dict])
def test_no_matching_weights_are_an_error(load):
    with pytest.raises(RuntimeError, match='0 of 237 tensors match'):
        load(PaCaViT('tiny'), {'layer1.0.conv1.weight': torch.zeros(1)})
    detector = torch.nn.ModuleDict(dict(backbone=PaCaViT('tiny')))
    with pytest.raises(RuntimeError, match="under 'backbone.': 0 of 237 tensors match"):
        load(detector, {'backbone.layer1.0.conv1.weight': torch.zeros(1)})


def test_another_model_of_the_family_is_an_error():
    for other in (
        dict(arch='small'),
        dict(arch='tiny', clustering='mlp'),
        dict(arch='tiny_teacher'),
    ):
        with pytest.raises(RuntimeError, match='tensors match'):
            load_state_dict(PaCaViT(**other), official_weights('tiny_conv'))
    with pytest.raises(RuntimeError, match='stages.0.blocks.1.attn.clustering.0.weight'):
        load_state_dict(PaCaViT('tiny', cluster_interval=1), official_weights('tiny_conv'))


def test_two_backbones_in_one_file_are_an_error(reference):
    weights = with_prefix(reference.state_dict(), 'student.') | with_prefix(
        reference.state_dict(), 'teacher.'
    )
    with pytest.raises(ValueError, match="under \\['student.', 'teacher.'\\]"):
        load_state_dict(PaCaViT('tiny'), weights)


def differing(model: PaCaViT, reference: PaCaViT) -> set[str]:
    theirs = reference.state_dict()
    return {
        k for k, v in model.state_dict().items() if k not in theirs or not torch.equal(v, theirs[k])
    }


def test_another_number_of_clusters_reinitialises_only_dependent_layers(reference):
    model = PaCaViT('tiny', num_clusters=(49, 100, 64, 0))
    renewed = {f'stages.{i}.blocks.0.attn.clustering.4.weight' for i in (0, 2)}
    for name in renewed:  # must be overwritten
        model.get_parameter(name).data.fill_(7.0)
    with pytest.warns(UserWarning, match='re-initialised') as caught:
        load_state_dict(model, official_weights('tiny_conv'))
    assert differing(model, reference) == renewed
    for name in renewed:
        assert name in str(caught[0].message)
        assert (
            abs(
                model.get_parameter(name).std().item() - (2 / len(model.get_parameter(name))) ** 0.5
            )
            < 0.02
        )
    assert '(100, 100, 100) clusters, this model has (49, 100, 64)' in str(caught[0].message)


def test_all_ranks_reinitialise_alike(reference):
    """Re-initialised layers do not depend on the generators, whose states are unchanged."""
    models = []
    for seed in (1, 2):
        models.append(PaCaViT('tiny', num_clusters=(49, 64, 100, 0)))
        torch.manual_seed(seed)
        with pytest.warns(UserWarning, match='re-initialised'):
            load_state_dict(models[-1], reference.state_dict())
        after = torch.rand(1)
        torch.manual_seed(seed)
        assert torch.equal(after, torch.rand(1))
    assert is_loaded(*models)
    first, second = (
        models[0].get_parameter(f'stages.{i}.blocks.0.attn.clustering.4.weight') for i in (0, 1)
    )
    assert not torch.equal(first.flatten()[:100], second.flatten()[:100])


def test_clusters_where_the_file_has_self_attention_and_the_other_way_round(reference):
    model = PaCaViT('tiny', num_clusters=100)
    with pytest.warns(UserWarning, match='stages.3.blocks.0.attn.clustering.0.weight'):
        load_state_dict(model, official_weights('tiny_conv'))
    assert all(
        k.startswith('stages.3.blocks.') and '.cluster' in k for k in differing(model, reference)
    )

    back = PaCaViT('tiny')
    with pytest.warns(UserWarning, match='this model has .100, 100, 100.; re-initialised: nothing'):
        load_state_dict(back, model.state_dict())
    assert is_loaded(back, reference)


def test_teacher_with_another_number_of_clusters():
    reference = PaCaViT('tiny_teacher')
    reference.load_state_dict(official_weights('tiny_teacher'))
    model = PaCaViT('tiny_teacher', num_clusters=(50, 100, 100, 100))
    with pytest.warns(UserWarning):
        load_state_dict(model, official_weights('tiny_teacher'))
    assert differing(model, reference) == {
        'teacher.stages.0.to_clusters.weight',
        'teacher.stages.0.to_clusters.bias',
    }
    # Without clusters in stage 1 the teacher's way up ends earlier.
    model = PaCaViT('tiny_teacher', num_clusters=(0, 100, 100, 100))
    with pytest.warns(
        UserWarning, match='this model has .0, 100, 100, 100.; re-initialised: nothing'
    ):
        load_state_dict(model, official_weights('tiny_teacher'))
    assert differing(model, reference) == set()


def test_equal_numbers_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for variant in ('tiny_conv', 'tiny_every2', 'tiny_linear'):
            load_state_dict(PaCaViT(**VARIANTS[variant]), official_weights(variant))


def test_ignored_keys_are_named(monkeypatch):
    said = []
    monkeypatch.setattr(
        'mmpaca.models.fitting.print_log', lambda message, **kwargs: said.append(message)
    )
    weights = official_weights('tiny_conv')
    heads = [name for name in weights if name.startswith('head.')]
    PaCaViT('tiny').load_state_dict(weights)
    assert len(heads) == 2
    assert said == [f'Ignored keys that are not backbone weights: {", ".join(heads)}']
