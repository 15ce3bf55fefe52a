"""``predict --slice``: slices give the detections of their pictures, and cut objects become one."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmpaca.__main__ import main
from mmpaca.apis.inference import Predictor
from mmpaca.apis.slicing import SlicedPredictor, reach_into_overlap


@pytest.fixture(scope='module')
def predictor(root, demo_weights):
    return Predictor(root / 'configs/demo/mask-rcnn_paca-demo_shapes.py', demo_weights, 'cpu')


def test_a_picture_of_four_pictures(predictor, shapes):
    """Without overlap: the detections of the four pictures, moved, to the last bit."""
    tiles = [cv2.imread(str(path)) for path in sorted((shapes / 'train').iterdir())[:4]]
    picture = np.concatenate([np.concatenate(tiles[:2], 1), np.concatenate(tiles[2:], 1)])
    (whole,) = SlicedPredictor(predictor, 64, overlap=0.0).predict([picture])
    found = whole.pred_instances
    number = 0
    for tile, (left, top) in zip(tiles, ((0, 0), (64, 0), (0, 64), (64, 64)), strict=True):
        (alone,) = predictor.predict([tile])
        expected = alone.pred_instances
        boxes = expected.bboxes + torch.tensor([left, top, left, top])
        number += len(expected)
        for i in range(len(expected)):
            same = (found.bboxes == boxes[i]).all(1) & (found.labels == expected.labels[i])
            (place,) = same.nonzero().flatten().tolist()
            assert found.scores[place] == expected.scores[i]
            masks = torch.zeros(128, 128, dtype=torch.bool)
            masks[top : top + 64, left : left + 64] = torch.as_tensor(expected.masks[i])
            assert torch.equal(found.masks[place], masks)
    assert number == len(found) > 20 and (found.scores.diff() <= 0).all()


class BrightBoxes:
    """A detector that finds the white rectangle of an image, whole or cut."""

    task, classes, to_dict, draw = 'detection', ('white',), None, None

    class model:
        test_cfg = None

    def predict(self, images):
        samples = []
        for image in images:
            rows, columns = np.nonzero(image[..., 0])
            found = []
            if len(rows):
                found = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]
            instances = InstanceData(
                bboxes=torch.tensor(found, dtype=torch.float32).reshape(-1, 4),
                labels=torch.zeros(len(found), dtype=torch.long),
                scores=torch.full((len(found),), 0.5 + len(rows) / 1e5),
                masks=torch.from_numpy(image[None, ..., 0] > 0)[: len(found)],
            )
            samples.append(DetDataSample(pred_instances=instances))
        return samples


def test_a_cut_object_is_one():
    image = np.zeros((60, 150, 3), np.uint8)
    image[10:30, 70:110] = 255  # slices from 0, 30, 60 and 90: cut in two of them, whole in one
    (found,) = SlicedPredictor(BrightBoxes(), 60, overlap=0.5).predict([image])
    one = found.pred_instances
    assert one.bboxes.tolist() == [[70, 10, 110, 30]] and found.ori_shape == (60, 150)
    assert torch.equal(one.masks[0], torch.from_numpy(image[..., 0] > 0))
    assert one.scores.item() == pytest.approx(0.508)


def test_overlaps():
    slices = np.array([[0, 0, 10, 10], [8, 0, 18, 10], [0, 10, 10, 20]])
    boxes = np.array([[0, 0, 8, 10], [0, 0, 9, 10], [11, 0, 18, 10], [8, 12, 10, 20]])
    assert reach_into_overlap(boxes, slices).tolist() == [False, True, False, False]
    assert not reach_into_overlap(boxes, slices[:1]).any()


def test_command(shapes, demo_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = str(sorted((shapes / 'val').iterdir())[0])
    arguments = ['mask-rcnn_paca-demo_shapes', str(demo_weights), image, '--device', 'cpu']
    assert main(['predict', *arguments, '--slice', '48', '--score-thr', '0.9']) == 0
    (entry,) = json.loads((tmp_path / 'outputs/predictions.coco.json').read_text())['images']
    assert (entry['height'], entry['width']) == (64, 64)
    (file,) = (tmp_path / 'outputs/preds').iterdir()
    found = json.loads(file.read_text())
    assert len(found['masks']) == len(found['bboxes']) > 0 and found['masks'][0]['size'] == [64, 64]


def test_bad_arguments(predictor):
    with pytest.raises(ValueError, match=r'size=0 must be at least 1 and overlap=0.2'):
        SlicedPredictor(predictor, 0)
    with pytest.raises(ValueError, match='overlap=1'):
        SlicedPredictor(predictor, 9, overlap=1)
    classifier = Predictor(
        Config(
            dict(
                default_scope='mmpretrain',
                model=dict(
                    type='ImageClassifier',
                    backbone=dict(type='PaCaViT', arch='nano', out_indices=(3,)),
                    neck=dict(type='GlobalAveragePooling'),
                    head=dict(type='LinearClsHead', num_classes=10, in_channels=128),
                ),
                test_dataloader=dict(dataset=dict(type='CIFAR10', pipeline=[
                    dict(type='LoadImageFromFile'), dict(type='PackInputs')])),
            )
        ),
        None,
        'cpu',
    )  # fmt: skip
    with pytest.raises(ValueError, match='--slice is for detectors'):
        SlicedPredictor(classifier, 64)
