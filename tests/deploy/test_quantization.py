"""8-bit files: weights in 8 bits, nearly the same results, everything else as it was."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmpaca.deploy.quantization import quantize_onnx

RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (4 + k, 5, 3), np.uint8) for k in range(4)]


@pytest.fixture(scope='module')
def content():
    """A classifier: normalisation as a 1x1 convolution, a convolution, an attention, two linear layers."""
    weights = dict(
        scale=np.diag([1 / 255] * 3).reshape(3, 3, 1, 1),
        kernel=RNG.normal(size=(8, 3, 3, 3)) / 4,
        linear=RNG.normal(size=(8, 6)) / 4,
        last=RNG.normal(size=(6, 5)) / 4,
        shape=np.array([0, 8, -1]),
    )
    nodes = [
        helper.make_node('Cast', ['image'], ['real'], 'pre/cast', to=TensorProto.FLOAT),
        helper.make_node('Transpose', ['real'], ['planes'], 'pre/planes', perm=(0, 3, 1, 2)),
        helper.make_node('Conv', ['planes', 'scale'], ['input'], 'pre/scale'),
        helper.make_node('Conv', ['input', 'kernel'], ['maps'], 'net/conv'),
        helper.make_node('Reshape', ['maps', 'shape'], ['flat'], 'net/flat'),
        helper.make_node('Transpose', ['flat'], ['rows'], 'net/rows', perm=(0, 2, 1)),
        helper.make_node('MatMul', ['flat', 'rows'], ['products'], 'net/attention'),
        helper.make_node('MatMul', ['products', 'linear'], ['hidden'], 'net/linear'),
        helper.make_node('MatMul', ['hidden', 'last'], ['logits'], 'net/last'),
        helper.make_node('ReduceMean', ['logits', 'axis'], ['mean'], 'net/mean', keepdims=0),
        helper.make_node('Softmax', ['mean'], ['scores'], 'net/scores'),
    ]
    tensors = [
        numpy_helper.from_array(v if v.dtype == np.int64 else v.astype(np.float32), name)
        for name, v in dict(weights, axis=np.array([1])).items()
    ]
    image = helper.make_tensor_value_info('image', TensorProto.UINT8, ['batch', 'h', 'w', 3])
    scores = helper.make_tensor_value_info('scores', TensorProto.FLOAT, ['batch', 5])
    graph = helper.make_graph(nodes, 'mmpaca', [image], [scores], tensors)
    opset = helper.make_opsetid('', 20)
    model = helper.make_model(graph, opset_imports=[opset, opset], ir_version=10)
    helper.set_model_props(model, {'mmpaca.task': 'classification'})
    return model.SerializeToString()


def run(content, image):
    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    return session.run(None, {'image': image[None]})[0]


def test_onnx(content):
    quantized = quantize_onnx(content, iter(IMAGES))
    model = onnx.load_from_string(quantized)
    assert {p.key: p.value for p in model.metadata_props} == {'mmpaca.task': 'classification'}
    names = {weight.name: weight.data_type for weight in model.graph.initializer}
    assert names['kernel_quantized'] == names['linear_quantized'] == TensorProto.INT8
    # What stands before the network, and its last layer, keep their precision.
    assert names['scale'] == names['last'] == TensorProto.FLOAT
    inputs = {node.name: node.input for node in model.graph.node}
    assert [*inputs['net/attention']] == ['flat', 'rows']
    for image in IMAGES:
        given, expected = run(quantized, image), run(content, image)
        assert 0 < np.abs(given - expected).max() < 0.02


def test_no_images(content):
    with pytest.raises(ValueError, match='int8 needs images to calibrate on, and there are none'):
        quantize_onnx(content, [])


def test_openvino(content, tmp_path):
    pytest.importorskip('nncf', reason='an extra of its own')
    from mmpaca.deploy.openvino import open_openvino, read_metadata, write_openvino

    path = tmp_path / 'int8.xml'
    write_openvino(content, path, int8_images=IMAGES)
    text = path.read_text()
    assert text.count('type="FakeQuantize"') >= 2 and 'element_type="i8"' in text
    assert read_metadata(path) == {'mmpaca.task': 'classification'}
    execute = open_openvino(path, threads=1)
    for image in IMAGES:
        assert np.abs(execute(image[None])['scores'] - run(content, image)).max() < 0.06
