"""What makes PaCaViT fast changes no number, and runs wherever PyTorch does."""

import pytest
import torch
from reference import ReferencePaCaViT
from torch._subclasses import FakeTensorMode

from mmpaca.analysis import count_cost
from mmpaca.models import PaCaViT, layers
from mmpaca.models.layers import ConvMLP

SMALL = dict(embed_dims=(16, 24), num_heads=(2, 3), mlp_ratios=(2, 2), depths=(2, 1))


def small(**kwargs) -> PaCaViT:
    torch.manual_seed(0)
    return PaCaViT(SMALL, num_clusters=5, out_indices=(0, 1), drop_path_rate=0.0, **kwargs)


def gradients(model: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    sum((out**2).sum() for out in model(x)).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_equals_the_plain_implementation():
    torch.manual_seed(0)
    model = PaCaViT('tiny', drop_path_rate=0.0).double()
    plain = ReferencePaCaViT('tiny', drop_path_rate=0.0).double()
    plain.load_state_dict(model.state_dict())
    x = torch.rand(2, 3, 72, 104, dtype=torch.double)
    for train in (False, True):
        outs, expected = model.train(train)(x), plain.train(train)(x)
        torch.testing.assert_close(outs, expected, rtol=1e-9, atol=1e-9)
    for (name, _), ours, theirs in zip(
        model.named_parameters(), gradients(model, x), gradients(plain, x), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8, msg=name)


@pytest.mark.parametrize('band_bytes', [1, 3000, 20_000, 100_000])
@pytest.mark.parametrize('size', [(1, 11, 7), (3, 5, 6), (4, 1, 9)])
def test_bands_change_nothing(monkeypatch, size, band_bytes):
    """From a row at a time over several images at a time to all at once."""
    torch.manual_seed(0)
    mlp, norm = ConvMLP(8, 32).double().eval(), torch.nn.LayerNorm(8).double()
    x = torch.randn(*size, 8, dtype=torch.double)
    expected = mlp(x, norm).detach()
    monkeypatch.setattr(layers, 'BAND_BYTES', band_bytes)
    calls = []
    mlp.fc1.register_forward_hook(lambda *args: calls.append(args))
    with torch.no_grad():
        torch.testing.assert_close(mlp(x, norm), expected, rtol=1e-12, atol=1e-12)
    rows = max(1, band_bytes // (size[2] * 32 * 8))
    images = max(1, rows // size[1])
    assert len(calls) == -(-size[0] // images) * -(-size[1] // rows)


def test_bands_of_a_batch_without_images(monkeypatch):
    monkeypatch.setattr(layers, 'BAND_BYTES', 1)
    with torch.no_grad():
        assert ConvMLP(8, 32)(torch.rand(0, 11, 7, 8)).shape == (0, 11, 7, 8)


def test_recomputing_gives_the_gradients_of_saving(monkeypatch):
    x = torch.rand(2, 3, 40, 56)
    model = small(drop_rate=0.1, attn_drop_rate=0.1)
    torch.manual_seed(1)
    recomputed = gradients(model, x)
    for module in ('layers', 'attention'):
        monkeypatch.setattr(
            f'mmpaca.models.{module}.recompute',
            lambda function, *args, random=False: function(*args),
        )
    torch.manual_seed(1)
    torch.testing.assert_close(recomputed, gradients(model, x), rtol=1e-5, atol=1e-6)


def test_memory_for_the_backward_pass():
    """At 640x640 the authors' PaCa-S saves 1322 MiB."""
    x = torch.rand(1, 3, 640, 640)
    for with_cp, limit in ((False, 700), (True, 200)):
        model = PaCaViT('small', with_cp=with_cp).train()
        assert count_cost(model, lambda: model(x)).saved_bytes < limit * 2**20  # noqa: B023


@pytest.mark.parametrize('train', [False, True])
def test_compiles_without_graph_breaks(train):
    torch._dynamo.reset()
    model = small().train(train)
    compiled = torch.compile(model, backend='eager', fullgraph=True, dynamic=True)
    for size in ((48, 64), (72, 40)):
        x = torch.rand(2, 3, *size)
        with torch.set_grad_enabled(train):
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('arch', [SMALL, dict(SMALL, teacher_depths=(1, 1))])
def test_runs_on_cuda_without_waiting_for_it(arch, autocast):
    """With tensors that have no numbers: whatever asks for one, or for the CPU, raises."""
    model = PaCaViT(arch, num_clusters=5, out_indices=(0, 1))
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = model.cuda()
        x = torch.rand(2, 3, 40, 56, device='cuda')
        for train in (True, False):
            with (
                torch.autocast('cuda', torch.bfloat16, enabled=autocast),
                torch.set_grad_enabled(train),
            ):
                outs = model.train(train)(x)
            assert [(out.device.type, out.requires_grad) for out in outs] == [('cuda', train)] * 2


def test_the_backward_pass_asks_for_no_number_either():
    """On meta tensors, for a backward pass on fake CUDA tensors needs a driver."""
    with torch.device('meta'):
        model = small()
        sum(out.sum() for out in model(torch.rand(2, 3, 40, 56))).backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())
