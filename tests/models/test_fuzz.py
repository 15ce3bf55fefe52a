"""Any size, batch and variant gives maps of the right shape, the same ones, and gradients."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpaca.models import PaCaViT

DIMS = (8, 12, 16, 16)
per_stage = {
    'num_clusters': st.tuples(*[st.integers(0, 9)] * 4),
    'cluster_interval': st.tuples(*[st.integers(0, 2)] * 4),
}
variants = st.fixed_dictionaries(
    dict(
        arch=st.fixed_dictionaries(
            dict(
                embed_dims=st.just(DIMS),
                num_heads=st.tuples(*[st.sampled_from((1, 2, 4))] * 4),
                mlp_ratios=st.tuples(*[st.sampled_from((1, 2))] * 4),
                depths=st.tuples(*[st.integers(1, 2)] * 4),
                teacher_depths=st.sampled_from([None, None, (1, 1, 1, 1)]),
            )
        ),
        clustering=st.sampled_from(('conv', 'mlp', 'linear')),
        out_indices=st.sets(st.integers(0, 3), min_size=1).map(lambda s: tuple(sorted(s))),
        stem_stride=st.sampled_from((4, 2)),
        layer_scale_init_value=st.sampled_from((None, 0.1)),
        cluster_pos_embed=st.booleans(),
        post_norm=st.booleans(),
        sub_norm=st.booleans(),
        pos_embed_size=st.sampled_from((None, 32)),
        with_cp=st.booleans(),
        **per_stage,
    )
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    variants,
    st.integers(1, 3),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.integers(0, 99),
)
def test_any_model_on_any_images(variant, batch, size, seed):
    torch.manual_seed(seed)
    model = PaCaViT(**variant, drop_path_rate=0.0).double().eval()
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)  # biases and scales are not neutral
    images = torch.randn(batch, 3, *size, dtype=torch.float64)

    outs = model(images)
    assert len(outs) == len(variant['out_indices'])
    for i, out in zip(variant['out_indices'], outs, strict=True):
        height, width = (-(-side // (variant['stem_stride'] * 2**i)) for side in size)
        assert out.shape == (batch, DIMS[i], height, width)
        assert out.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(outs, model(images), strict=True))

    # An image alone gives what it gives among others.
    for one, out in zip(model(images[-1:]), outs, strict=True):
        torch.testing.assert_close(one, out[-1:], rtol=1e-9, atol=1e-9)

    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    used = [
        (name, p)
        for name, p in model.named_parameters()
        if 3 in variant['out_indices'] or 'teacher' not in name
        if not name.startswith(
            tuple(f'stages.{i}.' for i in range(max(variant['out_indices']) + 1, 4))
        )
    ]
    for name, parameter in used:
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
