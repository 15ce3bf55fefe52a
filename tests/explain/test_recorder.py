"""What is recorded is what the block did: its output comes back from A and Z."""

import pytest
import torch
from torch import nn

from mmpaca.explain import record
from mmpaca.models import PaCaViT

ARCH = dict(
    embed_dims=(16, 32, 32, 32),
    num_heads=(1, 2, 4, 4),
    mlp_ratios=(1, 1, 1, 1),
    depths=(2, 1, 3, 2),
)
VARIANTS = dict(
    stagewise=dict(num_clusters=(7, 7, 5, 0)),
    blockwise=dict(num_clusters=(7, 7, 5, 3), cluster_interval=1),
    every_second=dict(num_clusters=(7, 7, 5, 0), cluster_interval=2),
    mlp=dict(num_clusters=(7, 7, 5, 0), clustering='mlp'),
    linear=dict(num_clusters=(7, 7, 5, 0), clustering='linear'),
    first_without=dict(num_clusters=(0, 7, 5, 0)),
    pos_embed=dict(num_clusters=(7, 7, 5, 0), cluster_pos_embed=True, sub_norm=True),
    post_norm=dict(num_clusters=(7, 7, 5, 0), post_norm=True, stem_stride=2),
    teacher=dict(arch=dict(ARCH, teacher_depths=(1, 1, 1, 1)), num_clusters=(7, 7, 5, 0)),
)


def build(variant: str) -> PaCaViT:
    """A model whose assignments and attention are far from uniform."""
    torch.manual_seed(0)
    model = PaCaViT(**{'arch': ARCH, **VARIANTS[variant]}).eval()
    for name, parameter in model.named_parameters():
        if 'cluster' in name or '.q.' in name or '.k.' in name:
            nn.init.normal_(parameter, std=0.7)
    return model


def catch_attention(model: PaCaViT) -> dict:
    """Input and output of every attention module, filled by the next forward pass."""
    caught = {}
    for i, stage in enumerate(model.stages):
        for j, block in enumerate(stage.blocks):
            block.attn.register_forward_hook(
                lambda module, inputs, output, key=(i, j): caught.update(
                    {key: (module, inputs[0], output[0])}
                )
            )
    return caught


@pytest.mark.parametrize('variant', VARIANTS)
def test_output_comes_back(variant):
    model = build(variant)
    caught = catch_attention(model)
    image = torch.rand(2, 3, 70, 97)  # no multiple of 32, other images differ
    with torch.no_grad(), record(model) as recording:
        outs = model(image)
    assert recording.input_shape == (70, 97)
    left_out = tuple(i for i, m in enumerate(model.num_clusters) if m == 0)
    assert recording.left_out == left_out
    assert set(recording.blocks) == {key for key in caught if key[0] not in left_out}
    for key, block in recording.blocks.items():
        module, x, out = caught[key]
        assert (block.stage, block.block) == key
        assert block.assignment.shape == (2, module.num_clusters, *x.shape[1:3])
        assert block.attention.shape == (2, module.num_heads, *x.shape[1:3], module.num_clusters)
        # Neither is uniform, else a wrong one would do as well.
        assert block.assignment.amax((2, 3)).min() > 1.5 / x[0, ..., 0].numel()
        assert block.attention.amax(-1).mean() > 1.5 / module.num_clusters

        patches, z = x.flatten(1, 2), block.assignment.flatten(2)
        clusters = z @ patches
        if module.cluster_pos_embed is not None:
            clusters = clusters + module.cluster_pos_embed
        v = module.v(module.cluster_norm(clusters)).unflatten(-1, (module.num_heads, -1))
        heads = torch.einsum('bhnm,bmhd->bnhd', block.attention.flatten(2, 3), v)
        rebuilt = module.proj(module.norm(heads.flatten(2))).view(x.shape)
        torch.testing.assert_close(rebuilt, out, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        for before, after in zip(outs, model(image), strict=True):
            assert torch.equal(before, after)


@pytest.mark.parametrize('variant', ['stagewise', 'blockwise', 'every_second', 'teacher'])
def test_assignment_is_of_the_block_that_computed_it(variant):
    model = build(variant)
    with torch.no_grad(), record(model, attention='last') as recording:
        model(torch.rand(1, 3, 64, 64))
    third = [recording.blocks[2, j] for j in range(3)]
    assert [block.attention is None for block in third] == [True, True, False]
    with pytest.raises(ValueError, match='attention of stage 2, block 0 was not recorded'):
        third[0].received()
    same = [torch.equal(third[0].assignment, block.assignment) for block in third[1:]]
    expected = dict(blockwise=[False, False], every_second=[True, False])
    assert same == expected.get(variant, [True, True])
    assert [(b.stage, b.block, b.stride) for b in recording.last_blocks()][:3] == [
        (0, 1, 4),
        (1, 0, 8),
        (2, 2, 16),
    ]


def test_relevance_is_rows_of_the_product():
    model = build('stagewise')
    with torch.no_grad(), record(model) as recording:
        model(torch.rand(2, 3, 64, 96))
    block = recording.blocks[1, 0]
    full = block.attention.flatten(2, 3) @ block.assignment.flatten(2)[:, None]  # (B, h, N, N)
    queries = torch.zeros(2, 2, 8, 12)
    queries[:, 0, 3, 5] = 1  # one patch
    queries[:, 1, 2:4, 1:3] = 2  # a region, of any weight
    row = 3 * 12 + 5
    region = [y * 12 + x for y in (2, 3) for x in (1, 2)]
    for head, matrix in ((1, full[:, 1]), (None, full.mean(1))):
        relevance = block.relevance(queries, head)
        torch.testing.assert_close(relevance[:, 0].flatten(1), matrix[:, row])
        torch.testing.assert_close(relevance[:, 1].flatten(1), matrix[:, region].mean(1))
    torch.testing.assert_close(relevance.sum((2, 3)), torch.ones(2, 2))
    torch.testing.assert_close(block.received().sum(1), torch.ones(2))
    strongest = block.labels()[1, 3, 5]
    assert block.assignment[1, strongest, 3, 5] == block.assignment[1, :, 3, 5].max()


def test_every_pass_replaces_the_last_and_hooks_go():
    model = build('teacher')
    hooked = lambda: [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]  # noqa: E731
    assert not hooked()
    images = torch.rand(2, 3, 64, 64)
    with pytest.raises(ZeroDivisionError), torch.no_grad(), record(model) as recording:
        model(images[:1])
        model(images[1:])
        second = recording.blocks[0, 0].assignment
        1 / 0  # noqa: B018
    assert not hooked()
    with torch.no_grad(), record(model) as recording:
        model(images[1:])
    assert torch.equal(recording.blocks[0, 0].assignment, second)
    with torch.no_grad():
        model(images[:1])
    assert torch.equal(recording.blocks[0, 0].assignment, second)


def test_autocast_half_and_training():
    model = build('every_second')
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), record(model) as exact:
        model(image)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16), record(model) as mixed:
        model(image)
    with record(model) as training:  # gradients on, checkpointed blocks
        for stage in model.stages:
            stage.with_cp = True
        model.train()(image)[-1].sum().backward()
    model.eval().bfloat16()
    with torch.no_grad(), record(model) as half:
        model(image.bfloat16())
    for key in exact.blocks:
        for other in (mixed.blocks[key], half.blocks[key], training.blocks[key]):
            assert other.assignment.dtype == other.attention.dtype == torch.float32
            assert not other.attention.requires_grad
            sums = other.assignment.sum((2, 3))
            torch.testing.assert_close(sums, torch.ones_like(sums))
    # The very first block sees the same patches but for the rounding of what comes before.
    for other in (mixed, half):
        first, rounded = exact.blocks[0, 0], other.blocks[0, 0]
        # (B, M) and (B, h, H, W) sums over distributions that sum to one.
        assert (rounded.assignment - first.assignment).abs().sum((2, 3)).max() < 0.3
        assert (rounded.attention - first.attention).abs().sum(-1).max() < 0.3


def test_finds_the_backbone():
    model = build('stagewise')
    wrapped = nn.ModuleDict(dict(module=nn.ModuleDict(dict(backbone=model))))
    with record(wrapped) as recording, torch.no_grad():
        model(torch.rand(1, 3, 32, 32))
    assert len(recording.blocks) == 6
    with pytest.raises(ValueError, match="attention='some'"), record(model, attention='some'):
        pass
    with pytest.raises(ValueError, match='Linear has 0 PaCaViT'), record(nn.Linear(1, 1)):
        pass
    both = nn.ModuleDict(dict(student=model, teacher=build('stagewise')))
    with pytest.raises(ValueError, match=r'has 2 PaCaViT backbones \(student, teacher\)'), record(both):  # fmt: skip
        pass
    with pytest.raises(ValueError, match=r'num_clusters=\(0, 0, 0, 0\)'), record(PaCaViT(ARCH, num_clusters=0)):  # fmt: skip
        pass
