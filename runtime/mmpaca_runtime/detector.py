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

from .images import to_array
from .result import Result, from_label_map, paste_masks

FORMAT = '1'  # version of inputs, outputs and metadata
LARGEST = 2**31 - 1  # bytes of an ONNX file
OUTPUTS = {
    'detection': {'boxes', 'scores', 'labels'},
    'instance': {'boxes', 'scores', 'labels', 'masks'},
    'classification': {'scores'},
    'segmentation': {'label_map'},
}
# Key of an entry that names another file with weights, however its length is encoded. mmpaca writes
# none, and a path in a file from elsewhere may lead anywhere.
EXTERNAL = re.compile(rb'(?:\x08|\x88\x80*\x00)location')

Input = str | os.PathLike | Image.Image | np.ndarray


class ModelError(ValueError):
    """A file is no model of ``mmpaca export``, or cannot run here; one sentence."""


class Detector:
    """A detector, segmentor of instances or classes, or classifier from an ONNX file.

    Args:
        path: file that ``mmpaca export`` wrote.
        device: ``'cpu'``, ``'cuda'``, ... : how the name of an execution provider begins.
        threads: number of CPU threads; 0 for ONNX Runtime's choice.

    Attributes:
        task: ``'detection'``, ``'instance'``, ``'classification'`` or ``'segmentation'``.
        classes: class names.
        metadata: all metadata of the file, without the prefix ``mmpaca.``.

    Raises:
        ModelError: the file is no such model, or the device is not available.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike, device: str = 'cpu', threads: int = 0) -> None:
        self._path = Path(path)
        self._session = open_session(self._path, device, threads)
        found = self._session.get_modelmeta().custom_metadata_map
        self.metadata = {
            key.removeprefix('mmpaca.'): value
            for key, value in found.items()
            if key.startswith('mmpaca.')
        }
        self.task = self.metadata.get('task', '')
        self._names = [output.name for output in self._session.get_outputs()]
        self._check()
        self.classes = [str(name) for name in self._read('classes', list)]
        self._mask_thr = self._read('mask_thr', int | float) if self.task == 'instance' else 0.0

    def __call__(
        self, images: Input | Sequence[Input], score_thr: float = 0.0
    ) -> Result | list[Result]:
        """Find objects in an image, or in each of a list.

        Args:
            images: path, PIL image or (H, W, 3) uint8 RGB, or a list of these. Images of the same
                size are computed together.
            score_thr: drop lower scores. The file has a threshold of its own. Of a segmentor
                nothing is dropped.

        Raises:
            ModelError: the model does not accept images of this size.
            OSError, ValueError: an image cannot be read.
        """
        if isinstance(images, Input):
            return self([images], score_thr)[0]
        arrays = [to_array(image) for image in images]
        by_size = defaultdict(list)
        for index, array in enumerate(arrays):
            by_size[array.shape].append(index)
        results = {}
        for indices in by_size.values():
            outputs = self._run(np.stack([arrays[i] for i in indices]))
            for i, *values in zip(indices, *outputs, strict=True):
                found = dict(zip(self._names, values, strict=True))
                results[i] = self._result(arrays[i], found, score_thr)
        return [results[i] for i in range(len(arrays))]

    def _run(self, batch: np.ndarray) -> list[np.ndarray]:
        try:
            return self._session.run(self._names, {'image': batch})
        except Exception as error:  # ONNX Runtime's errors share no class
            wanted = self._session.get_inputs()[0].shape
            text = f'fails on images {batch.shape}, it takes {wanted}: {shorten(error)}'
            raise ModelError(f'{self._path}: {text}') from None

    def _result(self, image: np.ndarray, found: dict[str, Any], score_thr: float) -> Result:
        if self.task == 'segmentation':
            return from_label_map(image, found['label_map'], self.classes)
        scores, boxes, masks = found['scores'], None, None
        if self.task == 'classification':
            keep = np.argsort(-scores, kind='stable')
            keep = labels = keep[scores[keep] >= score_thr]
        else:
            keep = (found['labels'] >= 0) & (scores > 0) & (scores >= score_thr)
            labels, boxes = found['labels'][keep], found['boxes'][keep]
        if self.task == 'instance':
            masks = found['masks'][keep]
            if self.metadata.get('mask_type') == 'box':
                masks = paste_masks(masks, boxes, *image.shape[:2], self._mask_thr)
        return Result(image, boxes, scores[keep], labels, masks, self.classes)

    def _check(self) -> None:
        text, version = '', self.metadata.get('format')
        inputs = [(i.name, i.type, len(i.shape)) for i in self._session.get_inputs()]
        if version is None:
            text = 'not written by `mmpaca export`: it has no metadata'
        elif version != FORMAT:
            text = f'format {version!r:.40}, this mmpaca-runtime reads {FORMAT!r}; upgrade it'
        elif self.task not in OUTPUTS:
            text = f'task {self.task!r:.40} is not covered, only {", ".join(OUTPUTS)}'
        elif inputs != [('image', 'tensor(uint8)', 4)] or not OUTPUTS[self.task] <= {*self._names}:
            text = f'inputs or outputs are not those of the task {self.task}'
        if text:
            raise ModelError(f'{self._path}: {text}')

    def _read(self, key: str, kind: Any) -> Any:
        try:
            value = json.loads(self.metadata[key])
        except (KeyError, ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise ModelError(f'{self._path}: metadata mmpaca.{key} is missing or invalid')
        return value


def open_session(path: Path, device: str, threads: int) -> Any:
    """Open an ONNX Runtime session on the content of a file; no other file is read."""
    import onnxruntime  # takes longer to import than the rest

    available = onnxruntime.get_available_providers()
    providers = [p for p in available if p.lower().startswith(device.lower())]
    if not providers:
        known = ', '.join(p.removesuffix('ExecutionProvider').lower() for p in available)
        raise ModelError(f'device {device!r} is not available in this onnxruntime, only {known}')
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
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception as error:  # ONNX Runtime's errors share no class
        raise ModelError(f'{path}: ONNX Runtime cannot load it: {shorten(error)}') from None
    if session.get_providers()[0] != providers[0]:  # it falls back to the CPU without a word
        raise ModelError(
            f'device {device!r} does not work: libraries of {providers[0]} are missing'
        )
    return session


def shorten(error: Exception) -> str:
    """Message of another package's error, short enough for a sentence."""
    return ' '.join(str(error).split())[:200]
