"""A map lies on the pixels that it came from, through the real pipelines."""

import cv2
import mmdet.datasets.transforms  # noqa: F401
import mmpretrain.datasets.transforms  # noqa: F401
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.models import DetDataPreprocessor
from mmengine.registry import DefaultScope

from mmpaca.explain.geometry import Geometry

STRIDES = (4, 8, 16, 32)
RESIZES = {
    'mmdet': dict(type='mmdet.Resize', scale=(150, 90), keep_ratio=True),
    'enlarged': dict(type='mmdet.Resize', scale=(301, 301), keep_ratio=True),
    'squeezed': dict(type='mmdet.Resize', scale=(64, 96), keep_ratio=False),
    'padded': [
        dict(type='mmdet.Resize', scale=(150, 90), keep_ratio=True),
        dict(type='mmdet.Pad', size_divisor=64),
    ],
    'centre crop': [
        dict(type='mmpretrain.ResizeEdge', scale=75, edge='short'),
        dict(type='mmpretrain.CenterCrop', crop_size=64),
    ],
    'not resized': [],
}


def through_pipeline(image: np.ndarray, path, transforms) -> tuple[torch.Tensor, dict]:
    """The network's input, batch padding included, and the data sample's meta information."""
    cv2.imwrite(str(path), image)
    transforms = transforms if isinstance(transforms, list) else [transforms]
    keys = ('ori_shape', 'img_shape', 'scale_factor')
    with DefaultScope.overwrite_default_scope('mmdet'):
        results = Compose([dict(type='LoadImageFromFile'), *transforms])(
            dict(img_path=str(path), img_id=0)
        )
    meta = {key: results[key] for key in keys if key in results}
    pixels = torch.from_numpy(np.ascontiguousarray(results['img'])).permute(2, 0, 1)
    batch = DetDataPreprocessor(pad_size_divisor=32)(dict(inputs=[pixels], data_samples=None))
    return batch['inputs'][0, 0], meta


@pytest.mark.parametrize('name', RESIZES)
@pytest.mark.parametrize('stride', STRIDES)
def test_a_map_lies_on_its_pixels(name, stride, tmp_path):
    """A map made of the input's pixels, laid on the image, is the image again."""
    rows, columns = np.mgrid[:103, :161]
    smooth = np.round(90 + rows * 0.6 + columns * 0.4).astype(np.uint8)  # no value twice nearby
    source = np.repeat(smooth[..., None], 3, 2)
    pixels, meta = through_pipeline(source, tmp_path / 'a.png', RESIZES[name])
    geometry = Geometry.from_meta(meta)
    height, width = (-(-n // stride) for n in pixels.shape)
    # A synthetic map: the pixel at the middle of each patch, or the last one at the border.
    middle = [
        np.minimum(np.arange(n) * stride + stride // 2, size - 1)
        for n, size in zip((height, width), pixels.shape, strict=True)
    ]
    laid = geometry.to_image(pixels.numpy()[np.ix_(*middle)].astype(float), stride, fill=np.nan)
    assert laid.shape == (103, 161)
    inside = ~np.isnan(laid)
    assert inside.all() == (name != 'centre crop')
    scale = 103 / geometry.resized_shape[0], 161 / geometry.resized_shape[1]
    # Half a patch is what a pixel can be away from the middle of its own.
    bound = stride / 2 * (0.6 * scale[0] + 0.4 * scale[1]) + 2
    # A patch at the border may have its middle in the padding, which is black.
    shown = np.zeros(pixels.shape, bool)
    shown[: geometry.input_shape[0], : geometry.input_shape[1]] = True
    whole = geometry.to_image(shown[np.ix_(*middle)], stride)
    assert whole.mean() > 0.3
    assert np.abs(laid - smooth)[inside & whole].max() <= bound
    if name == 'centre crop':
        middle_third = np.s_[15:88, 45:116]
        assert inside[middle_third].all() and not inside[:, :20].any()


@pytest.mark.parametrize('name', RESIZES)
def test_one_patch_covers_itself_alone(name, tmp_path):
    """From the map to the image and back gives the same map."""
    image = np.zeros((103, 161, 3), np.uint8)
    pixels, meta = through_pipeline(image, tmp_path / 'a.png', RESIZES[name])
    geometry = Geometry.from_meta(meta)
    stride = 16
    shape = tuple(-(-n // stride) for n in pixels.shape)
    rng = np.random.default_rng(0)
    one = np.zeros(shape, bool)
    one[2, 3] = True
    mask = geometry.to_image(one, stride)
    back = geometry.to_map(mask, stride, shape)
    assert back[2, 3] > 0.8 and np.nansum(back) - back[2, 3] < 0.5
    left, top, width, height = geometry.cell_box(stride)
    ys, xs = np.nonzero(mask)
    edges = (left + 3 * width, top + 2 * height, left + 4 * width, top + 3 * height)
    found = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert np.abs(np.subtract(edges, found)).max() <= 1
    # Everything is covered wholly, padding not at all, and means are means.
    full = geometry.to_map(np.ones((103, 161)), stride, shape)
    visible = tuple(-(-n // stride) for n in geometry.input_shape)
    assert (full[: visible[0], : visible[1]] == 1).all()
    assert np.isnan(full[visible[0] :]).all() and np.isnan(full[:, visible[1] :]).all()
    noise = rng.random(shape)
    laid = geometry.to_image(noise, stride)
    np.testing.assert_allclose(
        geometry.to_map(laid, stride, shape)[1:3, 1:3], noise[1:3, 1:3], atol=0.12
    )


def test_coverage_counts_pixels():
    geometry = Geometry((10, 12), (10, 12), (10, 12))
    mask = np.zeros((10, 12), bool)
    mask[:3, 4:8] = True  # 12 of the 16 pixels of one patch
    mask[8:, :1] = True  # 2 of 8: the patch's other half is padding
    expected = [[0, 0.75, 0, np.nan], [0, 0, 0, np.nan], [0.25, 0, 0, np.nan]]
    np.testing.assert_array_equal(geometry.to_map(mask, 4, (3, 4)), expected)


def test_what_cannot_be_undone_is_said():
    meta = dict(ori_shape=(10, 10), img_shape=(10, 10))
    with pytest.raises(ValueError, match='has no img_shape'):
        Geometry.from_meta(dict(ori_shape=(10, 10)))
    with pytest.raises(ValueError, match='flips the image'):
        Geometry.from_meta(dict(meta, flip=True))
    with pytest.raises(ValueError, match=r'img_shape=\(5, 5\) and no scale_factor'):
        Geometry.from_meta(dict(meta, img_shape=(5, 5)))
    assert Geometry.from_meta(dict(meta, flip=False)).offset == (0, 0)
