"""Swin Transformers that torch.export traces compute what mmdet's and mmseg's do."""

import copy
import importlib

import pytest
import torch

from mmpaca.deploy.onnx_file import trace
from mmpaca.deploy.swin import Merging, Padding, Windows, make_traceable

SMALL = dict(embed_dims=8, depths=(1, 2), num_heads=(1, 2), strides=(4, 2), out_indices=(0, 1))
SIZES = ((103, 167), (64, 96), (112, 56), (33, 20), (4, 4))  # of windows, smaller, and with a rest


@pytest.fixture(params=['mmdet', 'mmseg'])
def swin(request):
    pytest.importorskip(request.param)
    module = importlib.import_module(f'{request.param}.models.backbones.swin')
    torch.manual_seed(0)
    model = module.SwinTransformer(**SMALL).double()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model.eval()
    return model


def traceable(model: torch.nn.Module) -> torch.nn.Module:
    ours = make_traceable(copy.deepcopy(model))
    kinds = [type(part) for part in ours.modules()]
    assert [kinds.count(kind) for kind in (Windows, Merging, Padding)] == [3, 1, 1]
    return ours


def test_the_same_maps(swin):
    ours = traceable(swin)
    for size in SIZES:
        images = torch.randn(2, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            for found, expected in zip(ours(images), swin(images), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_traced_for_any_size():
    from mmdet.models import SwinTransformer

    class Maps(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, image, scale):
            return self.model(image * scale[0])

    torch.manual_seed(0)
    model = SwinTransformer(**SMALL, window_size=28)  # as many windows at stride 8 as 7 has at 32
    model.eval()
    traced = trace(Maps(traceable(model))).module(check_guards=False)
    for batch, size in ((1, (64, 96)), (3, (35, 150)), (1, (300, 500))):
        images = torch.randn(batch, 3, *size)
        with torch.no_grad():
            for found, expected in zip(traced(images, torch.ones(4)), model(images), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
