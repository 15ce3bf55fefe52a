import copy

import pytest
import torch
from official import VARIANTS
from torch.nn.modules.batchnorm import _BatchNorm

from mmpaca.models import ARCHS, PaCaViT, PatchToClusterAttention

SMALL = dict(
    embed_dims=(16, 24, 32, 48),
    num_heads=(1, 2, 2, 4),
    mlp_ratios=(2, 2, 2, 2),
    depths=(2, 1, 3, 2),
)
TEACHER = dict(SMALL, teacher_depths=(1, 1, 2, 1))
# Every way to cluster, on a model that is small enough to run them all.
KINDS = dict(
    conv=dict(arch=SMALL, num_clusters=(5, 5, 5, 0)),
    mlp=dict(arch=SMALL, num_clusters=(5, 5, 5, 0), clustering='mlp'),
    linear=dict(arch=SMALL, num_clusters=(5, 5, 5, 0), clustering='linear'),
    blockwise=dict(arch=SMALL, num_clusters=5, cluster_interval=1),
    every2=dict(arch=SMALL, num_clusters=5, cluster_interval=2),
    mixed=dict(arch=SMALL, num_clusters=(5, 0, 3, 2), cluster_interval=(1, 0, 2, 0)),
    self_attention=dict(arch=SMALL, num_clusters=0),
    teacher=dict(arch=TEACHER, num_clusters=5),
    teacher_late=dict(arch=TEACHER, num_clusters=(0, 0, 5, 5)),
    teacher_unasked=dict(arch=TEACHER, num_clusters=0),
    optional=dict(
        arch=SMALL,
        num_clusters=5,
        layer_scale_init_value=0.5,
        cluster_pos_embed=True,
        sub_norm=True,
        pos_embed_size=64,
    ),
    post_norm=dict(arch=SMALL, num_clusters=5, post_norm=True),
)


def build(kind: str, **kwargs) -> PaCaViT:
    torch.manual_seed(0)
    return PaCaViT(**{**KINDS[kind], 'drop_path_rate': 0.0, **kwargs})


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('size', [(32, 32), (33, 47), (64, 101)])
@pytest.mark.parametrize('kind', KINDS)
def test_maps_have_the_ceiled_sizes_and_are_channels_last(kind, size):
    outs = build(kind).eval()(images(2, 3, *size))
    assert len(outs) == 4
    for i, out in enumerate(outs):
        step = 4 * 2**i
        expected = (2, SMALL['embed_dims'][i], -(-size[0] // step), -(-size[1] // step))
        assert tuple(out.shape) == expected
        assert out.isfinite().all()
        assert out.permute(0, 2, 3, 1).is_contiguous()
        # norm_i is the last thing a stage does: with its initial weights, every patch is
        # standardised over the channels.
        assert out.mean(1).abs().max() < 1e-5


@pytest.mark.parametrize('kind', KINDS)
def test_every_parameter_gets_a_gradient(kind):
    model = build(kind)
    sum(out.square().mean() for out in model(images(2, 3, 64, 64))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize('kind', KINDS)
def test_images_of_a_batch_do_not_mix(kind):
    model, x = build(kind).eval(), images(2, 3, 64, 48)
    for together, alone in zip(model(x), model(x[1:]), strict=True):
        torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('kind', ['conv', 'blockwise', 'teacher', 'optional'])
def test_activation_checkpointing_changes_no_number(kind):
    grads = []
    for with_cp in (False, True):
        model = build(kind, with_cp=with_cp).double()
        x = images(1, 3, 64, 64).double().requires_grad_()
        sum(out.sin().sum() for out in model(x)).backward()
        grads.append([x.grad] + [p.grad for p in model.parameters()])
    for plain, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, recomputed, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(
    ('interval', 'computing'),
    [(0, [0]), (1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (9, [0])],
)
def test_which_blocks_compute_an_assignment(interval, computing):
    arch = {key: values[:1] for key, values in SMALL.items()} | dict(depths=(5,))
    model = PaCaViT(arch, num_clusters=3, cluster_interval=interval, out_indices=(0,))
    blocks = model.stages[0].blocks
    assert [i for i, block in enumerate(blocks) if block.attn.clustering is not None] == computing


def test_reused_assignment_pools_the_later_blocks_own_patches():
    """Plain arithmetic for a stage of two blocks, with weights of its own."""
    arch = {key: values[:1] for key, values in SMALL.items()} | dict(depths=(2,))
    torch.manual_seed(3)
    model = PaCaViT(arch, num_clusters=4, out_indices=(0,), drop_path_rate=0.0).double().eval()
    for p in model.parameters():
        p.data.normal_(std=0.3)
    x = images(1, 3, 32, 40).double()
    stage = model.stages[0]
    h = model.stem(x)
    size = h.shape
    assignment = None
    for block in stage.blocks:
        n = block.norm1(h)
        if assignment is None:
            conv = block.attn.clustering
            logits = torch.nn.functional.conv2d(
                n.permute(0, 3, 1, 2).contiguous(),
                conv[0].weight,
                conv[0].bias,
                padding=3,
                groups=16,
            )
            for layer in (conv[2], conv[4]):
                logits = layer(torch.nn.functional.gelu(logits))
            assignment = torch.exp(logits.flatten(2))
            assignment = assignment / assignment.sum(-1, keepdim=True)
        n = n.flatten(1, 2)
        attn = block.attn
        clusters = attn.cluster_norm(torch.einsum('bmn,bnc->bmc', assignment, n))
        weights = torch.einsum('bnc,bmc->bnm', attn.q(n), attn.k(clusters)) / 16**0.5
        out = torch.einsum('bnm,bmc->bnc', weights.softmax(-1), attn.v(clusters))
        h = h + attn.proj(out).view(size)
        hidden = block.mlp.fc1(block.norm2(h))
        local = block.mlp.dwconv(hidden.permute(0, 3, 1, 2).contiguous()).permute(0, 2, 3, 1)
        h = h + block.mlp.fc2(torch.nn.functional.gelu(hidden + local))
    expected = stage.norm(h).permute(0, 3, 1, 2)
    torch.testing.assert_close(model(x)[0], expected, atol=1e-9, rtol=1e-9)


def test_an_attention_without_an_assignment_says_so():
    attention = PatchToClusterAttention(16, num_heads=2, num_clusters=3)  # a later block's
    with pytest.raises(ValueError, match='computes no assignment and none was given'):
        attention(images(1, 4, 5, 16))


def test_optional_parts_do_what_they_say():
    x = images(1, 3, 64, 64)
    plain = build('conv').eval()

    # A layer scale of zero switches all branches off: only stem, transitions and norms are left.
    off = build('conv', layer_scale_init_value=0.0).eval()
    h = off.stem(x)
    for stage, out in zip(off.stages, off(x), strict=True):
        h = stage.norm(h if stage.downsample is None else stage.downsample(h))
        torch.testing.assert_close(out, h.permute(0, 3, 1, 2))
    one = build('conv', layer_scale_init_value=1.0).eval()
    one.load_state_dict({**one.state_dict(), **plain.state_dict()})
    torch.testing.assert_close(one(x), plain(x))

    # A position embedding of the very size is added as it is, of another size resized to it.
    pos = build('conv', pos_embed_size=64).eval()
    pos.load_state_dict({**pos.state_dict(), **plain.state_dict()})
    assert [tuple(s.pos_embed.shape[2:]) for s in pos.stages] == [(16, 16), (8, 8), (4, 4), (2, 2)]
    assert not torch.allclose(pos(x)[0], plain(x)[0])
    for stage in pos.stages:
        stage.pos_embed.data.zero_()
    torch.testing.assert_close(pos(x), plain(x))
    assert pos(images(1, 3, 50, 70))[0].shape[2:] == (13, 18)

    # A zero position term of the clusters changes nothing, another one does.
    term = build('conv', cluster_pos_embed=True).eval()
    term.load_state_dict({**term.state_dict(), **plain.state_dict()})
    assert not torch.equal(term(x)[0], plain(x)[0])
    for block in term.stages[0].blocks:
        assert block.attn.cluster_pos_embed.shape == (5, 16)
        block.attn.cluster_pos_embed.data.zero_()
    torch.testing.assert_close(term(x)[0], plain(x)[0])

    # Post norm: the branch's output is normalised, the attention sees the block's raw input.
    post = build('post_norm').eval()
    seen = []
    block = post.stages[0].blocks[0]
    block.attn.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    post(x)
    torch.testing.assert_close(seen[0], post.stem(x))


def test_initialisation():
    torch.manual_seed(0)
    model = PaCaViT('tiny', cluster_pos_embed=True)
    block = model.stages[2].blocks[0]
    assert abs(block.mlp.fc1.weight.std().item() - 0.02) < 1e-3
    assert abs(block.attn.cluster_pos_embed.std().item() - 0.02) < 1e-3
    # Depthwise 3x3: fan_out is 9, whatever the number of channels.
    assert abs(block.mlp.dwconv.weight.std().item() - (2 / 9) ** 0.5) < 0.02
    assert abs(model.stages[1].downsample.conv.weight.std().item() - (2 / (9 * 192)) ** 0.5) < 1e-3
    for name, p in model.named_parameters():
        if name.endswith('bias'):
            assert not p.any(), name
        elif p.ndim == 1:
            assert (p == 1).all(), name


def test_drop_path_rises_linearly_over_all_blocks():
    rates = [
        block.drop_path.drop_prob
        for s in PaCaViT('tiny', drop_path_rate=0.9).stages
        for block in s.blocks
    ]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.9, 10))


def test_dropout_acts_in_training_only():
    model, x = build('conv', drop_rate=0.3, attn_drop_rate=0.3), images(1, 3, 64, 64)
    assert not torch.equal(model(x)[3], model(x)[3])
    torch.testing.assert_close(model.eval()(x), build('conv').eval()(x))


def test_train_and_eval_return_the_model():
    model = build('teacher', norm_eval=True)
    assert model.train() is model and model.eval() is model


@pytest.mark.parametrize('frozen', [-1, 0, 2, 3])
def test_frozen_stages_do_not_train(frozen):
    model = build('teacher', frozen_stages=frozen).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    x = images(2, 3, 64, 64).requires_grad_()  # with everything frozen it alone gets a gradient
    sum((out * images(*out.shape)).sum() for out in model(x)).backward()
    optimizer.step()
    for name, value in model.state_dict().items():
        # Constant, or a shift that a softmax takes away again: the gradient is zero.
        if name.endswith(('blur_filter', 'k.bias', 'to_clusters.bias')):
            continue
        owner, index = name.split('.')[0], name.split('.')[2 if name.startswith('teacher') else 1]
        is_frozen = frozen >= 0 if owner == 'stem' else int(index) <= frozen
        # BatchNorm's statistics count, too: a frozen stage's norms stay in eval mode.
        assert torch.equal(value, before[name]) == is_frozen, name


def test_norm_eval_keeps_batch_norm_statistics():
    for norm_eval in (False, True):
        model = build('teacher', norm_eval=norm_eval).train()
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        assert norms and all(m.training != norm_eval for m in norms)
        assert model.stages[0].training
        model(images(2, 3, 64, 64))
        assert all(bool(m.running_mean.any()) != norm_eval for m in norms)


def test_out_indices_select_and_stop_early():
    x = images(1, 3, 64, 64)
    everything = build('conv').eval()(x)
    some = build('conv', out_indices=(0, 2)).eval()
    some.stages[3].register_forward_pre_hook(lambda *_: pytest.fail('stage 4 is not needed'))
    for i, out in zip((0, 2), some(x), strict=True):
        assert torch.equal(out, everything[i])


@pytest.mark.parametrize('stride', [1, 2, 4])
def test_stem_strides(stride):
    outs = build('conv', stem_stride=stride, in_channels=1).eval()(images(1, 1, 32, 40))
    assert [o.shape[2:] for o in outs] == [
        (-(-32 // (stride * k)), -(-40 // (stride * k))) for k in (1, 2, 4, 8)
    ]


def test_bfloat16_autocast_is_close_to_float32():
    model, x = PaCaViT('tiny', drop_path_rate=0.0).eval(), images(1, 3, 96, 128)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = model(x)
    for a, b in zip(exact, rounded, strict=True):
        assert (a - b).abs().mean() < 0.02 * a.abs().mean()


def test_a_model_can_be_copied_and_built_twice():
    first, second = build('teacher'), build('teacher')
    x = images(1, 3, 64, 64)
    torch.testing.assert_close(first.eval()(x), second.eval()(x))
    torch.testing.assert_close(copy.deepcopy(first)(x), first(x))


def test_layer_depth():
    model = build('teacher')
    depth = {
        name: model.get_layer_depth(f'backbone.{name}', 'backbone.')
        for name, _ in model.named_parameters()
    }
    assert depth['stem.convs.0.weight'] == (0, 10)
    assert depth['stages.0.blocks.0.attn.q.weight'] == (1, 10)
    assert depth['stages.0.norm.weight'] == (2, 10)
    assert depth['stages.2.downsample.conv.weight'] == (4, 10)
    assert depth['stages.3.blocks.1.mlp.fc2.bias'] == (8, 10)
    assert depth['teacher.stages.1.blocks.0.norm1.weight'] == (3, 10)
    assert model.get_layer_depth('neck.x', 'backbone.') == (9, 10)
    assert {d for d, _ in depth.values()} == set(range(9))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(arch='huge'), "arch='huge' is unknown.*'tiny'.*'base_teacher'"),
        (dict(arch=dict(embed_dims=(8,))), "missing \\['num_heads', 'mlp_ratios', 'depths'\\]"),
        (dict(arch=dict(SMALL, heads=(1,))), "unknown \\['heads'\\]"),
        (dict(arch=dict(SMALL, depths=(1, 1))), 'one value per stage'),
        (dict(arch=dict(SMALL, embed_dims=96)), "'embed_dims': 'not a sequence'"),
        (
            dict(arch=dict(SMALL, num_heads=(3, 2, 2, 4))),
            'embed_dims=16 is not divisible by num_heads=3',
        ),
        (dict(clustering='kmeans'), "clustering='kmeans' is unknown.*'conv', 'mlp', 'linear'"),
        (dict(num_clusters=(100, 100)), 'num_clusters=\\(100, 100\\) must be 4 numbers'),
        (dict(num_clusters=(1, 1, 1, -1)), 'num_clusters'),
        (dict(cluster_interval=1.5), 'cluster_interval=1.5'),
        (dict(stem_stride=3), 'stem_stride=3 is not one of'),
        (dict(out_indices=(0, 4)), 'out_indices=\\(0, 4\\) must name stages of 0..3, ascending'),
        (dict(out_indices=(3, 1)), 'out_indices=\\(3, 1\\)'),
        (dict(out_indices=(1, 1)), 'out_indices=\\(1, 1\\)'),
        (dict(out_indices=3), 'out_indices=3'),
        (dict(frozen_stages=4), 'frozen_stages=4'),
        (dict(frozen_stages='1'), "frozen_stages='1' is not in -1..3"),
        (dict(pos_embed_size=-3), 'pos_embed_size=-3 must be > 0'),
        (dict(drop_path_rate=1.0), 'drop_path_rate=1.0 must be at least 0 and less than 1'),
        (dict(attn_drop_rate=-0.1), 'attn_drop_rate=-0.1'),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        PaCaViT(**arguments)


def test_every_published_variant_runs_on_meta_tensors():
    with torch.device('meta'):
        for arguments in VARIANTS.values():
            outs = PaCaViT(**arguments)(torch.empty(1, 3, 800, 1333))
            assert [o.shape[2:] for o in outs] == [(200, 334), (100, 167), (50, 84), (25, 42)]


@pytest.mark.parametrize(('arch', 'parameters'), [('nano', 996_480), ('micro', 3_051_760)])
def test_small_variants(arch, parameters):
    model = PaCaViT(arch)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.num_clusters == (49, 49, 49, 0)
    assert PaCaViT(arch, num_clusters=7).num_clusters == (7, 7, 7, 7)
    for dims, heads in zip(ARCHS[arch]['embed_dims'], ARCHS[arch]['num_heads'], strict=True):
        assert dims % heads == 0 and dims // heads % 8 == 0  # flash attention's kernels
