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
DETECTION = {'boxes': 'float', 'scores': 'float', 'labels': 'int64'}
MASKS = ('box', 'float'), ('image', 'bool')  # mask_type, type
OUTPUTS = {  # with their types
    'detection': DETECTION,
    'instance': {**DETECTION, 'masks': 'float or bool'},
    'classification': {'scores': 'float'},
    'segmentation': {'label_map': 'uint8 or int64'},
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
        self._mask_type = self.metadata.get('mask_type')
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
            outputs = self._session.run(self._names, {'image': batch})
        except Exception as error:  # ONNX Runtime's errors share no class
            wanted = self._session.get_inputs()[0].shape
            text = f'fails on images {batch.shape}, it takes {wanted}: {shorten(error)}'
            raise ModelError(f'{self._path}: {text}') from None
        self._check_outputs(dict(zip(self._names, outputs, strict=True)), *batch.shape[:3])
        return outputs

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
            if self._mask_type == 'box':
                masks = paste_masks(masks, boxes, *image.shape[:2], self._mask_thr)
        return Result(image, boxes, scores[keep], labels, masks, self.classes)

    def _check(self) -> None:
        text, version = '', self.metadata.get('format')
        inputs = [(i.name, i.type, len(i.shape)) for i in self._session.get_inputs()]
        types = {o.name: o.type.partition('(')[2][:-1] for o in self._session.get_outputs()}
        outputs = OUTPUTS.get(self.task, {}).items()
        wrong = [name for name, kinds in outputs if types.get(name, 'none') not in kinds]
        if version is None:
            text = 'not written by `mmpaca export`: it has no metadata'
        elif version != FORMAT:
            text = f'format {version!r:.40}, this mmpaca-runtime reads {FORMAT!r}; upgrade it'
        elif self.task not in OUTPUTS:
            text = f'task {self.task!r:.40} is not covered, only {", ".join(OUTPUTS)}'
        elif inputs != [('image', 'tensor(uint8)', 4)] or wrong:
            text = f'inputs or outputs are not those of the task {self.task}'
        elif self.task == 'instance' and (self._mask_type, types['masks']) not in MASKS:
            text = f'mask_type {self._mask_type!r:.40} does not fit the masks'
        if text:
            raise ModelError(f'{self._path}: {text}')

    def _check_outputs(self, found: dict[str, Any], *size: int) -> None:
        n = found.get('scores', np.empty(0)).shape[1:2]
        cells = size[1:] if self._mask_type == 'image' else np.shape(found.get('masks'))[-2:]
        wanted = dict(scores=n, labels=n, boxes=(*n, 4), masks=(*n, *cells), label_map=size[1:])
        for name in OUTPUTS[self.task]:
            if found[name].shape != (size[0], *wanted[name]):
                raise ModelError(f'{self._path}: {name} has the shape {found[name].shape}')
        if not (np.abs(found.get('boxes', 0)) < 1e7).all():  # of NaN neither
            raise ModelError(f'{self._path}: boxes are not finite, or far from any image')

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
