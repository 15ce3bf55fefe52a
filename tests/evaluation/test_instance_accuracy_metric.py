"""StarDist's accuracy on cases worked out by hand."""

import json

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS, DefaultScope
from pycocotools import mask as coco_mask

from mmpaca.evaluation import InstanceAccuracyMetric
from mmpaca.evaluation.instance_accuracy_metric import match

SIZE = (20, 40)


def box(left: int, right: int, top: int = 0, bottom: int = 10) -> np.ndarray:
    """A rectangular mask."""
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def rle(mask: np.ndarray) -> dict:
    found = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return dict(size=found['size'], counts=found['counts'].decode())


@pytest.fixture
def metric(tmp_path):
    """Return a function: annotations of each image, options -> the metric."""

    def build(*images: list[tuple], **options) -> InstanceAccuracyMetric:
        annotations = [
            dict(image_id=i, category_id=label + 1, iscrowd=int(crowd), segmentation=rle(mask))
            for i, found in enumerate(images)
            for mask, label, crowd in found
        ]
        content = dict(
            images=[
                dict(id=i, file_name=f'{i}.png', height=20, width=40) for i in range(len(images))
            ],
            annotations=[dict(id=k, **one) for k, one in enumerate(annotations)],
            categories=[dict(id=1, name='a'), dict(id=2, name='b')],
        )
        (tmp_path / 'ann.json').write_text(json.dumps(content))
        with DefaultScope.overwrite_default_scope('mmdet'):
            given = dict(type='InstanceAccuracyMetric', ann_file=str(tmp_path / 'ann.json'))
            built = METRICS.build(given | options)
        built.dataset_meta = dict(classes=('a', 'b'))
        return built

    return build


def evaluate(metric: InstanceAccuracyMetric, *images: list[tuple]) -> dict[str, float]:
    """Feed (mask, label, score) of each image."""
    for i, found in enumerate(images):
        masks = np.array([mask for mask, *_ in found]).reshape(-1, *SIZE)
        instances = dict(
            masks=torch.from_numpy(masks),
            labels=torch.tensor([label for _, label, _ in found], dtype=torch.long),
            scores=torch.tensor([score for *_, score in found], dtype=torch.float64),
        )
        metric.process({}, [dict(img_id=i, ori_shape=SIZE, pred_instances=instances)])
    return metric.evaluate(len(images))


def test_all_objects_together(metric):
    """Image 0: one pair of IoU 0.8 and a miss; image 1: an exact pair and a false positive."""
    truth = [[(box(0, 10), 0, 0), (box(20, 30), 0, 0)], [(box(0, 10), 1, 0)]]
    found = evaluate(
        metric(*truth), [(box(0, 8), 0, 0.9)], [(box(0, 10), 1, 0.7), (box(20, 30), 1, 0.5)]
    )
    # TP 2, FP 1, FN 1; above 0.8 the first pair is a false positive and a miss.
    assert found == {
        'instance/accuracy_50': pytest.approx(2 / 4),
        'instance/accuracy_60': pytest.approx(2 / 4),
        'instance/accuracy_70': pytest.approx(2 / 4),
        'instance/accuracy_80': pytest.approx(2 / 4),
        'instance/accuracy_90': pytest.approx(1 / 5),
    }


def test_score_thresholds(metric):
    truth = [(box(0, 10), 0, 0)]
    predicted = [(box(0, 10), 0, 0.4), (box(20, 30), 0, 0.3)]
    found = evaluate(metric(truth, score_thr=(0.2, 0.35, 0.5), iou_thrs=(0.5,)), predicted)
    assert found == {
        'instance/accuracy_50_score_20': 0.5,
        'instance/accuracy_50_score_35': 1.0,
        'instance/accuracy_50_score_50': 0.0,
    }
    assert evaluate(metric(truth, score_thr=0.3, iou_thrs=(0.5,)), predicted) == {
        'instance/accuracy_50': 0.5
    }


def test_classes_crowds_and_empty_images(metric):
    truth = [
        [(box(0, 10), 0, 0), (box(10, 40, 10, 20), 1, 1)],
        [],
        [(box(0, 10), 0, 0)],
    ]
    predicted = [
        # A wrong class; within a crowd of its class; half outside of it, but covered enough.
        [(box(0, 10), 1, 1), (box(12, 20, 10, 20), 1, 1), (box(5, 15, 10, 20), 1, 1)],
        [(box(0, 5), 0, 1)],
        [],
    ]
    found = evaluate(metric(*truth, iou_thrs=(0.5,)), *predicted)
    assert found['instance/accuracy_50'] == 0.0
    predicted[0].append((box(0, 10), 0, 1))
    found = evaluate(metric(*truth, iou_thrs=(0.5,)), *predicted)
    assert found['instance/accuracy_50'] == pytest.approx(1 / (1 + 2 + 1))
    assert np.isnan(evaluate(metric([]), [])['instance/accuracy_50'])


def test_matching_is_optimal():
    """Best first would pair (0, 0) and leave 1 without a partner: StarDist's finds both."""
    ious = np.array([[0.9, 0.6], [0.55, 0.0]])
    assert match(ious, 0.5).tolist() == [True, True]
    assert match(ious, 0.58).tolist() == [True, False]
    assert match(ious, 0.95).tolist() == [False, False]
    # Among equally many pairs the largest sum of IoUs: 0-1 and not 1-1.
    assert match(np.array([[0.7], [0.8]]), 0.5).tolist() == [False, True]
    assert match(np.zeros((0, 3)), 0.5).shape == (0,) and not match(np.zeros((2, 0)), 0.5).any()


@pytest.mark.parametrize(
    'options', [dict(iou_thrs=(0.0,)), dict(iou_thrs=()), dict(score_thr=1.5), dict(score_thr=())]
)
def test_thresholds_out_of_range(metric, options):
    with pytest.raises(ValueError, match='is invalid: give numbers from 0 to 1'):
        metric([], **options)


def test_a_detector_of_boxes_is_refused(metric):
    instances = dict(scores=torch.zeros(1), labels=torch.zeros(1))
    with pytest.raises(ValueError, match='needs a model that predicts masks'):
        metric([]).process({}, [dict(img_id=0, ori_shape=SIZE, pred_instances=instances)])
