"""Resizing, padding and cropping in the file equal those of mmcv's transforms."""

import cv2
import mmpretrain.datasets  # noqa: F401
import numpy as np
import onnx
import onnxruntime
import pytest
from mmengine.registry import TRANSFORMS, DefaultScope

from mmpaca.deploy.pipeline import fixed_size, read_pipeline
from mmpaca.deploy.preprocessing import write_preprocessing

SIZES = ((427, 640), (375, 500), (333, 221), (90, 160), (96, 64))
PIPELINES = dict(
    ratio=[dict(type='Resize', scale=(1333, 800), keep_ratio=True)],
    letterbox=[
        dict(type='Resize', scale=(320, 320), keep_ratio=True),
        dict(type='Pad', size=(320, 320), pad_val=dict(img=(114, 114, 114))),
    ],
    exact=[dict(type='Resize', scale=(96, 64), keep_ratio=False)],
    factor=[dict(type='Resize', scale_factor=0.548, keep_ratio=True)],
    factors=[dict(type='Resize', scale_factor=(1.5, 0.7))],
    cubic=[dict(type='Resize', scale=64, interpolation='bicubic')],
    crop=[
        dict(type='ResizeEdge', scale=80, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=64),
    ],
)


def blobs(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize('name', PIPELINES)
def test_equals_mmcv(name):
    steps = read_pipeline(
        [dict(type='LoadImageFromFile'), *PIPELINES[name], dict(type='PackInputs')]
    )
    model = write_preprocessing(steps, 20, 10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    scope = 'mmpretrain' if name == 'crop' else 'mmdet'
    with DefaultScope.overwrite_default_scope(scope):
        transforms = [TRANSFORMS.build(transform) for transform in PIPELINES[name]]
    for size in SIZES:
        image = blobs(*size)
        results = dict(img=image, img_shape=size, ori_shape=size)
        for transform in transforms:
            results = transform(results)
        planes, scale, ratio, picture = session.run(None, dict(picture=image[None]))
        expected = results['img'].transpose(2, 0, 1)[None].astype(int)
        assert planes.shape == expected.shape and planes.shape[2:] == (
            fixed_size(steps) or planes.shape[2:]
        )
        error = np.abs(planes - expected)
        # The cubic weights of both libraries are integers.
        assert error.max() <= (name in ('cubic', 'crop')) and error.mean() < 0.02
        assert picture.tolist() == list(size)
        assert np.allclose(ratio, 1 / np.array(results['scale_factor']), rtol=1e-15)
        assert np.array_equal(scale, np.float32([*ratio, *ratio]))


@pytest.mark.parametrize(
    ('transform', 'says'),
    [
        (dict(type='Rotate'), 'the test pipeline has Rotate, which is not exported: it may have'),
        (dict(type='Resize', keep_ratio=True), 'neither scale nor scale_factor'),
        (dict(type='Resize', scale=8, interpolation='area'), "by cv2 with interpolation='area'"),
        (dict(type='Pad', size_divisor=32), r'is exported with size=\(W, H\) only'),
        (dict(type='Pad', size=(8, 8), pad_val=(1, 2, 3)), 'only one value for all channels'),
        (dict(type='CenterCrop', crop_size=8, auto_pad=True), 'auto_pad=True is not exported'),
        (dict(type='ResizeEdge', scale=8, edge='width'), "edge='width'"),
    ],
)
def test_other_transforms_are_named(transform, says):
    with pytest.raises(ValueError, match=says):
        read_pipeline([transform])
