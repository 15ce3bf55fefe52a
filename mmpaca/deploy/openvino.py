"""OpenVINO files from ONNX files, and running them."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmpaca.compat import require

#: Where the metadata of an ONNX file is in an OpenVINO model, by OpenVINO's own convention.
METADATA = 'framework'

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def convert(content: bytes) -> Any:
    """Convert an ONNX file to ``openvino.Model``; its metadata stays in the model.

    Args:
        content: of an ONNX file.

    Raises:
        ImportError: openvino is missing; the error names the command that installs it.
    """
    return require('openvino').Core().read_model(io.BytesIO(content))


def write_openvino(
    content: bytes,
    path: Path,
    fp16: bool = False,
    int8_images: Iterable[np.ndarray] | None = None,
) -> None:
    """Write an ONNX file as an OpenVINO file: PATH.xml and PATH.bin beside it.

    Args:
        content: of an ONNX file.
        path: ends in ``.xml``.
        fp16: store weights in 16 bits. The CPU computes in 32 bits nevertheless.
        int8_images: images (H, W, 3) uint8 RGB, of any size, to calibrate an 8-bit model on; None
            for a model that is not quantized.

    Raises:
        ImportError: openvino, or nncf for 8 bits, is missing; the error names the command that
            installs it.
        ValueError: there are no images to calibrate on.
    """
    openvino = require('openvino')
    model = convert(content)
    if int8_images is not None:
        from .quantization import quantize_openvino

        model = quantize_openvino(model, content, int8_images)
    openvino.save_model(model, path, compress_to_fp16=fp16)


def open_openvino(path: Path, precision: str = 'f32', threads: int = 0) -> Run:
    """Open an OpenVINO file on the CPU.

    Args:
        path: of the ``.xml`` file.
        precision: ``'f32'``, or ``'bf16'`` to let CPUs that have bfloat16 compute in it. OpenVINO's
            own choice depends on the CPU.
        threads: number of threads; 0 for OpenVINO's choice.

    Returns:
        Function of ``image`` (B, H, W, 3) uint8 RGB to arrays by the names of the outputs.

    Raises:
        ImportError: openvino is missing; the error names the command that installs it.
    """
    core = require('openvino').Core()
    options: dict[str, Any] = {'INFERENCE_PRECISION_HINT': precision}
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    compiled = core.compile_model(core.read_model(path), 'CPU', options)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        results = compiled({'image': image})
        return {name: results[name] for name in names}

    return run


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an OpenVINO file, as it was in the ONNX file."""
    model = require('openvino').Core().read_model(path)
    if not model.has_rt_info([METADATA]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info([METADATA]).value.items()}
