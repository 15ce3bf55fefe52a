"""What makes PaCaViT fast changes no number, and runs wherever PyTorch does."""

import copy

import pytest
import torch
import torch._inductor.config
from reference import ReferencePaCaViT
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend

from mmpaca.analysis import count_cost
from mmpaca.models import PaCaViT, PatchToClusterAttention, fast_paths
from mmpaca.models.clustering import assign, cluster_logits, pool
from mmpaca.models.fast_paths import FastPaths
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
    monkeypatch.setattr(fast_paths, 'BAND_BYTES', band_bytes)
    calls = []
    mlp.fc1.register_forward_hook(lambda *args: calls.append(args))
    with torch.no_grad():
        torch.testing.assert_close(mlp(x, norm), expected, rtol=1e-12, atol=1e-12)
    rows = max(1, band_bytes // (size[2] * 32 * 8))
    images = max(1, rows // size[1])
    assert len(calls) == -(-size[0] // images) * -(-size[1] // rows)


def test_bands_of_a_batch_without_images(monkeypatch):
    monkeypatch.setattr(fast_paths, 'BAND_BYTES', 1)
    with torch.no_grad():
        assert ConvMLP(8, 32)(torch.rand(0, 11, 7, 8)).shape == (0, 11, 7, 8)


@pytest.mark.parametrize('other', [dict(recompute=False), dict(fast_paths=False)])
def test_fast_paths_give_the_gradients_of_the_readable_blocks(other):
    x = torch.rand(2, 3, 40, 56, dtype=torch.double)
    rates = dict(drop_rate=0.1, attn_drop_rate=0.1)
    fast, plain = small(**rates).double(), small(**rates, **other).double()
    torch.manual_seed(1)
    found = gradients(fast, x)
    torch.manual_seed(1)
    torch.testing.assert_close(found, gradients(plain, x), rtol=1e-9, atol=1e-9)


def test_recompute_follows_the_device():
    cpu, cuda = torch.device('cpu'), torch.device('cuda')
    found = {
        r: [FastPaths(True, r).recomputes(d) for d in (cpu, cuda)] for r in fast_paths.RECOMPUTE
    }
    assert found == {'auto': [True, False], True: [True, True], False: [False, False]}
    assert not FastPaths(enabled=False).recomputes(cpu)
    with pytest.raises(ValueError, match="recompute='always' is not one of"):
        small(recompute='always')
    with pytest.raises(ValueError, match='recompute=True needs fast_paths=True'):
        small(recompute=True, fast_paths=False)


def test_what_recompute_does_is_logged_once(monkeypatch):
    lines = []
    monkeypatch.setattr('mmpaca.models.paca_vit.print_log', lambda text, logger: lines.append(text))
    model, x = small(recompute=False), torch.rand(1, 3, 32, 32)
    model.eval()(x)
    model.train()(x), model(x)
    assert lines == ['PaCaViT on cpu, recompute=False: hidden maps are saved for the backward pass']


def test_autocast_casts_a_map_once():
    """The norm's output once for clustering and queries, and the assignment never."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Casts(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if func is torch.ops.aten._to_copy.default and out.dtype == torch.bfloat16:
                shapes.append(tuple(args[0].shape))
            return out

    attention = PatchToClusterAttention(16, 2, num_clusters=5, clustering='conv')
    x = torch.rand(2, 10, 14, 16)  # float32, as CUDA's autocast leaves the norm's output
    shapes: list[tuple] = []
    with torch.autocast('cpu', torch.bfloat16), Casts():
        attention(x)
    assert shapes.count((2, 10, 14, 16)) == 1
    assert (2, 5, 140) not in shapes


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('scale', [1.0, 36.0])
def test_clusters_of_many_patches_in_half_precision(dtype, scale):
    """200 x 336 patches, against float64; the logits' standard deviation is the scale.

    The features and weights are given in half precision, so nothing but the arithmetic differs.
    """
    torch.manual_seed(0)
    layer = torch.nn.Linear(16, 8, bias=False).to(dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(8, 16) * scale / 4)
    x = torch.randn(1, 200, 336, 16).to(dtype)
    with torch.autocast('cpu', dtype):
        assignment = assign(cluster_logits(x, layer))
        clusters = pool(assignment, x.float().flatten(1, 2))
    exact_layer, exact = copy.deepcopy(layer).double(), x.double()
    right = assign(cluster_logits(exact, exact_layer))
    torch.testing.assert_close(assignment.double(), right, rtol=2e-4, atol=1e-30)
    torch.testing.assert_close(clusters.double(), right @ exact.flatten(1, 2), rtol=1e-4, atol=1e-5)
    pooled = pool(assignment, x.flatten(1, 2))  # of a model in half precision, without autocast
    assert pooled.dtype == dtype
    torch.testing.assert_close(pooled, clusters.to(dtype), rtol=0, atol=0)


def test_attention_on_cuda_prefers_flash_to_cudnn(monkeypatch):
    """The order at the call, and that of the process afterwards."""
    order, seen = torch._C._get_sdp_priority_order, []
    monkeypatch.setattr(
        fast_paths.F, 'scaled_dot_product_attention', lambda *a, **k: seen.append(order())
    )
    before = order()
    with FakeTensorMode():
        for dtype in (torch.float32, torch.float16):
            q = torch.rand(1, 2, 4, 8, device='cuda', dtype=dtype)
            FastPaths().attention(q, q, q, 0.0)
    assert seen[0] == before == order()
    flash, efficient, cudnn = (
        seen[1].index(int(getattr(SDPBackend, name)))
        for name in ('FLASH_ATTENTION', 'EFFICIENT_ATTENTION', 'CUDNN_ATTENTION')
    )
    assert flash < efficient < cudnn


@pytest.mark.parametrize('fast_paths', [True, False])
def test_gradients_have_the_strides_of_their_parameters(fast_paths):
    """DistributedDataParallel warns where they differ."""
    model = PaCaViT(dict(SMALL, teacher_depths=(1, 1)), out_indices=(0, 1), fast_paths=fast_paths)
    stagewise = PaCaViT(SMALL, num_clusters=5, out_indices=(0, 1), fast_paths=fast_paths)
    for each in (model, copy.deepcopy(stagewise)):
        sum(out.sum() for out in each(torch.rand(2, 3, 40, 56))).backward()
        strides = {n: (p.stride(), p.grad.stride()) for n, p in each.named_parameters()}
        assert {name: pair for name, pair in strides.items() if pair[0] != pair[1]} == {}


def test_compiles_the_backbone_alone():
    torch._dynamo.reset()
    compiled, plain = (small(compile=value).eval() for value in (dict(backend='eager'), False))
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert compiled._compiled_call_impl is not None
    x = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), plain(x), rtol=1e-5, atol=1e-5)


def test_compile_true_is_for_any_size(monkeypatch):
    """Without strict strides Inductor 2.14 cannot sort those of views; compiling takes minutes."""
    if not hasattr(torch._inductor.config, 'strict_output_strides'):
        pytest.skip('this version of torch has no such option')
    calls = []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self, **kwargs: calls.append(kwargs))
    small(compile=True)
    assert calls == [dict(dynamic=True, options=dict(strict_output_strides=True))]


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
