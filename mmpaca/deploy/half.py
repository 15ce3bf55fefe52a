"""Weights in half precision, which halves the file; the computation stays in float32."""

from typing import Any

import numpy as np

_SMALLEST = 256  # elements; biases and constants of box arithmetic stay exact


def halve_weights(model: Any) -> None:
    """Store the large float32 weights of an ONNX model as float16, in place.

    A Cast restores float32: runtimes fold it when they load the file, or keep the weights small
    (OpenVINO). Every operator has the precision it had.

    Raises:
        ValueError: a weight is beyond the range of float16.
    """
    from onnx import helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _SMALLEST:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ValueError(f'--precision fp16: weight {weight.name} is beyond its range')
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f'{name}.half'))
        casts.append(helper.make_node('Cast', [f'{name}.half'], [name], to=1, name=f'{name}.cast'))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
