"""An exported model in ONNX Runtime."""

import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .images import read_image, to_rgb
from .result import Result, paste_masks

FORMAT = '1'  # of inputs, outputs and metadata
LARGEST = 2**31 - 1  # bytes of an ONNX file
OUTPUTS = {
    'detection': {'boxes', 'scores', 'labels'},
    'instance': {'boxes', 'scores', 'labels', 'masks'},
    'classification': {'scores'},
}
PROVIDERS = {
    'cpu': 'CPUExecutionProvider',
    'cuda': 'CUDAExecutionProvider',
    'tensorrt': 'TensorrtExecutionProvider',
    'openvino': 'OpenVINOExecutionProvider',
    'coreml': 'CoreMLExecutionProvider',
    'directml': 'DmlExecutionProvider',
}
# Weights in other files: an entry with exactly this key, however its length is encoded. mmpaca writes
# none, and a path in a file from elsewhere may lead anywhere.
EXTERNAL = re.compile(rb'(?:\x08|\x88\x80*\x00)location')

Input = str | os.PathLike | Image.Image | np.ndarray


class ModelError(ValueError):
    """A file is not a model of ``mmpaca export``, or cannot run here; one sentence."""


class Detector:
    """A detector, instance segmentor or classifier from an ONNX file.

    Args:
        path: file that ``mmpaca export`` wrote.
        device: a key of :data:`PROVIDERS`.
        threads: number of threads; 0 for ONNX Runtime's choice.

    Attributes:
        classes: class names.
        task: ``'detection'``, ``'instance'`` or ``'classification'``.
        metadata: what the file says about itself, without the prefix ``mmpaca.``.

    Raises:
        ModelError: the file is no such model, or the device is not available.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike, device: str = 'cpu', threads: int = 0) -> None:
        self._path = Path(path)
        self._session = _open(self._path, device, threads)
        found = self._session.get_modelmeta().custom_metadata_map
        prefix = 'mmpaca.'
        self.metadata = {k[len(prefix) :]: v for k, v in found.items() if k.startswith(prefix)}
        self._check_format()
        self.task = self.metadata.get('task', '')
        self.classes: list[str] = self._read('classes', list)
        if not all(isinstance(name, str) for name in self.classes):
            raise ModelError(f'{path}: metadata mmpaca.classes is not a list of names')
        self._mask_thr = self._read('mask_thr', (int, float)) if self.task == 'instance' else 0.0
        self._check_graph()

    def __call__(
        self, images: Input | Sequence[Input], score_thr: float = 0.0
    ) -> 'Result | list[Result]':
        """Find objects in an image, or in each of a list.

        Args:
            images: path, PIL image or (H, W, 3) uint8 RGB, or a list of these. Images of the same
                size are computed together.
            score_thr: drop lower scores. The file has a threshold of its own.

        Returns:
            Result, or a list of them for a list.

        Raises:
            ModelError: the model does not accept images of this size.
            OSError, ValueError: an image cannot be read.
        """
        if isinstance(images, (str, os.PathLike, Image.Image, np.ndarray)):
            return self([images], score_thr)[0]
        arrays = [to_array(image) for image in images]
        by_size = defaultdict(list)
        for index, array in enumerate(arrays):
            by_size[array.shape].append(index)
        results: dict[int, Result] = {}
        for indices in by_size.values():
            outputs = self._run(np.stack([arrays[i] for i in indices]))
            for row, i in enumerate(indices):
                single = {name: value[row] for name, value in outputs.items()}
                results[i] = self._result(arrays[i], single, score_thr)
        return [results[i] for i in range(len(arrays))]

    def _run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        names = [output.name for output in self._session.get_outputs()]
        try:
            return dict(zip(names, self._session.run(names, {'image': batch}), strict=True))
        except Exception as error:  # ONNX Runtime's errors share no class
            wanted = self._session.get_inputs()[0].shape
            raise ModelError(
                f'{self._path}: failed on images of shape {batch.shape}, the model takes {wanted}: '
                f'{_first_line(error)}'
            ) from None

    def _result(self, image: np.ndarray, found: dict[str, np.ndarray], score_thr: float) -> Result:
        if self.task == 'classification':
            labels = np.argsort(-found['scores'], kind='stable')
            scores = found['scores'][labels]
            keep = scores >= score_thr
            return Result(image, None, scores[keep], labels[keep], None, self.classes)
        keep = (found['labels'] >= 0) & (found['scores'] > 0) & (found['scores'] >= score_thr)
        boxes, masks = found['boxes'][keep], None
        if self.task == 'instance':
            masks = found['masks'][keep]
            if self.metadata.get('mask_type') == 'box':
                masks = paste_masks(masks, boxes, *image.shape[:2], self._mask_thr)
        return Result(
            image, boxes, found['scores'][keep], found['labels'][keep], masks, self.classes
        )

    def _check_format(self) -> None:
        if 'format' not in self.metadata:
            raise ModelError(f'{self._path}: not written by `mmpaca export`: it has no metadata')
        if self.metadata['format'] != FORMAT:
            raise ModelError(
                f'{self._path}: format {self.metadata["format"]!r:.40}, this version reads '
                f'{FORMAT!r}; install an mmpaca-runtime as new as the mmpaca that wrote it'
            )

    def _read(self, key: str, kind: Any) -> Any:
        try:
            value = json.loads(self.metadata[key])
        except (KeyError, ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise ModelError(f'{self._path}: metadata mmpaca.{key} is missing or invalid')
        return value

    def _check_graph(self) -> None:
        if self.task not in OUTPUTS:
            raise ModelError(
                f'{self._path}: task {self.task!r:.40} is not covered, only {", ".join(OUTPUTS)}'
            )
        inputs = [(i.name, i.type, len(i.shape)) for i in self._session.get_inputs()]
        outputs = {output.name for output in self._session.get_outputs()}
        if inputs != [('image', 'tensor(uint8)', 4)] or not outputs >= OUTPUTS[self.task]:
            raise ModelError(
                f'{self._path}: inputs or outputs are not those of task {self.task}: '
                f'{sorted(outputs)!s:.200}'
            )


def to_array(image: Input) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no image, or the array has another shape or type.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f'an image is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}; '
                'or give a path or a PIL image'
            )
        return image
    return to_rgb(image) if isinstance(image, Image.Image) else read_image(image)


def _open(path: Path, device: str, threads: int) -> Any:
    """Open an ONNX Runtime session without following paths in the file."""
    import onnxruntime  # takes longer to import than the rest

    if device not in PROVIDERS or PROVIDERS[device] not in onnxruntime.get_available_providers():
        known = {name: key for key, name in PROVIDERS.items()}
        usable = [known[p] for p in onnxruntime.get_available_providers() if p in known]
        raise ModelError(
            f'device {device!r} is not available in this onnxruntime, only {", ".join(usable)}'
        )
    if path.stat().st_size > LARGEST:
        raise ModelError(f'{path}: not an ONNX file: those have at most 2 GB')
    content = path.read_bytes()
    if EXTERNAL.search(content):
        raise ModelError(f'{path}: refers to weights in other files, which is not supported')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry('session.load_model_format', 'ONNX')
    try:
        return onnxruntime.InferenceSession(content, options, providers=[PROVIDERS[device]])
    except Exception as error:  # ONNX Runtime's errors share no class
        raise ModelError(f'{path}: ONNX Runtime cannot load it: {_first_line(error)}') from None


def _first_line(error: Exception) -> str:
    """A foreign error, short enough for one sentence."""
    return ' '.join(str(error).split())[:200]
