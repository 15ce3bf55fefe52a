"""Compare an exported file with the PyTorch model that it was written from."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config

from mmpaca.compat import require
from mmpaca.datasets.images import find_images, read_image
from mmpaca.deploy.agreement import TOLERANCES, Agreement, Detections, Tolerance, compare
from mmpaca.deploy.metadata import detection_cfg

from .inference import Predictor
from .quiet import quiet

#: From (B, H, W, 3) uint8 RGB to the outputs by name.
RunFile = Callable[[np.ndarray], dict[str, np.ndarray]]
# Shares of the height and the width of a picture: batches of other sizes.
_SIZES = ((1.0, 1.0), (0.75, 1.0), (1.0, 0.6), (0.5, 0.5), (1.25, 0.9))
_BATCH = 4
_MAYBE_TIES = 0.005  # share of the detections


def open_onnx(content: bytes) -> RunFile:
    """Load the content of an ONNX file as a function that onnxruntime runs on the CPU.

    Raises:
        ImportError: onnxruntime is missing; the error names the command that installs it.
    """
    session = require('onnxruntime').InferenceSession(content, providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, {'image': images}), strict=True))

    return run


@dataclass
class Comparison:
    """Compare a file with its model, batch by batch.

    Args:
        predictor: the model.
        run: the file.
        precision: key of :data:`mmpaca.deploy.agreement.TOLERANCES`.
    """

    predictor: Predictor
    run: RunFile
    precision: str = 'fp32'
    rows: dict[str, Agreement] = field(default_factory=dict)

    @property
    def tolerance(self) -> Tolerance:
        """What counts as agreement."""
        return TOLERANCES[self.precision]

    def add(self, row: str, images: np.ndarray) -> tuple[list[Any], list[Any]]:
        """Compare a batch (B, H, W, 3) uint8 RGB and count it under a row of the table.

        Returns:
            PyTorch's predictions and the file's.

        Raises:
            ValueError: the file fails.
        """
        expected = predict(self.predictor, images)
        size = 'x'.join(map(str, images.shape[:3]))
        try:
            outputs = self.run(images)
        except Exception as error:  # ONNX Runtime's and OpenVINO's errors share no class
            message = ' '.join(str(error).split())[:300]
            raise ValueError(
                f'the file is not written, it fails on images {size}: {message}'
            ) from error
        if 'boxes' in outputs:
            given: list[Any] = detections(outputs, self.predictor.model, images.shape[1:3])
            most, lowest = self._limits(outputs['scores'].shape[1])
            results = [
                compare(a, b, self.tolerance, most, lowest, f'image of {size}')
                for a, b in zip(expected, given, strict=True)
            ]
        elif 'label_map' in outputs:
            given = [*outputs['label_map']]
            results = [self._pixels(a, b) for a, b in zip(expected, given, strict=True)]
        else:
            given = [*outputs['scores']]
            results = [self._classes(a, b) for a, b in zip(expected, given, strict=True)]
        self.rows[row] = sum(results, self.rows.get(row, Agreement()))
        return expected, given

    def _limits(self, most: int) -> tuple[int, float]:
        cfg = detection_cfg(self.predictor.model)
        return most, float(cfg.get('score_thr', 0.0))

    def _classes(self, expected: Any, given: Any) -> Agreement:
        error = float(np.abs(expected - given).max())
        wrong = error > self.tolerance.score
        examples = [f'scores differ by {error:.1e}'] * wrong
        return Agreement(1, 1, int(wrong), score_error=error, examples=examples)

    def _pixels(self, expected: Any, given: Any) -> Agreement:
        wrong = int((expected != given).sum())
        return Agreement(1, 1, mask_pixels=expected.size, mask_errors=wrong)

    def finish(self, name: str) -> None:
        """Print the table.

        Args:
            name: name of the file.

        Raises:
            ValueError: the file differs from PyTorch.
        """
        print(f'{name} against PyTorch')
        kinds = 'detections', 'unmatched', 'box error', 'score error', 'pixels that differ'
        print(f'{"images":<28}' + ''.join(f'{kind:>{len(kind) + 3}}' for kind in kinds))
        for row, found in self.rows.items():
            share = found.mask_errors / found.mask_pixels if found.mask_pixels else 0.0
            values = (
                f'{found.detections}',
                f'{found.unmatched}',
                f'{found.box_error:.1e} px',
                f'{found.score_error:.1e}',
                f'{share:.2%}' if found.mask_pixels else '-',
            )
            cells = zip(values, kinds, strict=True)
            print(f'{row:<28}' + ''.join(f'{value:>{len(kind) + 3}}' for value, kind in cells))
        total = sum(self.rows.values(), Agreement())
        if not total.detections:
            print(
                'nothing was detected, so nothing was compared: give --verify images with objects'
            )
        if not total.within(self.tolerance):
            examples = '; '.join(total.examples[:3])
            differences: list[str] = []
            if total.unmatched:
                counts = f'{total.unmatched} of {total.detections}'
                differences.append(f'{counts} detections have no counterpart ({examples})')
                if total.unmatched <= _MAYBE_TIES * total.detections:
                    differences.append(
                        'so few may be ties that rounding decides: --verify compares more images'
                    )
            if total.mask_errors:
                counts = f'{total.mask_errors} of {total.mask_pixels}'
                differences.append(f'{counts} pixels of masks or labels differ')
            raise ValueError(
                f'{name} is not written, it differs from PyTorch: {", ".join(differences)}'
            )


def predict(predictor: Predictor, images: np.ndarray) -> list[Any]:
    """PyTorch's predictions of a batch (B, H, W, 3) RGB.

    Returns:
        For each image Detections, scores (C,) of a classifier, or labels (H, W) of a segmentor.
    """
    samples = predictor.predict([np.ascontiguousarray(image[..., ::-1]) for image in images])
    if predictor.task == 'classification':
        return [sample.pred_score.cpu().numpy() for sample in samples]
    if predictor.task == 'segmentation':
        return [sample.pred_sem_seg.data[0].cpu().numpy() for sample in samples]
    found = [sample.pred_instances.cpu().numpy() for sample in samples]
    return [
        Detections(i.bboxes, i.scores, i.labels, np.asarray(i.masks) if 'masks' in i else None)
        for i in found
    ]


def detections(outputs: dict[str, np.ndarray], model: Any, size: Sequence[int]) -> list[Detections]:
    """The detections of a file's outputs, with masks of the size (H, W) of the images."""
    result = []
    for i, labels in enumerate(outputs['labels']):
        kept = labels >= 0
        boxes, scores = outputs['boxes'][i][kept], outputs['scores'][i][kept]
        masks = outputs['masks'][i][kept] if 'masks' in outputs else None
        if masks is not None and masks.dtype != bool:
            masks = paste(masks, boxes, size, model.roi_head.test_cfg.mask_thr_binary)
        result.append(Detections(boxes, scores, labels[kept], masks))
    return result


def paste(
    masks: np.ndarray, boxes: np.ndarray, size: Sequence[int], threshold: float
) -> np.ndarray:
    """Paste probabilities (N, h, w) into boxes (N, 4), as mmdet does: (N, H, W) bool."""
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    full = np.zeros((len(masks), *size), bool)
    for i in range(len(masks)):
        mask, box = torch.from_numpy(masks[i]), torch.from_numpy(boxes[i])
        pasted, where = _do_paste_mask(mask[None, None], box[None], *size, skip_empty=True)
        full[i][where] = (pasted[0] >= threshold).numpy()
    return full


def generated_pictures(height: int, width: int, number: int = 1) -> np.ndarray:
    """Smooth noise with some shapes on it, (number, H, W, 3) uint8."""
    generator = np.random.default_rng(0)
    pictures = []
    for _ in range(number):
        noise = generator.integers(0, 256, (max(height // 16, 2), max(width // 16, 2), 3), np.uint8)
        picture = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        for k in range(6):
            colour = generator.integers(0, 256, 3).tolist()
            centre = generator.uniform(0, 1, 2) * (width, height)
            axes = generator.uniform(0.05, 0.25, 2) * (width, height)
            if k % 2:
                low, high = (centre - axes).astype(int), (centre + axes).astype(int)
                cv2.rectangle(picture, low.tolist(), high.tolist(), colour, -1)
            else:
                cv2.ellipse(
                    picture, centre.astype(int).tolist(), axes.astype(int).tolist(),
                    0, 0, 360, colour, -1,
                )  # fmt: skip
        pictures.append(picture)
    return np.stack(pictures)


def check_generated(comparison: Comparison, size: tuple[int, int], fixed: bool) -> None:
    """Compare on a few generated pictures: two shapes, then a batch of another size.

    Args:
        comparison: model and file.
        size: height and width of the first picture.
        fixed: the file takes no other size.
    """
    height, width = size
    shapes = [(1, height, width), (1, width, height), (2, height * 2 // 3, width * 3 // 4)]
    for number, h, w in [(2, height, width)] if fixed else shapes:
        comparison.add('generated', generated_pictures(h, w, number))


def verify(comparison: Comparison, config: Config, data: str | Path) -> None:
    """Compare on data: AP where there are annotations, every image alone, and batches.

    Args:
        comparison: model and file.
        config: config of the model.
        data: COCO annotation file, whose images are where the config's test dataset has them; or a
            folder, file or glob of images.

    Raises:
        FileNotFoundError: there are no such images.
        ValueError: the AP differs.
    """
    if Path(data).suffix == '.json':
        paths = _verify_ap(comparison, config, Path(data))
    else:
        paths = [str(path) for path in find_images([data])]
        for image in read_rgb(paths):
            comparison.add('one by one', image[None])
    first = [*read_rgb(paths[:_BATCH])]
    height, width = first[0].shape[:2]
    for down, across in _SIZES:
        size = max(round(width * across), 8), max(round(height * down), 8)
        batch = np.stack([cv2.resize(image, size) for image in first])
        comparison.add(f'batch of {len(batch)}, {size[1]}x{size[0]}', batch)


def read_rgb(paths: Sequence[str | Path]) -> Iterator[np.ndarray]:
    """Read images, (H, W, 3) uint8 RGB."""
    for path in paths:
        yield np.ascontiguousarray(read_image(path)[..., ::-1])


def _verify_ap(comparison: Comparison, config: Config, ann_file: Path) -> list[str]:
    """Compare AP over a COCO annotation file; returns the paths of its images."""
    from mmengine.evaluator import Evaluator
    from mmengine.registry import DATASETS, DefaultScope

    if not ann_file.is_file():
        raise FileNotFoundError(f'--verify {ann_file}: no such annotation file')
    settings = copy.deepcopy(config.test_dataloader.dataset)
    settings.update(ann_file=str(ann_file.absolute()), pipeline=[], lazy_init=False, indices=None)
    metric = copy.deepcopy(config.test_evaluator)
    metric = metric[0] if isinstance(metric, list) else metric
    if 'ann_file' not in metric and not metric.type.endswith('CocoMetric'):
        raise ValueError(
            f'--verify {ann_file}: {metric.type} of the test_evaluator takes no COCO annotations; '
            'give a folder of images'
        )
    metric.update(ann_file=str(ann_file.absolute()))
    with quiet(), DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(settings)
        evaluators = [Evaluator(copy.deepcopy(metric)) for _ in range(2)]
    paths = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if not Path(info['img_path']).is_file():
            raise FileNotFoundError(
                f'--verify {ann_file}: image {info["img_path"]} does not exist; the images are '
                "where the config's test_dataloader.dataset has them (data_root, data_prefix)"
            )
        paths.append(info['img_path'])
        (image,) = read_rgb(paths[-1:])
        for evaluator, (found,) in zip(
            evaluators, comparison.add('one by one', image[None]), strict=True
        ):
            evaluator.process([_sample(found, info, image.shape[:2])])
    for evaluator in evaluators:
        evaluator.dataset_meta = dataset.metainfo
    with quiet():
        expected, given = (evaluator.evaluate(len(paths)) for evaluator in evaluators)
    _compare_ap(expected, given, comparison.tolerance)
    return paths


def _sample(found: Detections, info: dict, size: Sequence[int]) -> dict:
    """A data sample of mmdet, as evaluators take it."""
    masks = {} if found.masks is None else {'masks': torch.from_numpy(found.masks)}
    instances = dict(
        bboxes=torch.from_numpy(found.boxes),
        scores=torch.from_numpy(found.scores),
        labels=torch.from_numpy(found.labels),
        **masks,
    )
    return dict(img_id=info['img_id'], ori_shape=tuple(size), pred_instances=instances)


def _compare_ap(expected: dict, given: dict, tolerance: Tolerance) -> None:
    """Print AP beside AP.

    Raises:
        ValueError: they differ.
    """
    for name in (name for name in expected if name.endswith('_mAP')):
        print(f'{name}: PyTorch {expected[name]:.3f}, file {given[name]:.3f}')
        # Both are rounded to three digits.
        if abs(expected[name] - given[name]) > tolerance.ap + 1e-9:
            raise ValueError(
                f'the file is not written: its {name} is {given[name]:.3f}, '
                f'that of PyTorch {expected[name]:.3f}'
            )
