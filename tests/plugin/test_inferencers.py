"""mmdet's DetInferencer: a broken image among others is an image without predictions."""

import shutil

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.logging import MMLogger
from PIL import Image

CONFIG = 'configs/demo/mask-rcnn_paca-demo_shapes.py'


@pytest.fixture(scope='module')
def inferencer(root, demo_weights):
    return DetInferencer(str(root / CONFIG), str(demo_weights), device='cpu', show_progress=False)


@pytest.fixture
def images(shapes, tmp_path) -> list[str]:
    """Two images; between them no image, an empty file, none, and a bomb of 2.5 gigapixels."""
    good = sorted((shapes / 'val').iterdir())[:2]
    paths = [tmp_path / f'{name}.png' for name in ('a', 'text', 'empty', 'missing', 'bomb', 'b')]
    shutil.copy(good[0], paths[0])
    paths[1].write_text('no image')
    paths[2].touch()
    Image.new('1', (50000, 50000)).save(paths[4])
    shutil.copy(good[1], paths[5])
    return [str(path) for path in paths]


@pytest.mark.parametrize('batch_size', [1, 4])
def test_broken_images_have_no_predictions(inferencer, images, tmp_path, batch_size, caplog):
    MMLogger.get_current_instance().addHandler(caplog.handler)
    called = dict(batch_size=batch_size, return_vis=True, pred_score_thr=0.0)
    found = inferencer(images, **called, no_save_pred=False, out_dir=str(tmp_path / 'out'))
    good = inferencer([images[0], images[5]], **called)
    assert found['predictions'][::5] == good['predictions']
    assert all(len(one['scores']) > 0 for one in good['predictions'])
    empty = dict(labels=[], scores=[], bboxes=[], masks=[])
    assert found['predictions'][1:5] == [empty] * 4
    pictures = found['visualization']  # in random colours
    assert [picture.shape for picture in pictures[::5]] == [(64, 64, 3)] * 2
    assert [picture.any() for picture in pictures] == [True, *4 * [False], True]
    assert sorted(path.name for path in (tmp_path / 'out/vis').iterdir()) == ['a.png', 'b.png']
    assert len(list((tmp_path / 'out/preds').iterdir())) == 6
    MMLogger.get_current_instance().removeHandler(caplog.handler)
    for path in images[1:5]:
        assert caplog.text.count(f'bad image {path}: ') == 1
    assert caplog.text.count('Bad data: 4 of 6 images could not be loaded') == 1


def test_nothing_but_broken_images(inferencer, images):
    for path in images[1:5]:
        with pytest.raises(ValueError, match=f'{path} cannot be read as an image: '):
            inferencer(path)
    with pytest.raises(ValueError, match=f'{images[4]} cannot be read as an image: '):
        inferencer(images[1:5], batch_size=3)
    assert len(inferencer(images[0])['predictions']) == 1


def test_what_is_wrong_with_the_pipeline_is_an_error(inferencer, images, monkeypatch):
    """Not the image."""

    def fail(results: dict) -> dict:
        raise KeyError('scale')

    monkeypatch.setattr(inferencer.pipeline.steps, 'transforms', [fail])
    for inputs in (images[0], [images[0], images[5]]):
        with pytest.raises(KeyError, match='scale'):
            inferencer(inputs)


def test_arrays_as_before(inferencer, images):
    image = np.full((40, 50, 3), 127, np.uint8)
    (sample,) = inferencer(image, return_datasamples=True)['predictions']
    assert sample.ori_shape == (40, 50)
    with pytest.raises((AttributeError, TypeError, ValueError)):
        inferencer([np.array('no image'), images[0]])
    assert torch.is_tensor(sample.pred_instances.scores)
