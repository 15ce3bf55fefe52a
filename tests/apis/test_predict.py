"""``mmpaca predict``: what it writes, for images, folders, globs and videos, and what it refuses."""

import json

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from pycocotools.coco import COCO

from mmpaca.__main__ import main
from mmpaca.apis.frames import find_sources
from mmpaca.apis.inference import Predictor
from mmpaca.apis.prediction import batched, predict_files

CONFIG = 'mask-rcnn_paca-demo_shapes'


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory with a folder of images that are padded to the same size."""
    (tmp_path / 'folder').mkdir()
    rng = np.random.default_rng(0)
    for name, size in (('a.png', (70, 50)), ('b.JPG', (84, 60))):
        pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / 'folder' / name), pixels)
    (tmp_path / 'folder/notes.txt').write_text('no image')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def predict(demo_weights):
    """Run the command in this process; returns the exit status."""

    def call(*arguments: object, config: object = CONFIG, weights: object = demo_weights) -> int:
        return main(['predict', *map(str, (config, weights, *arguments, '--device', 'cpu'))])

    return call


@pytest.fixture(scope='module')
def predictor(root, demo_weights):
    return Predictor(root / f'configs/demo/{CONFIG}.py', demo_weights, 'cpu')


def write_video(path, frames: list[np.ndarray]) -> None:
    size = frames[0].shape[1::-1]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 5, size)
    for frame in frames:
        video.write(frame)
    video.release()


def test_folder(predict, elsewhere, demo_weights, root, capsys):
    """The numbers are those of mmdet's own API; the pictures are enlarged."""
    from mmdet.apis import inference_detector, init_detector

    names = ('a.png', 'b.JPG')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = init_detector(
            str(root / f'configs/demo/{CONFIG}.py'), str(demo_weights), device='cpu'
        )
        samples = [inference_detector(model, str(elsewhere / 'folder' / name)) for name in names]
    assert predict('folder', '--batch-size', 2, '--score-thr', 0.5) == 0
    printed = capsys.readouterr()
    assert 'predicted 2 images; results are in outputs' in printed.out
    assert '/2' not in printed.out  # no progress bar where there is no terminal
    for name, sample in zip(names, samples, strict=True):
        image = cv2.imread(str(elsewhere / 'folder' / name))
        height, width = image.shape[:2]
        drawn = cv2.imread(f'outputs/vis/{name[0]}.jpg')
        scale = drawn.shape[0] // height
        assert drawn.shape == (scale * height, scale * width, 3) and scale * height >= 480
        found = json.loads((elsewhere / f'outputs/preds/{name[0]}.json').read_text())
        expected = sample.pred_instances
        np.testing.assert_allclose(found['scores'], expected.scores, atol=1e-4)
        np.testing.assert_allclose(found['bboxes'][:9], expected.bboxes[:9], atol=1e-2)
        assert found['labels'][:9] == expected.labels[:9].tolist()
        assert found['classes'][0] == model.dataset_meta['classes'][found['labels'][0]]
        assert found['masks'][0]['size'] == [height, width]


def test_coco_file(predict, elsewhere):
    assert predict('folder/*', '--no-save-vis') == 0
    assert not (elsewhere / 'outputs/vis').exists()
    coco = COCO('outputs/predictions.coco.json')
    assert [image['file_name'] for image in coco.loadImgs([1, 2])] == [
        'folder/a.png',
        'folder/b.JPG',
    ]
    assert [c['name'] for c in coco.dataset['categories']] == [
        'circle',
        'square',
        'triangle',
        'star',
    ]
    for image_id, name in ((1, 'a'), (2, 'b')):
        found = json.loads((elsewhere / f'outputs/preds/{name}.json').read_text())
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert [one['score'] for one in annotations] == found['scores']
        left, top, width, height = annotations[0]['bbox']
        assert [left, top, left + width, top + height] == pytest.approx(found['bboxes'][0])
        mask = coco.annToMask(annotations[0])
        assert mask.sum() == annotations[0]['area']
        assert list(mask.shape) == found['masks'][0]['size']
    # As predictions for the same file: every box finds itself.
    assert len(coco.loadRes(coco.dataset['annotations']).anns) == len(coco.anns)


def test_names(elsewhere):
    (elsewhere / 'other').mkdir()
    for name in ('other/a.png', 'other/A.jpg', 'other/a_2.png', 'clip.MP4'):
        (elsewhere / name).touch()
    sources = find_sources(['folder', 'other', 'clip.MP4', 'fold*/*.png'])
    assert [s.name for s in sources] == ['a', 'b', 'A_2', 'a_3', 'a_2_2', 'clip', 'a_4']
    assert [s.name for s in sources if s.is_video] == ['clip']
    with pytest.raises(FileNotFoundError, match='nowhere.png'):
        find_sources(['folder', 'nowhere.png'])
    (elsewhere / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='empty'):
        find_sources(['empty'])


def test_video(predictor, elsewhere):
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(3)]
    write_video('clip.avi', frames)
    done, broken = predict_files(predictor, ['clip.avi', 'folder/a.png'], 'out', batch_size=2)
    assert (done, broken) == (4, [])
    video = mmcv.VideoReader('out/vis/clip.mp4')
    assert (video.frame_cnt, video.fps, video.width, video.height) == (3, 5, 512, 384)
    found = json.loads((elsewhere / 'out/preds/clip.json').read_text())
    assert [one['frame_id'] for one in found] == [0, 1, 2]
    (again,) = predictor.predict([mmcv.VideoReader('clip.avi')[1]])
    np.testing.assert_allclose(found[1]['scores'], again.pred_instances.scores, atol=1e-4)
    coco = json.loads((elsewhere / 'out/predictions.coco.json').read_text())
    assert coco['videos'] == [dict(id=1, name='clip.avi')]
    assert [(i['file_name'], i.get('frame_id')) for i in coco['images'][1:]] == [
        ('clip.avi/000001.jpg', 1),
        ('clip.avi/000002.jpg', 2),
        ('folder/a.png', None),
    ]


def test_broken_files_do_not_stop_the_others(predict, elsewhere, capsys):
    whole = (elsewhere / 'folder/a.png').read_bytes()
    (elsewhere / 'half.png').write_bytes(whole[: len(whole) // 2])
    (elsewhere / 'text.mp4').write_text('no video')
    assert predict('half.png', 'text.mp4', 'folder', '--out-dir', 'out', '--no-save-vis') == 1
    printed = capsys.readouterr()
    assert 'predicted 2 images' in printed.out
    assert 'error: half.png is a truncated PNG' in printed.err
    assert 'error: text.mp4' in printed.err
    assert sorted(p.name for p in (elsewhere / 'out/preds').iterdir()) == ['a.json', 'b.json']


def test_an_interrupted_run_leaves_whole_files(predictor, elsewhere, monkeypatch):
    predict = predictor.predict
    batches = iter([predict])
    monkeypatch.setattr(predictor, 'predict', lambda images: next(batches)(images))
    with pytest.raises((StopIteration, RuntimeError)):
        predict_files(predictor, ['folder'], 'out', save_vis=False)
    coco = json.loads((elsewhere / 'out/predictions.coco.json').read_text())
    assert len(coco['images']) == 1 and len(coco['annotations']) > 0


def test_bad_arguments(predict, root, elsewhere, demo_weights, capsys):
    def says(error: str, *arguments: object, **kwargs: object) -> None:
        assert predict('folder', *arguments, **kwargs) == 1
        assert error in capsys.readouterr().err

    says('error: checkpoint none.pth does not exist', weights='none.pth')
    says("'nowhere.png'", 'nowhere.png')
    content = torch.load(demo_weights)
    del content['state_dict']['neck.lateral_convs.0.conv.weight']
    torch.save(content, elsewhere / 'part.pth')
    says('neck.lateral_convs.0.conv.weight', weights='part.pth')
    for score in ('nan', '1.5', '-0.1'):
        with pytest.raises(SystemExit) as end:
            predict('folder', '--score-thr', score)
        assert end.value.code == 2
    assert not (elsewhere / 'outputs').exists()


def test_classifier(elsewhere):
    arch = dict(embed_dims=(8,) * 4, num_heads=(1,) * 4, mlp_ratios=(1,) * 4, depths=(1,) * 4)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=64),
        dict(type='PackInputs'),
    ]
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='ImageClassifier',
                data_preprocessor=dict(mean=[0.0] * 3, std=[255.0] * 3),
                backbone=dict(type='PaCaViT', arch=arch, num_clusters=4, out_indices=(3,)),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=10, in_channels=8),
            ),
            test_dataloader=dict(dataset=dict(type='CIFAR10', pipeline=pipeline)),
        )
    )
    predictor = Predictor(cfg, None, 'cpu')
    assert predict_files(predictor, ['folder'], 'out', batch_size=2) == (2, [])
    found = json.loads((elsewhere / 'out/preds/a.json').read_text())
    assert sum(found['pred_scores']) == pytest.approx(1, abs=1e-5)
    scores = [one['score'] for one in found['top5']]
    assert len(scores) == 5 and scores == sorted(found['pred_scores'])[:-6:-1]
    assert (
        found['top5'][0]['class'] == found['pred_class'] == predictor.classes[found['pred_label']]
    )
    assert not (elsewhere / 'out/predictions.coco.json').exists()
    drawn = cv2.imread('out/vis/a.jpg')
    assert drawn.shape[1] % 50 == 0 and drawn.shape[0] > 480


def test_batches_are_read_as_they_are_needed():
    read = []
    batches = batched((read.append(i) or i for i in range(5)), 2)
    assert next(batches) == [0, 1] and read == [0, 1]
    assert list(batches) == [[2, 3], [4]]


def test_images_whose_masks_would_fill_the_memory(predictor):
    with pytest.raises(ValueError, match='is 10000x8000: .* may take 7 GiB, more than 6; scale'):
        predictor.check_size(8000, 10000)
    predictor.check_size(6000, 8000)


def test_a_checkpoint_that_names_too_few_classes(root, demo_weights, tmp_path):
    checkpoint = torch.load(demo_weights, weights_only=False)
    checkpoint.setdefault('meta', {})['dataset_meta'] = dict(classes=('a',))
    torch.save(checkpoint, tmp_path / 'few.pth')
    with pytest.raises(RuntimeError, match='few.pth names 1 classes, the model has 4'):
        Predictor(root / f'configs/demo/{CONFIG}.py', tmp_path / 'few.pth', 'cpu')


def test_verified_loader_in_the_test_pipeline(predictor, root, demo_weights):
    """mmdet's inferencer finds a loader by the name of mmcv's only."""
    config = Config.fromfile(root / f'configs/demo/{CONFIG}.py')
    first = config.test_dataloader.dataset.pipeline[0]
    assert first.type == 'LoadImageFromFile'
    config.test_dataloader.dataset.pipeline[0] = dict(
        type='mmpaca.LoadVerifiedImageFromFile', max_pixels=10**6
    )
    image = np.random.default_rng(0).integers(0, 255, (70, 50, 3), dtype=np.uint8)
    found, expected = (
        p.predict([image])[0] for p in (Predictor(config, demo_weights, 'cpu'), predictor)
    )
    assert len(found.pred_instances) > 0
    assert torch.equal(found.pred_instances.scores, expected.pred_instances.scores)
