"""Model repositories say of the files what the files say."""

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from mmpaca.deploy.server import write_server

SHAPES = dict(boxes=(7, 4), scores=(7,), labels=(7,), masks=(7, 'height', 'width'))
TYPES = dict(boxes='FLOAT', scores='FLOAT', labels='INT64', masks='BOOL')


@pytest.fixture(scope='module')
def file(tmp_path_factory):
    """A file with the inputs and outputs of RTMDet-Ins, which gives nothing."""
    outputs, nodes, weights = [], [], []
    for name, shape in SHAPES.items():
        kind = getattr(TensorProto, TYPES[name])
        outputs.append(helper.make_tensor_value_info(name, kind, ['batch', *shape]))
        dims = [dim if isinstance(dim, int) else 5 for dim in shape]
        weights.append(helper.make_tensor(f'{name}_shape', TensorProto.INT64, [len(dims)], dims))
        nodes.append(
            helper.make_node('Concat', ['batch', f'{name}_shape'], [f'{name}_all'], axis=0)
        )
        zero = helper.make_tensor('zero', kind, [1], [0])
        nodes.append(helper.make_node('ConstantOfShape', [f'{name}_all'], [name], value=zero))
    nodes.insert(0, helper.make_node('Shape', ['image'], ['batch'], start=0, end=1))
    dims = ['batch', 'height', 'width', 3]
    image = helper.make_tensor_value_info('image', TensorProto.UINT8, dims)
    graph = helper.make_graph(nodes, 'mmpaca', [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    helper.set_model_props(model, {'mmpaca.classes': '["cat"]'})
    onnx.checker.check_model(model)
    path = tmp_path_factory.mktemp('server') / 'cats.onnx'
    onnx.save(model, path)
    return path


def parsed(text):
    """Ports of a config.pbtxt: name -> (side, type, dims)."""
    pattern = r'^(input|output) \{ name: "(\w+)" data_type: (\w+) dims: \[ (.+) \] \}$'
    return {
        name: (side, kind, [int(dim) for dim in dims.split(',')])
        for side, name, kind, dims in re.findall(pattern, text, re.MULTILINE)
    }


def check_triton(text):
    assert text.startswith('name: "cats"\n') and '\nmax_batch_size: 8\ndynamic_batching {' in text
    assert parsed(text) == dict(
        image=('input', 'TYPE_UINT8', [-1, -1, 3]),
        boxes=('output', 'TYPE_FP32', [7, 4]),
        scores=('output', 'TYPE_FP32', [7]),
        labels=('output', 'TYPE_INT64', [7]),
        masks=('output', 'TYPE_BOOL', [7, -1, -1]),
    )


def test_triton(file, tmp_path):
    write_server('triton', file, tmp_path / 'models')
    folder = tmp_path / 'models/cats'
    assert (folder / '1/model.onnx').read_bytes() == file.read_bytes()
    text = (folder / 'config.pbtxt').read_text()
    assert '\nplatform: "onnxruntime_onnx"\n' in text
    check_triton(text)
    with pytest.raises(FileExistsError, match='cats exists: delete it'):
        write_server('triton', file, tmp_path / 'models')


def test_openvino_model_server_keeps_its_models(file, tmp_path):
    write_server('ovms', file, tmp_path)
    other = file.with_name('others.onnx')
    other.write_bytes(file.read_bytes())
    write_server('ovms', other, tmp_path)
    assert (tmp_path / 'others/1/model.onnx').read_bytes() == file.read_bytes()
    assert json.loads((tmp_path / 'config.json').read_text()) == dict(
        model_config_list=[
            dict(config=dict(name=name, base_path=f'/models/{name}')) for name in ('cats', 'others')
        ]
    )


def test_errors(file, tmp_path):
    with pytest.raises(ValueError, match="server 'torchserve': choose one of triton, ovms"):
        write_server('torchserve', file, tmp_path)
    with pytest.raises(ValueError, match='model.pt: servers read files that end in .onnx or .xml'):
        write_server('triton', tmp_path / 'model.pt', tmp_path)
    (tmp_path / 'config.json').write_text('[]')
    with pytest.raises(ValueError, match='config.json: not a configuration of OpenVINO Model'):
        write_server('ovms', file, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['config.json']


def test_openvino_files(file, tmp_path):
    pytest.importorskip('openvino', reason='an extra of its own')
    from mmpaca.deploy.openvino import open_openvino, read_metadata, write_openvino

    path = tmp_path / 'cats.xml'
    write_openvino(file.read_bytes(), path)
    assert read_metadata(path) == {'mmpaca.classes': '["cat"]'}
    outputs = open_openvino(path, threads=1)(np.zeros((2, 6, 5, 3), np.uint8))
    assert {name: value.shape for name, value in outputs.items()} == dict(
        boxes=(2, 7, 4), scores=(2, 7), labels=(2, 7), masks=(2, 7, 5, 5)
    )
    write_server('triton', path, tmp_path / 'models')
    assert {p.name for p in (tmp_path / 'models/cats/1').iterdir()} == {'model.xml', 'model.bin'}
    text = (tmp_path / 'models/cats/config.pbtxt').read_text()
    assert '\nbackend: "openvino"\n' in text
    # What is constant in the graph is so in the file: OpenVINO knows more sizes.
    check_triton(text.replace('[ 7, 5, 5 ]', '[ 7, -1, -1 ]'))
