"""8-bit integer models by post-training quantization, calibrated on images.

ONNX files are quantized by ONNX Runtime (weights per channel, QuantizeLinear and DequantizeLinear
nodes, so that any runtime can execute them), OpenVINO models by NNCF. What stands before the network
(resizing, normalisation), the decoding of boxes and NMS keep their precision.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmpaca.compat import require

#: Names of nodes outside the network: see :func:`mmpaca.deploy.onnx_file.join`.
_OUTSIDE = ('pre/', 'post/')
#: Operators with weights; others take their inputs from these.
_OPERATORS = ('Conv', 'MatMul', 'Gemm')


def quantize_onnx(content: bytes, images: Iterable[np.ndarray]) -> bytes:
    """Quantize an ONNX file.

    Products of two activations, as in attention, stay in 32 bits, as do layers outside the network.

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
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'int8.onnx'
        quantize_static(
            model,
            out,
            _Reader(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            nodes_to_exclude=_kept(model),
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


def _kept(model: Any) -> list[str]:
    """Names of nodes that stay in 32 bits."""
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type in _OPERATORS and (
            node.name.startswith(_OUTSIDE) or weights.isdisjoint(node.input)
        ):
            kept.append(node.name)
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


def quantize_openvino(model: Any, images: Iterable[np.ndarray]) -> Any:
    """Quantize ``openvino.Model``.

    Args:
        model: the model; it may be changed.
        images: (H, W, 3) uint8 RGB, of any size. A hundred are enough.

    Returns:
        openvino.Model, with the same metadata.

    Raises:
        ImportError: nncf is missing; the error names the command that installs it.
        ValueError: there are no images.
    """
    nncf = require('nncf')
    batches = list(_batches(images))
    names = [op.get_friendly_name() for op in model.get_ops()]
    outside = [name for name in names if name.startswith(_OUTSIDE)]
    return nncf.quantize(
        model,
        nncf.Dataset(batches, lambda image: {'image': image}),
        subset_size=len(batches),
        # Activations of GELU are not symmetric.
        preset=nncf.QuantizationPreset.MIXED,
        model_type=nncf.ModelType.TRANSFORMER,
        ignored_scope=nncf.IgnoredScope(names=outside, validate=False),
    )
