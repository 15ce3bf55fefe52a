"""ONNX files with the inputs, outputs and metadata of `mmpaca export`, and fixed detections."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BOXES = np.array([[2, 3, 12, 13], [8.5, 1, 19, 9.25], [0, 0, 0, 0]], np.float32)
SCORES = np.array([0.9, 0.4, 0], np.float32)  # times the brightest value of the image over 255
LABELS = np.array([1, 0, -1])
MASKS = np.zeros((3, 4, 4), np.float32)
MASKS[0, 1:3, 1:3] = 1
MASKS[1] = 1
METADATA = dict(
    format='1',
    task='instance',
    classes=json.dumps(['cat', 'dog']),
    mask_thr='0.5',
    mask_type='box',
)
OUTPUTS = dict(boxes=BOXES, scores=SCORES, labels=LABELS, masks=MASKS)


def make_model(outputs=OUTPUTS, **metadata) -> onnx.ModelProto:
    """Return a model with these outputs for every image of a batch."""
    nodes = [
        helper.make_node('Cast', ['image'], ['real'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMax', ['real', 'axes'], ['most'], keepdims=0),
        helper.make_node('Div', ['most', 'limit'], ['factors']),
        helper.make_node('Shape', ['image'], ['batch'], start=0, end=1),
    ]
    weights = [
        numpy_helper.from_array(np.array([1, 2, 3]), 'axes'),
        numpy_helper.from_array(np.array(255, np.float32), 'limit'),
        numpy_helper.from_array(np.array([-1, 1]), 'column'),
    ]
    infos = []
    for name, value in outputs.items():
        weights.append(numpy_helper.from_array(value[None], f'{name}_value'))
        weights.append(numpy_helper.from_array(np.array(value.shape), f'{name}_shape'))
        repeated = f'{name}_all' if name == 'scores' else name
        nodes.append(
            helper.make_node('Concat', ['batch', f'{name}_shape'], [f'{name}_full'], axis=0)
        )
        nodes.append(helper.make_node('Expand', [f'{name}_value', f'{name}_full'], [repeated]))
        dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
        infos.append(helper.make_tensor_value_info(name, dtype, ['batch', *value.shape]))
    if 'scores' in outputs:
        nodes.append(helper.make_node('Reshape', ['factors', 'column'], ['by_image']))
        nodes.append(helper.make_node('Mul', ['scores_all', 'by_image'], ['scores']))
    image = helper.make_tensor_value_info(
        'image', TensorProto.UINT8, ['batch', 'height', 'width', 3]
    )
    graph = helper.make_graph(nodes, 'mmpaca', [image], infos, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 20)], ir_version=10)
    entries = {**METADATA, **metadata}
    helper.set_model_props(made, {f'mmpaca.{k}': v for k, v in entries.items() if v is not None})
    onnx.checker.check_model(made)
    return made


def write_model(path: Path, outputs=OUTPUTS, **metadata) -> Path:
    """Write such a model."""
    onnx.save(make_model(outputs, **metadata), path)
    return path
