"""The authors' numbers from the authors' weights."""

import gzip
import json

import pytest
import torch
from official import GOLDEN, PARAMS, SHAPES, VARIANTS, official_weights

from mmpaca.checkpoint import convert_official
from mmpaca.doctor import golden as packaged
from mmpaca.doctor.golden import TOLERANCE, golden_noise
from mmpaca.models import PaCaViT


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('variant', GOLDEN)
def test_golden(variant, dtype):
    golden, tolerance = GOLDEN[variant], TOLERANCE[dtype]
    official = {
        k: v.to(dtype) if v.is_floating_point() else v for k, v in official_weights(variant).items()
    }
    model = PaCaViT(**VARIANTS[variant]).to(dtype).eval()
    model.load_state_dict(convert_official(official, 'backbone'))

    def check(name: str, value: torch.Tensor) -> None:
        expected = golden[name]
        value = value.detach().double()
        assert list(value.shape) == expected['shape']
        flat = value.contiguous().flatten()
        at = torch.tensor(expected['index'])
        error = (flat[at] - torch.tensor(expected['value']).double()).abs().max()
        assert error < tolerance, (name, error)
        overall = torch.stack([flat.mean(), flat.std(correction=0), flat.abs().max()])
        assert overall.sub(torch.tensor(expected['mean_std_absmax'])).abs().max() < tolerance

    for size, shape in dict(even=(1, 3, 64, 96), odd=(1, 3, 75, 101)).items():
        outs = model(golden_noise(7, *shape).to(dtype))
        for i, out in enumerate(outs):
            check(f'{size}_stage{i + 1}', out)
        logits = outs[-1].mean((2, 3)) @ official['head.weight'].T + official['head.bias']
        check(f'{size}_logits', logits)

    image = golden_noise(11, 1, 3, 64, 64).to(dtype).requires_grad_()
    ramps = ((o, torch.linspace(-1, 1, o.numel(), dtype=dtype).view(o.shape)) for o in model(image))
    loss = sum((out * ramp).sum() for out, ramp in ramps) / 1000
    loss.backward()
    assert abs(loss.item() - golden['grad_loss']) < tolerance
    check('grad_input', image.grad)


@pytest.mark.parametrize('variant', VARIANTS)
def test_every_published_variant_has_its_parameters_and_names(variant):
    with torch.device('meta'):
        model = PaCaViT(**VARIANTS[variant])
    assert sum(p.numel() for p in model.parameters()) == PARAMS[variant]['params_backbone']
    official = {
        name: torch.empty([n for n in shape if n != 'int64'], device='meta')
        for name, shape in SHAPES[variant].items()
    }
    converted = convert_official(official, 'backbone')
    assert {k: v.shape for k, v in converted.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_the_packaged_numbers_are_these():
    """``mmpaca doctor --gpu`` brings those of one variant along."""
    numbers = json.loads(gzip.decompress(packaged._FILE.read_bytes()))
    assert numbers.pop('shapes') == SHAPES['tiny_conv']
    assert len(numbers) == 5
    for name, values in numbers.items():
        assert values == {key: GOLDEN['tiny_conv'][name][key] for key in ('index', 'value')}
