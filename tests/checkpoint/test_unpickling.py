"""What the stand-ins refuse, and what they rebuild."""

import argparse
import collections
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer

from mmpaca.checkpoint import UnsafeCheckpointError, limits, load_from_local, unpickling


class Built:
    """Pickles as a call, then a state."""

    def __init__(self, function, *args, state=None):
        self.call = (function, args) if state is None else (function, args, state)

    def __reduce__(self):
        return self.call


def saved(path, content, legacy=False, loads=load_from_local):
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return loads(path)


INTERFACE = dict(data=(0x41414141, True), shape=(4,), typestr='<f8', version=3)
RECONSTRUCT = np.array(0.0).__reduce__()[0]
EMPTY = (np.ndarray, (0,), b'b')
ARRAY_STATE = (1, (4,), np.dtype('f8'), False, bytes(32))
SCALAR = np.float64(0.0).__reduce__()[0]


def array(*state):
    return Built(RECONSTRUCT, *EMPTY, state=state)


def tensor(*arguments, function=torch._utils._rebuild_tensor_v2):
    return Built(function, torch.ones(4).storage(), *arguments)


HOOKS = collections.OrderedDict()
ATTACKS = {
    'array of pointers': (Built(np.ndarray, (4,), 'O', bytes(32)), 'a call of numpy.ndarray'),
    'object state': (array(1, (4,), np.dtype('O'), False, [1]), r"numpy.dtype\('O8?'\)"),
    'object type': (Built(np.dtype, 'O'), r"numpy.dtype\('O'\)"),
    'void type': (Built(np.dtype, 'V8'), r"numpy.dtype\('V8'\)"),
    'structured type': (np.zeros(2, 'i4,i4'), r"numpy.dtype\('V8'\)"),
    'type by list': (Built(np.dtype, [('a', 'O')]), r'numpy.dtype'),
    'fields in a state': (
        Built(np.dtype, 'f8', False, True, state=(3, '<', None, ('a',), {'a': 1}, 8, 8, 0)),
        'numpy.dtype with fields',
    ),
    'uninitialised array': (Built(np.ndarray, (1000,)), 'a call of numpy.ndarray'),
    'uninitialised shape': (Built(RECONSTRUCT, np.ndarray, (1000,), b'b'), 'numpy.ndarray'),
    'scalar too short': (Built(SCALAR, np.dtype('f8'), b'1'), 'numpy scalar of 1 bytes'),
    'history of an address': (
        Built(HistoryBuffer, ConfigDict(), [1] * 4),
        'a call of mmengine.logging.history_buffer.HistoryBuffer',
    ),
    'history state of text': (
        Built(HistoryBuffer, state=dict(_log_history=['a'], _count_history=[1])),
        'HistoryBuffer with',
    ),
    'history that is a dict': (
        Built(HistoryBuffer, state=dict(_log_history={}, _count_history={})),
        'HistoryBuffer with',
    ),
    'history attribute': (
        Built(
            HistoryBuffer, state=dict(_log_history=[], _count_history=[], __array_interface__=INTERFACE)
        ),
        'HistoryBuffer with',
    ),
    'interface of a Namespace': (
        Built(argparse.Namespace, state=dict(__array_interface__=INTERFACE)),
        'argparse.Namespace with',
    ),
    'state of a function': (Built(getattr, HistoryBuffer, 'min', state={'a': 1}), 'a state of Allowed'),
    'uninitialised tensor': (Built(torch.Tensor, 1000), 'a call of torch.Tensor'),
    'bytearray by size': (Built(bytearray, 10**9), 'builtins.bytearray'),
    'sparse tensor': (torch.eye(3).to_sparse(), '_rebuild_sparse_tensor'),
    'quantised tensor': (
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        '_rebuild_qtensor',
    ),
    'meta tensor': (torch.ones(2, device='meta'), '_rebuild_meta_tensor_no_storage'),
    'grad that is no bool': (tensor(0, (4,), (1,), 'a', HOOKS), 'tensor with'),
    'negative offset': (tensor(-1, (4,), (1,), False, HOOKS), 'tensor with'),
    'negative size': (tensor(0, (-4,), (1,), False, HOOKS), 'tensor with'),
}  # fmt: skip


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('kind', ATTACKS)
def test_attacks_are_refused_by_name(tmp_path, kind, legacy):
    content, name = ATTACKS[kind]
    with pytest.raises(UnsafeCheckpointError, match=name):
        saved(tmp_path / 'evil.pth', dict(x=content), legacy)


BROKEN = {
    'buffer too short': array(1, (5,), np.dtype('f8'), False, bytes(32)),
    'overflowing shape': array(1, (2**40, 2**40), np.dtype('f8'), False, b''),
    'tensor beyond its storage': tensor(0, (5,), (1,), False, HOOKS),
    'tensor with a wide stride': tensor(0, (2,), (4,), False, HOOKS),
    'tensor of another type': tensor(
        0, (4,), (1,), False, HOOKS, torch.float64, function=torch._utils._rebuild_tensor_v3
    ),
    'expanded without bound': tensor(0, (2**40,), (0,), False, HOOKS),
    'deep key': None,
}


@pytest.mark.parametrize('kind', BROKEN)
def test_sizes_that_do_not_match_are_refused_before_memory_is_taken(tmp_path, kind):
    content = BROKEN[kind]
    if kind == 'deep key':
        content = {((('a',),),): 1}
    tracemalloc.start()
    with pytest.raises((RuntimeError, UnsafeCheckpointError), match='evil.pth'):
        saved(tmp_path / 'evil.pth', dict(x=content))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_an_array_cannot_change_once_it_is_used(tmp_path):
    first = array(*ARRAY_STATE)
    pickled = pickle.dumps(first, 2)
    assert pickled.endswith(b'b.')
    state = pickled[pickled.index(b'(') : -1]  # as long as the memo's numbers stay
    path = repacked(tmp_path, {'data.pkl': pickled[:-1] + state + b'.'})
    with pytest.raises(UnsafeCheckpointError, match='numpy.ndarray that changes'):
        load_from_local(path)


def repacked(tmp_path, changes, compression=zipfile.ZIP_STORED):
    """A whole checkpoint with other records."""
    torch.save(dict(state_dict=dict(a=torch.zeros(1000))), tmp_path / 'whole.pth')
    path = tmp_path / 'evil.pth'
    with zipfile.ZipFile(tmp_path / 'whole.pth') as old, zipfile.ZipFile(path, 'w') as new:
        names = [name.partition('/')[2] for name in old.namelist()]
        for name in dict.fromkeys([*names, *changes]):
            content = changes[name] if name in changes else old.read(f'whole/{name}')
            new.writestr(f'whole/{name}', content, compression)
    return path


def test_archives_are_what_torch_writes(tmp_path):
    assert load_from_local(repacked(tmp_path, {}))['state_dict']['a'].shape == (1000,)
    attacks = {
        'compressed': repacked(tmp_path, {}, zipfile.ZIP_DEFLATED).read_bytes(),
        'TorchScript': repacked(tmp_path, {'constants.pkl': b''}).read_bytes(),
        'storage 0 has 8000 bytes': repacked(tmp_path, {'data/0': bytes(8000)}).read_bytes(),
        'storage 0 has 40 bytes': repacked(tmp_path, {'data/0': bytes(40)}).read_bytes(),
    }
    for says, content in attacks.items():
        (tmp_path / 'evil.pth').write_bytes(content)
        with pytest.raises(RuntimeError, match=f'evil.pth .*{says}'):
            load_from_local(tmp_path / 'evil.pth')


def pickled(tmp_path, body, storage=bytes(16)):
    """A checkpoint with a pickle of one's own."""
    return repacked(tmp_path, {'data.pkl': b'\x80\x02' + body + b'.', 'data/0': storage})


def number(value):
    return b'J' + struct.pack('<i', value)


def large(value):
    """A number of up to 255 bytes."""
    content = pickle.encode_long(value)
    return b'\x8a' + bytes([len(content)]) + content


TEXT = b'X' + struct.pack('<I', 2**20) + b'a' * 2**20 + b'q\x01'
COPY = b'cbuiltins\nbytearray\nq\x02h\x01\x85R'
TIMES = b'h\x02h\x01\x85R'
KEYS = b''.join(number(i) + b'N' for i in range(1000))
AMPLIFIED = {
    'copies of bytes': b'(' + TEXT + COPY + TIMES * 1000 + b't',
    'copies of a dict': b'(}('
    + KEYS
    + b'uq\x01ccollections\nOrderedDict\nq\x02'
    + TIMES * 1000
    + b't',
    'opcodes': b'(' + b'N' * 10000 + b't',
    'long key': b'}(' + b'K\x01' * 1000 + b'tNs',
    'keys of one hash': b'}(' + b''.join(large((2**61 - 1) * i + 7) + b'N' for i in (1, 2)) + b'u',
    'pairs of one hash': b'}(' + large(1) + large(2**62) + b'\x86Nu',
}


@pytest.mark.parametrize('kind', AMPLIFIED)
def test_small_files_take_little_time_and_memory(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(limits, '_FREE', 2**20)
    monkeypatch.setattr(unpickling, 'MAX_OPCODES', 10000)
    tracemalloc.start()
    path = pickled(tmp_path, AMPLIFIED[kind])
    tracemalloc.reset_peak()
    with pytest.raises(RuntimeError, match='evil.pth .*(it makes objects|opcodes|as a key)'):
        load_from_local(path)
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()


def test_nested_configs_do_not_multiply(tmp_path):
    body = b'}q\x01' + b''.join(
        b'}(X\x01\0\0\0a%sX\x01\0\0\0b%suq%c' % (old, old, i + 1)
        for i in range(1, 60)
        for old in [b'h%c' % i]
    )
    name = b'cmmengine.config.config\nConfigDict\n'
    value = load_from_local(pickled(tmp_path, b'(' + body + name + b'h<\x85Rt'))[-1]
    for _ in range(59):
        assert value.keys() == {'a', 'b'}
        value = value['a']
    assert value == {}


def test_a_storage_without_values_is_refused(tmp_path):
    """Of the old format: torch would return what was in memory before."""
    saved(tmp_path / 'old.pth', dict(a=torch.ones(1000)), legacy=True)
    content = (tmp_path / 'old.pth').read_bytes()
    (tmp_path / 'old.pth').write_bytes(content[: content.rindex(b'\x80\x02]')] + b'\x80\x02].')
    with pytest.raises(RuntimeError, match='old.pth .*(storage without values|larger than)'):
        load_from_local(tmp_path / 'old.pth')


@pytest.mark.parametrize('legacy', [False, True])
def test_booleans_are_0_or_1(tmp_path, legacy):
    values = torch.ones(64, dtype=torch.bool)
    saved(tmp_path / 'x.pth', dict(a=values), legacy)
    content = (tmp_path / 'x.pth').read_bytes().replace(b'\1' * 64, b'\1' * 63 + b'\2')
    (tmp_path / 'x.pth').write_bytes(content)
    torch.serialization.set_crc32_options(False)
    try:
        with pytest.raises(RuntimeError, match='x.pth .*(boolean of value 2|checksum)'):
            load_from_local(tmp_path / 'x.pth')
    finally:
        torch.serialization.set_crc32_options(True)


def test_torch_and_python_read_one_directory_of_an_archive(tmp_path):
    """Python looks before the end for it, torch at the place that is stated there."""
    content = repacked(tmp_path, {}).read_bytes()
    end = len(content) - 22
    start = struct.unpack('<L', content[end + 16 : end + 20])[0]
    prefix = content[:start] + content[start:end]
    attacks = {
        'two directories': prefix + content[start:],
        'comment': content[:-2] + struct.pack('<H', 30) + b'PK\5\6' + bytes(26),
        'not the stated one': content[: end + 16] + struct.pack('<L', start + 1) + b'\0\0',
    }
    for attack in attacks.values():
        (tmp_path / 'evil.pth').write_bytes(attack)
        with pytest.raises(RuntimeError, match='evil.pth'):
            load_from_local(tmp_path / 'evil.pth')


def test_a_flipped_bit_in_a_weight_is_found(tmp_path):
    torch.save(dict(a=torch.ones(1000)), tmp_path / 'x.pth')
    content = bytearray((tmp_path / 'x.pth').read_bytes())
    content[content.index(torch.ones(9).numpy().tobytes()) + 3] ^= 0x40
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(RuntimeError, match='x.pth .*data/0 does not have its checksum'):
        load_from_local(tmp_path / 'x.pth')


def test_a_storage_of_the_old_format_is_bounded_by_the_file(tmp_path):
    saved(tmp_path / 'old.pth', dict(a=torch.ones(1000)), legacy=True)
    content = (tmp_path / 'old.pth').read_bytes()
    declared = (1000).to_bytes(2, 'little')
    place = content.index(b'M' + declared)
    large = content[:place] + b'J' + (2**31 - 1).to_bytes(4, 'little') + content[place + 3 :]
    (tmp_path / 'old.pth').write_bytes(large)
    with pytest.raises(RuntimeError, match='8589934588 bytes is larger than the file'):
        load_from_local(tmp_path / 'old.pth')


@pytest.mark.parametrize('legacy', [False, True])
def test_what_is_whole_comes_back_equal(tmp_path, legacy):
    base = torch.arange(12.0).reshape(3, 4)
    model = torch.nn.BatchNorm1d(2)
    tagged = torch.ones(2)
    tagged.note = 'x'
    shared = [1, 2]
    content = dict(
        views=(base, base.t(), base[1], base[:0], base[0].expand(5, 4)),
        kinds={str(t): torch.ones(2).to(t) for t in (torch.bool, torch.bfloat16, torch.int64)},
        complex_=torch.tensor([1 + 2j]).conj(),
        parameter=torch.nn.Parameter(torch.ones(2)),
        tagged=tagged,
        arrays=[
            np.arange(6, dtype='>i2').reshape(2, 3).T, np.zeros((0, 3)), np.array(2.5),
            np.array([True, False]), np.float16(1.5), np.int64(-3),
        ],
        type_=np.dtype('>f4'), size=torch.Size((2, 3)), device=torch.device('cuda', 1),
        plain=[b'', b'\xff', {1, 'a'}, 1 - 2j, bytearray(b'ab'), 10**30, None, 1.5, True],
        counter=collections.Counter('aab'),
        shared=[shared, shared],
        state_dict=model.state_dict(),
        dtype=torch.float16,
    )  # fmt: skip
    loaded = saved(tmp_path / 'x.pth', content, legacy)
    for old, new in zip(content['views'], loaded['views'], strict=True):
        assert torch.equal(old, new) and old.stride() == new.stride()
    assert loaded['views'][0].data_ptr() == loaded['views'][1].data_ptr()
    for old, new in zip(content['arrays'], loaded['arrays'], strict=True):
        old = pickle.loads(pickle.dumps(old))  # numpy itself swaps bytes
        assert np.array_equal(old, new) and old.dtype == new.dtype and old.shape == new.shape
        assert type(old) is type(new)
    for name, value in content['kinds'].items():
        assert (
            torch.equal(value, loaded['kinds'][name]) and value.dtype == loaded['kinds'][name].dtype
        )
    assert torch.equal(loaded['complex_'], content['complex_'])
    assert isinstance(loaded['parameter'], torch.nn.Parameter) and loaded['parameter'].requires_grad
    assert torch.equal(loaded['tagged'], torch.ones(2))
    for name in ('type_', 'size', 'device', 'plain', 'counter', 'dtype'):
        assert loaded[name] == content[name], name
    assert loaded['shared'][0] is loaded['shared'][1]
    assert loaded['state_dict']._metadata == model.state_dict()._metadata
    model.load_state_dict(loaded['state_dict'])


def test_a_config_comes_back_as_plain_dicts(tmp_path):
    """numpy reads any address that an attribute of a ConfigDict names."""
    loaded = saved(tmp_path / 'x.pth', ConfigDict(a=[dict(__array_interface__=INTERFACE)]))
    assert loaded == {'a': [{'__array_interface__': INTERFACE}]}
    assert type(loaded) is dict and type(loaded['a'][0]) is dict


def test_types_of_both_byte_orders_stay_apart(tmp_path):
    arrays = [np.arange(3, dtype=kind) for kind in ('<f8', '>f8')]
    arrays += [array + 1 for array in arrays]
    loaded = saved(tmp_path / 'x.pth', [arrays[i] for i in (0, 1, 0, 2, 3)])
    assert [array.tolist() for array in loaded] == [
        [0, 1, 2], [0, 1, 2], [0, 1, 2], [1, 2, 3], [1, 2, 3],
    ]  # fmt: skip


def test_an_optimizer_and_its_history_come_back(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    history = HistoryBuffer([1, 2.5], [1, 1])
    loaded = saved(tmp_path / 'x.pth', dict(optimizer=optimizer.state_dict(), history=history))
    state = optimizer.state_dict()
    assert loaded['optimizer']['param_groups'] == state['param_groups']
    for name, value in state['state'][0].items():
        assert torch.equal(loaded['optimizer']['state'][0][name], value)
    history = loaded['history']
    history.update(4)
    assert history.statistics('mean') == 2.5 and history.statistics('current') == 4


def test_torchs_own_switch_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    with pytest.raises(RuntimeError, match='x.pth .* unset TORCH_FORCE_WEIGHTS_ONLY_LOAD'):
        saved(tmp_path / 'x.pth', dict(a=1))
