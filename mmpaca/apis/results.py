"""Files with predictions: pictures, videos, JSON for each input, and one file in COCO's format."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import cv2
import mmcv
import numpy as np

from .frames import Frame, Source

COCO_FILE = 'predictions.coco.json'


class ResultWriter:
    """Writes results as they come; memory does not grow with their number.

    - ``vis/NAME.jpg``, of a video ``vis/NAME.mp4``;
    - ``preds/NAME.json``, of a video a list with an entry per frame;
    - ``preds/NAME_sem_seg.png`` of a segmentor, the class index of each pixel;
    - ``predictions.coco.json`` where there are boxes: ``images``, ``annotations`` with ``score``
      and ``categories``.

    Args:
        out_dir: output folder.
        classes: class names; None if there are no boxes, or if they have no names.
        info: entry ``info`` of the COCO file.
    """

    def __init__(
        self, out_dir: str | Path, classes: Sequence[str] | None, info: dict[str, Any]
    ) -> None:
        self.out_dir = Path(out_dir)
        self._classes = classes
        self._info = info
        self._open = ExitStack()
        self._source: Source | None = None
        self._video: ExitStack = ExitStack()
        self._video_files: dict[str, Any] = {}
        self._coco: _CocoWriter | None = None

    def __enter__(self) -> 'ResultWriter':
        return self

    def __exit__(self, *_: object) -> None:
        """Complete all files, also those of an interrupted run."""
        self._video.close()
        self._open.close()

    def add(self, frame: Frame, result: dict[str, Any] | None, picture: np.ndarray | None) -> None:
        """Write the results of one image or frame.

        Args:
            frame: the image; frames of a video follow each other.
            result: see :meth:`Predictor.to_dict`; None to write no prediction.
            picture: (height, width, 3) uint8 RGB; None to write no picture.

        Raises:
            OSError: a file cannot be written.
        """
        if frame.source != self._source:
            self._video.close()
            self._video_files = {}
            self._source = frame.source
        if picture is not None:
            self._add_picture(frame, picture)
        if result is not None:
            self._add_prediction(frame, result)

    def _add_picture(self, frame: Frame, picture: np.ndarray) -> None:
        path = self.out_dir / 'vis' / frame.source.name
        if frame.index is None:
            mmcv.imwrite(picture[..., ::-1], f'{path}.jpg')
            return
        if 'vis' not in self._video_files:
            size = picture.shape[1::-1]  # width, height
            path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*'mp4v')
            video = cv2.VideoWriter(f'{path}.mp4', code, frame.fps, size)
            self._video.callback(video.release)
            if not video.isOpened():
                raise OSError(f'{path}.mp4 cannot be written: OpenCV has no encoder for it')
            self._video_files['vis'] = video
        self._video_files['vis'].write(np.ascontiguousarray(picture[..., ::-1]))

    def _add_prediction(self, frame: Frame, result: dict[str, Any]) -> None:
        if 'panoptic_seg' in result:
            number = '' if frame.index is None else f'_{frame.index:06d}'
            path = self.out_dir / f'preds/{frame.source.name}{number}_panoptic_seg.png'
            mmcv.imwrite(result.pop('panoptic_seg')[..., ::-1], str(path))
            result['panoptic_seg_path'] = str(path)
        if 'sem_seg' in result:
            number = '' if frame.index is None else f'_{frame.index:06d}'
            path = self.out_dir / f'preds/{frame.source.name}{number}_sem_seg.png'
            labels = result.pop('sem_seg')
            mmcv.imwrite(labels.astype(np.uint8 if labels.max() < 256 else np.uint16), str(path))
            result['sem_seg_path'] = str(path)
        if 'bboxes' in result:
            if self._coco is None:
                writer = _CocoWriter(self.out_dir / COCO_FILE, self._classes, self._info)
                self._coco = self._open.enter_context(writer)
            self._coco.add(frame, result)
        path = self.out_dir / f'preds/{frame.source.name}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        if frame.index is None:
            path.write_text(json.dumps(result))
            return
        if 'preds' not in self._video_files:
            entries = self._video.enter_context(_JsonList(path.open('w'), '[\n', '\n]\n'))
            self._video_files['preds'] = entries
        self._video_files['preds'].add({'frame_id': frame.index, **result})


class _JsonList:
    """A JSON list that is written entry by entry."""

    def __init__(self, file: IO[str], begin: str, end: str) -> None:
        self._file, self._end = file, end
        self._separator = ''
        file.write(begin)

    def __enter__(self) -> '_JsonList':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.write(self._end)
        self._file.close()

    def add(self, entry: dict[str, Any]) -> None:
        self._file.write(self._separator + json.dumps(entry))
        self._separator = ',\n'


class _CocoWriter:
    """A COCO file; annotations are written as they come, images wait in a temporary file."""

    def __init__(self, path: Path, classes: Sequence[str] | None, info: dict[str, Any]) -> None:
        self._path = path
        self._open = ExitStack()
        self._classes = classes
        self._info = info
        self._images = self._annotations = self._videos = 0
        self._labels = 0  # one more than the largest seen
        self._source: Source | None = None

    def __enter__(self) -> '_CocoWriter':
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._part = self._path.with_name(f'{self._path.name}.part')
        self._file = self._part.open('w')
        self._file.write(f'{{"info": {json.dumps(self._info)},\n"annotations": [')
        self._spools = {
            key: self._open.enter_context(tempfile.TemporaryFile('w+'))  # noqa: SIM115
            for key in ('images', 'videos')
        }
        return self

    def __exit__(self, *_: object) -> None:
        names = self._classes or [f'class {label}' for label in range(self._labels)]
        categories = [dict(id=i, name=str(name)) for i, name in enumerate(names, start=1)]
        self._file.write(f'],\n"categories": {json.dumps(categories)}')
        for key, spool in self._spools.items():
            spool.seek(0)
            self._file.write(f',\n"{key}": [')
            shutil.copyfileobj(spool, self._file)
            self._file.write(']')
        self._file.write('}\n')
        self._file.close()
        self._open.close()
        os.replace(self._part, self._path)

    def add(self, frame: Frame, result: dict[str, Any]) -> None:
        image = dict(
            id=self._images + 1,
            file_name=frame.file_name,
            height=frame.image.shape[0],
            width=frame.image.shape[1],
        )
        if frame.index is not None:
            if frame.source != self._source:
                name = frame.source.path.as_posix()
                self._spool('videos', dict(id=self._videos + 1, name=name), self._videos)
                self._videos += 1
            image |= dict(video_id=self._videos, frame_id=frame.index)
        self._source = frame.source
        self._spool('images', image, self._images)
        self._images += 1
        for annotation in to_annotations(result):
            self._labels = max(self._labels, annotation['category_id'])
            self._file.write(',\n' if self._annotations else '\n')
            self._annotations += 1
            ids = dict(id=self._annotations, image_id=self._images)
            self._file.write(json.dumps(ids | annotation))

    def _spool(self, key: str, entry: dict[str, Any], before: int) -> None:
        self._spools[key].write((',\n' if before else '\n') + json.dumps(entry))


def to_annotations(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Convert a detector's result to COCO's annotations, without ids.

    Args:
        result: ``labels``, ``scores``, ``bboxes`` and, if there are any, ``masks``; see
            :meth:`Predictor.to_dict`.

    Returns:
        Each with ``category_id`` (label + 1), ``bbox`` (left, top, width, height), ``area`` in
        pixels, ``score``, ``iscrowd`` 0 and, if there is a mask, ``segmentation`` as compressed RLE.
    """
    from pycocotools import mask as coco_mask

    masks = result.get('masks') or [None] * len(result['labels'])
    annotations = []
    for label, score, (left, top, right, bottom), mask in zip(
        result['labels'], result['scores'], result['bboxes'], masks, strict=True
    ):
        annotation: dict[str, Any] = dict(
            category_id=label + 1,
            bbox=[left, top, right - left, bottom - top],
            area=(right - left) * (bottom - top),
            score=score,
            iscrowd=0,
        )
        if mask is not None:
            annotation |= dict(segmentation=mask, area=int(coco_mask.area(mask)))
        annotations.append(annotation)
    return annotations
