"""Checkpoints load through mmengine, and none of them runs code."""

import argparse
import collections
import functools
import http.server
import importlib
import os
import random
import subprocess
import threading
import types
import urllib.error

import numpy as np
import pytest
import safetensors.torch
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint_with_prefix
from official import official_weights

from mmpaca.checkpoint import (
    UnsafeCheckpointError,
    convert_official,
    load_from_local,
    weights_of,
)
from mmpaca.checkpoint.loading import register_loaders
from mmpaca.checkpoint.safetensors import save_safetensors
from mmpaca.models import PaCaViT
from mmpaca.models.official import PREPROCESSING


def load(path):
    """As Runner, init_cfg and the inferencers load."""
    return CheckpointLoader.load_checkpoint(str(path), map_location='cpu', logger='silent')


def test_what_a_training_run_saves_comes_back(tmp_path):
    hub = MessageHub.get_instance('test_loading')
    for value in (1.0, 2.0, 4.5):
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', 3)
    saved = dict(
        message_hub=hub.state_dict(),
        meta=dict(
            seed=np.int64(3),
            best=np.float32(0.5),
            dataset_meta=dict(classes=('a',), palette=[(1, 2, 3)]),
        ),
        array=np.arange(6.0).reshape(2, 3),
        config=ConfigDict(lr=0.1),
        arguments=argparse.Namespace(epochs=3),
        optimizer=collections.OrderedDict(state={0: dict(step=torch.tensor(1.0))}),
        state_dict=dict(weight=torch.arange(3)),
    )
    torch.save(saved, tmp_path / 'epoch_1.pth')
    loaded = load(tmp_path / 'epoch_1.pth')
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert (
        history.mean() == 2.5
        and history.statistics('max') == 4.5
        and history.data[0].dtype == float
    )
    assert loaded['meta'] == saved['meta'] and type(loaded['meta']['best']) is np.float32
    assert np.array_equal(loaded['array'], saved['array'])
    assert loaded['config'] == dict(lr=0.1) and loaded['arguments'].epochs == 3
    assert torch.equal(loaded['state_dict']['weight'], torch.arange(3))


class Reduced:
    """Pickles as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def evil_state(tmp_path) -> dict:
    """A marker file is written if any of these is unpickled by Python's own rules."""
    command = f'touch {tmp_path}/executed'
    return dict(
        system=(Reduced(os.system, command), 'system'),
        evaluate=(Reduced(eval, f'__import__("os").system("{command}")'), 'eval'),
        other_method=(
            Reduced(getattr, HistoryBuffer, '__init__'),
            r'getattr\(HistoryBuffer,__init__\)',
        ),
        other_owner=(Reduced(getattr, ConfigDict, 'mean'), r'getattr\(ConfigDict,mean\)'),
        own_class=(types.SimpleNamespace(a=1), 'SimpleNamespace'),
        function=(os.getcwd, 'getcwd'),
        chain=(
            Reduced(getattr, Reduced(getattr, HistoryBuffer, 'mean'), '__globals__'),
            r'getattr\(mean,__globals__\)',
        ),
        instance=(
            Reduced(getattr, Reduced(HistoryBuffer), '__class__'),
            r'getattr\(HistoryBuffer,__class__\)',
        ),
        namespace=(Reduced(argparse.Namespace.__getattribute__, ConfigDict(), 'x'), 'object'),
        partial=(functools.partial(os.system, command), 'partial'),
        process=(Reduced(subprocess.Popen, command.split()), 'Popen'),
        imported=(Reduced(importlib.import_module, 'this'), 'import_module'),
        numpy=(Reduced(np.load, f'{tmp_path}/x.npy', None, True), 'load'),
    )


KINDS = (
    'system', 'evaluate', 'other_method', 'other_owner', 'own_class', 'function', 'chain',
    'instance', 'namespace', 'partial', 'process', 'imported', 'numpy',
)  # fmt: skip


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_other_objects_are_refused_by_name(tmp_path, kind, legacy):
    payload, name = evil_state(tmp_path)[kind]
    path = tmp_path / 'evil.pth'
    torch.save(
        dict(state_dict={}, payload=payload), path, _use_new_zipfile_serialization=not legacy
    )
    with pytest.raises(UnsafeCheckpointError, match=name) as error:
        load(path)
    assert str(path) in str(error.value)
    assert not (tmp_path / 'executed').exists()


def test_a_history_buffer_cannot_smuggle_other_methods(tmp_path):
    buffer = HistoryBuffer([1.0], [1])
    buffer.__dict__['statistics_methods'] = {
        'mean': Reduced(getattr, HistoryBuffer, 'register_statistics')
    }
    state = dict(buffer.__dict__)

    class Impostor:
        def __reduce__(self):
            return HistoryBuffer, (), state

    torch.save(dict(x=Impostor()), tmp_path / 'evil.pth')
    with pytest.raises(UnsafeCheckpointError, match='register_statistics'):
        load(tmp_path / 'evil.pth')


def test_all_objects_are_named(tmp_path):
    torch.save(dict(a=os.getcwd, b=types.SimpleNamespace()), tmp_path / 'two.pth')
    with pytest.raises(
        UnsafeCheckpointError,
        match='posix.getcwd, types.SimpleNamespace|types.SimpleNamespace, posix.getcwd',
    ):
        load(tmp_path / 'two.pth')


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(IsADirectoryError, match='is a folder: give a file in it'):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match='missing.pth'):
        load(tmp_path / 'missing.pth')
    torch.save(dict(weight=torch.zeros(10_000)), tmp_path / 'whole.pth')
    content = (tmp_path / 'whole.pth').read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / 'cut.pth').write_bytes(content[:size])
        with pytest.raises(RuntimeError, match='cut.pth.*is truncated'):
            load(tmp_path / 'cut.pth')
    (tmp_path / 'text.pth').write_text('Not Found')
    with pytest.raises(RuntimeError, match='text.pth.*no checkpoint'):
        load(tmp_path / 'text.pth')


@pytest.mark.parametrize(
    'wrap', [dict, lambda w: dict(state_dict=w, epoch=3), lambda w: dict(model=w)]
)
@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.'])
@pytest.mark.parametrize('given_prefix', [None, 'backbone.'])
def test_official_files_initialise_a_backbone(tmp_path, wrap, prefix, given_prefix):
    """As init_cfg, with mmdet's habit of a prefix or without it."""
    official = official_weights('tiny_conv')
    torch.save(wrap({prefix + k: v for k, v in official.items()}), tmp_path / 'official.pth')
    init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'official.pth'), prefix=given_prefix
    )
    model = PaCaViT('tiny', init_cfg=init_cfg)
    model.init_weights()
    given = model.state_dict()
    for name, value in convert_official(official).items():
        assert torch.equal(given.pop(name), value), name
    assert not given


def test_missing_or_foreign_init_cfg_raises(tmp_path):
    torch.save({'layer1.0.conv1.weight': torch.zeros(1)}, tmp_path / 'resnet.pth')
    for name, error in (('nowhere.pth', FileNotFoundError), ('resnet.pth', RuntimeError)):
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / name))
        with pytest.raises(error):
            PaCaViT('tiny', init_cfg=init_cfg).init_weights()


def test_other_files_keep_their_names(tmp_path):
    torch.save(dict(state_dict={'backbone.conv.weight': torch.ones(1)}), tmp_path / 'other.pth')
    assert load(tmp_path / 'other.pth')['state_dict'] == {'backbone.conv.weight': torch.ones(1)}
    assert _load_checkpoint_with_prefix('backbone.', str(tmp_path / 'other.pth')) == {
        'conv.weight': torch.ones(1)
    }
    torch.save(official_weights('tiny_conv'), tmp_path / 'official.pth')
    assert 'stage1.0.attn.q.weight' in load_from_local(tmp_path / 'official.pth', rename=False)


def test_urls_are_loaded_as_carefully(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    (tmp_path / 'www').mkdir()
    torch.save(official_weights('tiny_conv'), tmp_path / 'www/official.pth')
    torch.save(dict(x=os.getcwd), tmp_path / 'www/evil.pth')

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / 'www'))

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/'
    try:
        assert 'backbone.stem.norm.weight' in load(url + 'official.pth')['state_dict']
        with pytest.raises(UnsafeCheckpointError, match='getcwd'):
            load(url + 'evil.pth')
        with pytest.raises(urllib.error.URLError, match='ot found: .*/no.pth cannot be downloaded'):
            load(url + 'no.pth')
    finally:
        server.shutdown()


def test_trust_is_explicit(tmp_path):
    """And for the time being only: the tools ask for it once per process."""
    torch.save(dict(x=Reduced(os.system, f'touch {tmp_path}/executed')), tmp_path / 'evil.pth')
    try:
        register_loaders(trust=True)
        load(tmp_path / 'evil.pth')
    finally:
        register_loaders()
    assert (tmp_path / 'executed').exists()
    with pytest.raises(UnsafeCheckpointError, match='--trust-checkpoint'):
        load(tmp_path / 'evil.pth')


def test_flipped_bits_raise_or_load_but_never_run(tmp_path):
    """Whatever bytes there are, it is one of the errors that say which file."""
    saved = dict(state_dict=dict(a=torch.arange(50.0)), meta=dict(epoch=1, names=['x'] * 9))
    torch.save(saved, tmp_path / 'whole.pth')
    whole = (tmp_path / 'whole.pth').read_bytes()
    rng = random.Random(0)
    raised = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        (tmp_path / 'flipped.pth').write_bytes(content)
        try:
            load(tmp_path / 'flipped.pth')
        except (RuntimeError, UnsafeCheckpointError) as error:
            assert 'flipped.pth' in str(error)
            raised += 1
    assert raised > 50


def test_safetensors(tmp_path, tool):
    official = official_weights('tiny_conv')
    meta = dict(cfg='a = 1', dataset_meta=dict(classes=('a', 'b')), epoch=3, seed=5)
    torch.save(dict(model=official, meta=meta), tmp_path / 'official.pth')
    printed = tool('converters/to_safetensors.py', 'official.pth')
    assert f'wrote {len(official)} tensors to official.safetensors' in printed
    loaded = load(tmp_path / 'official.safetensors')
    kept = dict(cfg='a = 1', dataset_meta=dict(classes=['a', 'b']), epoch=3)
    assert loaded['meta'] == dict(kept, data_preprocessor=PREPROCESSING)
    expected = load(tmp_path / 'official.pth')['state_dict']
    assert loaded['state_dict'].keys() == expected.keys()
    assert all(torch.equal(value, expected[k]) for k, value in loaded['state_dict'].items())
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'official.safetensors'))
    model = PaCaViT('tiny', init_cfg=init_cfg)
    model.init_weights()
    assert torch.equal(model.stem.norm.weight, expected['backbone.stem.norm.weight'])

    content = (tmp_path / 'official.safetensors').read_bytes()
    for size in (0, 5, 100, len(content) - 1):
        (tmp_path / 'cut.safetensors').write_bytes(content[:size])
        with pytest.raises(RuntimeError, match='cut.safetensors .* is truncated'):
            load(tmp_path / 'cut.safetensors')


def test_safetensors_of_shared_memory(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    save_safetensors(dict(a=weight, b=weight.t()), {}, tmp_path / 'x.safetensors')
    loaded = load(tmp_path / 'x.safetensors')['state_dict']
    assert torch.equal(loaded['a'], weight) and torch.equal(loaded['b'], weight.t())


def test_models_that_mmengine_knows_by_name_are_loaded_as_carefully(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'open_mmlab.json').write_text('{"own": "own.pth"}')
    files = {
        'torchvision://resnet18': 'checkpoints/resnet18-f37072fd.pth',
        'modelzoo://resnet18': 'checkpoints/resnet18-f37072fd.pth',
        'open-mmlab://vgg16_caffe': 'checkpoints/vgg16_caffe-292e1171.pth',
        'openmmlab://own': 'own.pth',
        'mmcls://vgg11': 'checkpoints/vgg11_batch256_imagenet_20210208-4271cd6c.pth',
    }
    for name, file in files.items():
        torch.save(dict(x=Reduced(os.system, f'touch {tmp_path}/executed')), tmp_path / file)
        with pytest.raises(UnsafeCheckpointError, match='system'):
            load(name)
        torch.save({'backbone.a': torch.ones(1), 'head.b': torch.ones(1)}, tmp_path / file)
        loaded = load(name)
        if name.startswith('mmcls'):
            assert loaded == dict(state_dict=dict(a=torch.ones(1)))
        else:
            assert loaded.keys() == {'backbone.a', 'head.b'}
    assert not (tmp_path / 'executed').exists()
    with pytest.raises(ValueError, match=r"torchvision://resnet19 .* no 'resnet19' \(resnet1"):
        load('torchvision://resnet19')
    torch.save(os.getcwd, tmp_path / 'checkpoints/resnet50_caffe-788b5fa3.pth')
    now = 'is now called open-mmlab://detectron/resnet50_caffe'
    with pytest.warns(UserWarning, match=now), pytest.raises(UnsafeCheckpointError):
        load('open-mmlab://resnet50_caffe')


@pytest.mark.parametrize('scheme', ['s3', 'petrel', 'cluster:s3', 'cluster:petrel', 'pavi'])
def test_object_stores_are_refused(scheme):
    with pytest.raises(ValueError, match=f'{scheme}://a/b.pth is not loaded: .* local path'):
        load(f'{scheme}://a/b.pth')


def test_no_loader_of_mmengine_is_left():
    schemes = CheckpointLoader._schemes
    assert {loader.__module__ for loader in schemes.values()} == {'mmpaca.checkpoint.loading'}
    assert len(schemes) == 11


def test_a_file_without_weights():
    with pytest.raises(RuntimeError, match='this file is a list'):
        weights_of([1])


def test_what_safetensors_can_say_of_a_dataset(tmp_path):
    classes = dict(classes={'b', 'a'}, palette=np.arange(3))
    save_safetensors({}, dict(dataset_meta=classes), tmp_path / 'x.safetensors')
    meta = load(tmp_path / 'x.safetensors')['meta']
    assert meta == dict(dataset_meta=dict(classes=['a', 'b'], palette=[0, 1, 2]))
    with pytest.raises(TypeError, match=r'holds a range, range\(0, 3\), .* out of dataset_meta'):
        save_safetensors({}, dict(dataset_meta=dict(ids=range(3))), tmp_path / 'x.safetensors')


@pytest.mark.parametrize(
    'meta', ['[' * 100_000, '[1]', '{', '1'], ids=('deep', 'list', 'cut', 'number')
)
def test_a_safetensors_file_with_other_metadata(tmp_path, meta):
    safetensors.torch.save_file({'a': torch.ones(1)}, tmp_path / 'x.safetensors', dict(meta=meta))
    with pytest.raises(RuntimeError, match='x.safetensors .* no safetensors file'):
        load(tmp_path / 'x.safetensors')


def test_a_safetensors_header_is_bounded_by_the_file(tmp_path):
    header = b'{"a":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'
    content = len(header).to_bytes(8, 'little') + header + bytes(100)
    (tmp_path / 'x.safetensors').write_bytes(content)
    with pytest.raises(RuntimeError, match='x.safetensors'):
        load(tmp_path / 'x.safetensors')
    (tmp_path / 'x.safetensors').write_bytes((2**62).to_bytes(8, 'little') + header)
    with pytest.raises(RuntimeError, match='x.safetensors'):
        load(tmp_path / 'x.safetensors')
