"""The loss for informative clusters: by hand, beside other losses, and its removal."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmpaca.engine.hooks import ClusterInformationHook
from mmpaca.engine.hooks.cluster_information_hook import information
from mmpaca.models import PaCaViT

ARCH = dict(embed_dims=(8,) * 4, num_heads=(1,) * 4, mlp_ratios=(1,) * 4, depths=(1,) * 4)


class Detector(nn.Module):
    """Losses or predictions of a backbone, as a detector returns them."""

    def __init__(self, **kwargs) -> None:
        super().__init__()
        self.backbone = PaCaViT(ARCH, drop_path_rate=0.0, **kwargs)

    def forward(self, image, mode='loss'):
        total = self.backbone(image)[-1][:, 0].sum()  # of all channels it would be 0
        return {'loss_cls': total} if mode == 'loss' else [total]


@pytest.fixture
def image():
    torch.manual_seed(0)
    return torch.rand(2, 3, 64, 64)


def test_information_by_hand():
    apart = torch.eye(4).repeat_interleave(3, dim=1)[None] / 3
    assert information(apart).item() == pytest.approx(1)
    assert information(apart[:, [0, 0, 0, 0]]).item() == pytest.approx(0, abs=1e-6)
    pairs = apart[:, [0, 0, 1, 1]]  # one bit of two
    assert information(torch.cat([apart, pairs])).item() == pytest.approx(0.75)
    z = torch.tensor([[[0.5, 0.5, 0], [0, 0.5, 0.5]]])
    expected = (0.25 * math.log(4) * 2 + 0.5 * math.log(2) - math.log(2)) / math.log(2)
    assert information(z).item() == pytest.approx(expected)


@pytest.mark.parametrize('with_cp', [False, True])
def test_loss_and_gradients(image, with_cp):
    model = Detector(num_clusters=(5, 5, 5, 0), with_cp=with_cp).train()
    found = []
    for stage in model.backbone.stages[:3]:
        stage.blocks[0].attn.register_forward_hook(lambda *call: found.append(call[2][1]))
    alone = model(image)['loss_cls']
    expected = 2 * torch.stack([1 - information(z) for z in found]).mean()
    weight = model.backbone.stages[0].blocks[0].attn.clustering[0].weight
    (plain,) = torch.autograd.grad(alone, weight, retain_graph=True)
    (added,) = torch.autograd.grad(expected, weight)

    hook = ClusterInformationHook(weight=2)
    hook.before_train(SimpleNamespace(model=model))
    for _ in range(2):  # nothing of the step before is left
        losses = model(image)
        torch.testing.assert_close(losses['loss_cls'], alone)
        torch.testing.assert_close(losses['loss_clusters'], expected)
        model.zero_grad()
        sum(losses.values()).backward()
        torch.testing.assert_close(weight.grad, plain + added)
    assert added.abs().max() > 0
    with torch.no_grad():
        assert len(model(image, mode='predict')) == 1

    hook.after_train(SimpleNamespace(model=model))
    assert set(model(image)) == {'loss_cls'}


def test_model_without_clusters():
    runner = SimpleNamespace(model=Detector(num_clusters=(0, 0, 0, 0)))
    with pytest.raises(ValueError, match='no block of the model computes clusters'):
        ClusterInformationHook().before_train(runner)
