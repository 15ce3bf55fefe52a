"""Exact on hand-made cases, and beside CocoMetric through mmdet's Runner."""

import math

import numpy as np
import pytest
import torch

from mmpaca.evaluation import ClusterAlignmentMetric
from mmpaca.evaluation.cluster_alignment_metric import (
    best_ious,
    decode_region,
    instance_patches,
    mutual_information,
    perplexity,
)
from mmpaca.explain import BlockRecord, Recording


def test_numbers_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 2])
    exact = np.array([0, 0, 0, 1, 1, 0], bool)
    half = np.array([0, 0, 1, 1, 0, 0], bool)
    # half shares one patch with cluster 0 of three (1/4) and one with cluster 1 of two (1/3).
    np.testing.assert_allclose(best_ious(labels, [exact, half], 4), [1, 1 / 3])
    assert mutual_information(np.diag([2, 2, 4])) == pytest.approx(1.5)
    assert mutual_information(np.outer([1, 2, 3], [4, 5])) == pytest.approx(0)
    assert mutual_information(np.array([[1, 1], [2, 0]])) == pytest.approx(
        2 * 0.25 * math.log2(0.25 / (0.5 * 0.75)) / 2
        + 0.25 * math.log2(0.25 / (0.5 * 0.25))
        + 0.5 * math.log2(0.5 / (0.5 * 0.75))
    )
    assert perplexity(np.array([3, 3, 3, 0])) == pytest.approx(3)
    assert perplexity(np.array([0, 7])) == 1
    assert instance_patches(np.array([[0.5, 0.49, np.nan]])).tolist() == [[True, False, False]]
    assert instance_patches(np.array([[0.1, 0.2, 0]])).tolist() == [[False, True, False]]
    assert not instance_patches(np.zeros((1, 2))).any()


def recording_of(labels: list[list[list[int]]], num_clusters: int, stride: int) -> Recording:
    """A recording whose strongest clusters are given, (B, H, W)."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(labels), num_clusters)
    block = BlockRecord(0, 0, stride, one_hot.permute(0, 3, 1, 2).float() + 0.1, None)
    return Recording(blocks={(0, 0): block}, input_shape=(16, 16))


def polygon(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def sample(img_id: int, instances: list[tuple], shape=(16, 12)) -> dict:
    return dict(
        img_id=img_id,
        ori_shape=shape,
        img_shape=shape,
        instances=[
            dict(bbox_label=label, mask=polygon(*box), ignore_flag=int(crowd), bbox=box)
            for label, box, crowd in instances
        ],
    )


def test_an_image_by_hand():
    """Two images of 16 x 12 pixels, padded to 16 x 16; the last column is padding."""
    metric = ClusterAlignmentMetric()
    metric.dataset_meta = dict(classes=('a', 'b'))
    first = [[0, 0, 1, 3], [0, 0, 1, 3], [2, 2, 2, 3], [2, 2, 2, 3]]
    second = [[2, 2, 2, 3], [2, 2, 2, 3], [2, 2, 2, 3], [2, 2, 1, 3]]
    metric.recording = recording_of([first, second], 5, stride=4)
    metric.process(
        None,
        [
            # Cluster 0 exactly; a small one that shares cluster 1's two patches by a half.
            sample(7, [(0, (0, 0, 8, 8), False), (1, (8, 0, 12, 4), False)]),
            # One pixel of a patch, on top of a crowd that fills the image.
            sample(8, [(0, (0, 0, 12, 16), True), (1, (8, 12, 9, 13), False)]),
        ],
    )
    numbers = metric.evaluate(size=2)
    assert numbers['clusters/stage1_iou'] == pytest.approx((1 + 1 / 2 + 1) / 3)
    # Patches by (cluster, category): background, a, b.
    table = np.array([[0, 4, 0], [1, 1, 1], [6, 11, 0]])
    assert numbers['clusters/stage1_mi_bits'] == pytest.approx(mutual_information(table))
    assert numbers['clusters/stage1_in_use'] == pytest.approx(perplexity(table.sum(1)))
    assert 0 < numbers['clusters/stage1_iou_random'] < numbers['clusters/stage1_iou']


def test_the_baseline_is_what_chance_gives():
    """Clusters without any relation to the objects are no better than shuffled ones."""
    rng = np.random.default_rng(0)
    metric = ClusterAlignmentMetric(seed=3)
    metric.dataset_meta = dict(classes=('a',))
    for image in range(40):
        metric.recording = recording_of([rng.integers(0, 4, (16, 16)).tolist()], 4, stride=1)
        metric.process(None, [sample(image, [(0, (2, 3, 9, 9), False)], shape=(16, 16))])
    results = list(metric.results)
    numbers = metric.evaluate(size=40)
    assert numbers['clusters/stage1_iou'] == pytest.approx(
        numbers['clusters/stage1_iou_random'], rel=0.05
    )
    assert numbers['clusters/stage1_mi_bits'] < 0.002
    assert numbers['clusters/stage1_mi_bits_random'] < 0.002
    # The baseline hangs on the image and the seed, not on the order or the process.
    metric.results = results[::-1]
    assert metric.evaluate(size=40)['clusters/stage1_iou_random'] == pytest.approx(
        numbers['clusters/stage1_iou_random']
    )


def test_what_is_missing_is_said():
    metric = ClusterAlignmentMetric()
    with pytest.raises(RuntimeError, match='ClusterRecordHook'):
        metric.process(None, [sample(1, [])])
    metric.recording = recording_of([[[0]]], 1, stride=16)
    with pytest.raises(RuntimeError, match='2 data samples.* 1 images'):
        metric.process(None, [sample(1, []), sample(2, [])])
    without = sample(1, [])
    del without['instances']
    with pytest.raises(ValueError, match='image 1 has no annotations'):
        metric.process(None, [without])


def test_an_instance_without_a_mask_is_its_box():
    instance = dict(bbox=[2, 1, 6.4, 4], mask=[])
    annotation = dict(bbox=[2, 1, 4.4, 3], segmentation=[])
    expected = np.zeros((8, 8), bool)
    expected[1:4, 2:6] = True
    assert (decode_region(instance, 'mask', (8, 8)) == expected).all()
    assert (decode_region(annotation, 'segmentation', (8, 8)) == expected).all()
