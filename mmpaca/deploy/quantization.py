"""8-bit integer models by post-training quantization, calibrated on images.

ONNX files are quantized by ONNX Runtime (weights per channel, QuantizeLinear and DequantizeLinear
nodes, so that any runtime can execute them), OpenVINO models by NNCF. What stands before the network
(resizing, normalisation), the last layers of heads, the decoding of boxes and NMS keep their precision.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmpaca.compat import require

#: Names of nodes outside the network: see :func:`mmpaca.deploy.onnx_file.join`.
_OUTSIDE = ('pre/', 'post/')
#: Operators with weights; others take their inputs from these.
_OPERATORS = ('Conv', 'ConvTranspose', 'MatMul', 'Gemm')
#: ONNX Runtime has no kernel for ConvTranspose in integers: it would convert the weights at each call.
#: Relu vanishes in the layer before it; else the map between them is quantized, and once more after.
_QUANTIZED = ['Conv', 'MatMul', 'Gemm', 'Relu']
#: How many inputs are features, where others are positions or choose some of the features.
_FEATURE_INPUTS = dict(
    RoiAlign=1,
    GridSample=1,
    Gather=1,
    GatherElements=1,
    GatherND=1,
    NonZero=0,
    NonMaxSuppression=0,
    TopK=0,
    Equal=0,
    Less=0,
    Greater=0,
    Shape=0,
)


def quantize_onnx(content: bytes, images: Iterable[np.ndarray]) -> bytes:
    """Quantize an ONNX file.

    Args:
        content: of an ONNX file.
        images: (H, W, 3) uint8 RGB, of any size. A hundred are enough.

    Returns:
        The content of the quantized file, with the same metadata.

    Raises:
        ImportError: onnx or onnxruntime is missing; the error names the command that installs it.
        ValueError: there are no images.
    """
    onnx = require('onnx')
    require('onnxruntime')
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load_from_string(content)
    del model.opset_import[1:]  # the same once more, from joining models; refused below
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    # It would advise a preparation, of which an exported file needs nothing: shapes are inferred.
    model.metadata_props.add(key='onnx.infer', value='onnxruntime.quant')
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'int8.onnx'
        quantize_static(
            model,
            out,
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTIZED,
            nodes_to_exclude=float_layers(model),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # 8 x 8 bits overflow the 16-bit sums of CPUs without VNNI at full range; see the
            # documentation of ONNX Runtime.
            reduce_range=True,
        )
        model = onnx.load(out)
    onnx.helper.set_model_props(model, metadata)
    return bytes(model.SerializeToString())


def float_layers(model: Any) -> list[str]:
    """Names of the nodes with weights that stay in 32 bits.

    These are the nodes outside the network, the products of two activations, and the last layers of
    heads: those whose outputs are scores or positions, and not features for further layers.

    Args:
        model: onnx.ModelProto.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    kept: list[str] = []
    features: set[str] = set()  # values that a layer with weights, further on, computes with
    for node in reversed(model.graph.node):
        layer = node.op_type in _OPERATORS
        if layer and (
            node.name.startswith(_OUTSIDE)
            or weights.isdisjoint(node.input)
            or features.isdisjoint(node.output)
        ):
            kept.append(node.name)
        if layer or not features.isdisjoint(node.output):
            features.update(node.input[: _FEATURE_INPUTS.get(node.op_type, len(node.input))])
    return kept


class _Reader:
    """Images as ONNX Runtime's calibration asks for them: one batch at a time, then None."""

    def __init__(self, images: Iterable[np.ndarray]) -> None:
        self._images = _batches(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next input by name."""
        image = next(self._images, None)
        return None if image is None else {'image': image}


def _batches(images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches of one image: (1, H, W, 3)."""
    none = True
    for image in images:
        none = False
        yield image[None]
    if none:
        raise ValueError('int8 needs images to calibrate on, and there are none')


def quantize_openvino(model: Any, content: bytes, images: Iterable[np.ndarray]) -> Any:
    """Quantize ``openvino.Model``.

    Args:
        model: the model; it may be changed.
        content: the ONNX file that it comes from.
        images: (H, W, 3) uint8 RGB, of any size. A hundred are enough.

    Returns:
        openvino.Model, with the same metadata.

    Raises:
        ImportError: nncf is missing; the error names the command that installs it.
        ValueError: there are no images.
    """
    os.environ.setdefault('NNCF_CI', '1')  # else it sends statistics of its use
    nncf, onnx = require('nncf'), require('onnx')
    batches = list(_batches(images))
    source = onnx.load_from_string(content)
    layers = {node.name for node in source.graph.node if node.op_type in _OPERATORS}
    layers.difference_update(float_layers(source))
    names = [op.get_friendly_name() for op in model.get_ops()]
    # OpenVINO makes two operations of a layer with a bias. NNCF would quantize all arithmetic, that
    # of boxes as well.
    kept = [name for name in names if name.removesuffix('/WithoutBiases') not in layers]
    return nncf.quantize(
        model,
        nncf.Dataset(batches, lambda image: {'image': image}),
        subset_size=len(batches),
        # Activations of GELU are not symmetric.
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
    )
