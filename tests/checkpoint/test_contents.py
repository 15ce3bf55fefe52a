"""Entries that OpenMMLab reads without looking: refused by name, whichever way they are used."""

import numpy as np
import pytest
import torch
from torch import nn

from mmpaca.checkpoint import load_from_local
from mmpaca.checkpoint.fitting import check_fit
from mmpaca.models.fitting import CheckpointError

WEIGHT = torch.ones(1, 2)
DAMAGED = {
    'state_dict is None': dict(state_dict=None),
    r'state_dict is \[1\]': dict(state_dict=[1]),
    'a name in state_dict is 1': dict(state_dict={1: WEIGHT}),
    r'state_dict.weight is array': dict(state_dict=dict(weight=np.ones(2))),
    'state_dict.weight is 5': dict(state_dict=dict(weight=5)),
    'meta is 5': dict(meta=5),
    'meta.dataset_meta is None': dict(meta=dict(dataset_meta=None)),
    'meta.dataset_meta is {1: 2}': dict(meta=dict(dataset_meta={1: 2})),
    'dataset_meta.classes is 5': dict(meta=dict(dataset_meta=dict(classes=5))),
    'element of meta.CLASSES is None': dict(meta=dict(CLASSES=[None])),
    'element of meta.dataset_meta.classes is .xx': dict(
        meta=dict(dataset_meta=dict(classes=['x' * 2000]))
    ),
}


@pytest.mark.parametrize('says', DAMAGED)
def test_entries_of_another_kind(tmp_path, says):
    torch.save(DAMAGED[says], tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=f'x.pth is damaged: .*{says}'):
        load_from_local(tmp_path / 'x.pth')


def test_what_modules_save_beside_tensors_is_loaded(tmp_path):
    weights = {'weight': WEIGHT, 'quantizer._extra_state': dict(bits=8)}
    torch.save(dict(state_dict=weights, meta=dict(CLASSES=('a',))), tmp_path / 'x.pth')
    assert load_from_local(tmp_path / 'x.pth')['state_dict']['quantizer._extra_state'] == {
        'bits': 8
    }


SPOILT = {
    'weight torch.int8 instead of torch.float32': WEIGHT.to(torch.int8),
    'weight torch.complex64 instead of torch.float32': WEIGHT.to(torch.complex64),
    'NaN or infinite values in 1 tensors: weight': WEIGHT * float('nan'),
    'infinite values in 1 tensors: weight': WEIGHT * float('inf'),
    'infinite values in 1 tensors: weigh': (WEIGHT * float('nan')).to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize('says', SPOILT)
def test_weights_that_give_no_predictions(says):
    model = nn.Linear(2, 1, bias=False)
    with pytest.raises(CheckpointError, match=says):
        check_fit(model, dict(state_dict=dict(weight=SPOILT[says])))


def test_weights_of_another_precision_and_masks_fit():
    model = nn.Linear(2, 1, bias=False)
    model.register_buffer('mask', torch.tensor([0, -float('inf')]))
    for kind in (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64):
        check_fit(model, dict(state_dict=dict(weight=WEIGHT.to(kind), mask=model.mask)))
