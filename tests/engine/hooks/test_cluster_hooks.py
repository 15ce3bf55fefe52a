"""The metric beside CocoMetric and the pictures of a training, through mmdet's Runner."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector
from mmdet.datasets.api_wrappers import COCO
from mmdet.models import DetTTAModel
from mmengine.registry import HOOKS, METRICS, DefaultScope
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer
from PIL import Image
from toy import TINY

from mmpaca.engine import ClusterRecordHook, ClusterVisualizationHook
from mmpaca.engine.wrappers import unwrapped
from mmpaca.evaluation import ClusterAlignmentMetric
from mmpaca.explain import attribute, sheets
from mmpaca.explain.perturbation import deletion_insertion
from mmpaca.explain.scene import Scene, read_detections
from mmpaca.explain.subject import Subject


def hooked(model: torch.nn.Module) -> list:
    return [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_the_metric_runs_beside_coco(runner, shapes):
    """Results do not depend on batch size or source of the annotations."""
    tester = runner()
    weights = tester.model.state_dict()
    metrics = tester.test()
    assert 'coco/segm_mAP' in metrics
    names = [f'clusters/stage{s}_{n}{r}' for s in (1, 2) for n in ('iou', 'mi_bits') for r in ('', '_random')]  # fmt: skip
    names += ['clusters/stage1_in_use', 'clusters/stage2_in_use']
    ours = {name: value for name, value in metrics.items() if name.startswith('clusters/')}
    assert sorted(ours) == sorted(names)  # stages 3 and 4 have no clusters
    assert all(0 <= ours[name] <= 1 for name in names if 'iou' in name)
    assert all(1 <= ours[f'clusters/stage{s}_in_use'] <= 49 for s in (1, 2))
    assert not hooked(tester.model)

    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='Resize', scale=(96, 96), keep_ratio=True),
        dict(type='PackDetInputs', meta_keys=keys),
    ]
    other = runner(
        test_dataloader=dict(batch_size=3, dataset=dict(pipeline=pipeline)),
        test_evaluator=[dict(type='ClusterAlignmentMetric')],
    )
    other.test_loop.evaluator.metrics[0]._coco = None  # from `instances`
    other.model.load_state_dict(weights)
    again = other.test()
    assert set(again) == set(ours)
    assert {k: again[k] for k in ours} == pytest.approx(ours, abs=1e-6)


def test_retinanet_has_no_masks_but_a_metric(runner, shapes):
    retina = dict(
        _delete_=True,
        type='RetinaNet',
        backbone=dict(type='PaCaViT', arch=TINY, num_clusters=(5, 5, 5, 0)),
        neck=dict(type='FPN', in_channels=[8] * 4, out_channels=16, num_outs=4),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=4,
            in_channels=16,
            stacked_convs=1,
            feat_channels=16,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[4, 8, 16, 32]
            ),
        ),
        test_cfg=dict(
            nms_pre=20, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5
        ),
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    )
    metrics = runner(
        model=retina,
        test_evaluator=[
            dict(type='CocoMetric', metric='bbox'),
            dict(type='ClusterAlignmentMetric'),
        ],
    ).test()
    assert {'coco/bbox_mAP', 'clusters/stage3_iou'} <= set(metrics)


def test_faithfulness_beside_the_clusters(runner):
    """Every second image; the model runs again, and the recording stays that of the batch."""
    clusters = dict(type='ClusterAlignmentMetric')
    faithful = dict(type='FaithfulnessMetric', interval=2, per_image=2, steps=3)
    tester = runner(test_evaluator=[faithful, clusters])
    with torch.no_grad():
        tester.model.roi_head.bbox_head.fc_cls.bias[0] += 3  # it finds circles everywhere
    alone = runner(test_evaluator=[clusters])
    alone.model.load_state_dict(tester.model.state_dict())

    model, dataset = tester.model.eval(), tester.test_dataloader.dataset
    model.cfg = tester.cfg
    expected = []
    circles = tester.test_evaluator.metrics[0]._coco = COCO()
    circles.dataset = dict(images=[], annotations=[], categories=[dict(id=7, name='circle')])
    for i in range(0, 8, 2):
        info = dataset.get_data_info(i)
        image = cv2.imread(info['img_path'])
        found = read_detections(inference_detector(model, image), image.shape[:2], None, 0.3)[:2]
        subject = Subject(model, np.ascontiguousarray(image[..., ::-1]))
        for heat, one in zip(attribute(model, subject.image, found), found, strict=True):
            deletion, insertion = deletion_insertion(subject, heat, one, 3)
            row = dict(deletion=np.trapezoid(deletion) / 3, insertion=np.trapezoid(insertion) / 3)
            expected.append(row)
        left, top, right, bottom = (int(v) for v in one.box)  # of the second one
        box = [left, top, right - left, bottom - top]
        shape = [left, top, right, top, right, bottom, left, bottom]
        circles.dataset['images'].append(dict(id=info['img_id'], height=64, width=64))
        circles.dataset['annotations'].append(
            dict(id=i, image_id=info['img_id'], category_id=7, bbox=box, segmentation=[shape])
        )
        row['energy'] = heat[top:bottom, left:right].sum() / heat.sum()
    circles.createIndex()

    metrics = tester.test()
    assert metrics['explain/detections'] == len(expected) == 8
    for name in ('deletion', 'insertion', 'energy'):
        mean = np.mean([row[name] for row in expected if name in row])
        assert metrics[f'explain/{name}'] == pytest.approx(mean, rel=1e-3), name
    assert 0 < metrics['explain/sparsity'] < 1 and 0 <= metrics['explain/pointing'] <= 1
    assert alone.test().items() <= metrics.items()
    assert not hooked(model)


def test_pictures_of_every_second_validation(runner, tmp_path):
    trainer = runner(
        'mask-rcnn_paca-demo_shapes_clusters.py',
        train_cfg=dict(max_iters=3, val_interval=1),
        train_dataloader=dict(batch_size=1),
        val_dataloader=dict(batch_size=2, dataset=dict(indices=4)),
        custom_hooks=[
            dict(type='ClusterVisualizationHook', interval=2, num_images=3, num_clusters=1)
        ],
    )
    trainer.train()
    assert not hooked(trainer.model)
    found = sorted(path.name for path in tmp_path.rglob('clusters_*'))
    stages = [f'stage{stage}_block1' for stage in (1, 2)]
    images = [f'{i:06d}' for i in (1, 2, 3)]
    expected = {f'clusters_{i}_{s}_{step}.png' for i in images for s in stages for step in (1, 3)}
    assert expected == {name for name in found if 'looked_at' not in name}
    one = cv2.imread(str(next(tmp_path.rglob('clusters_000001_stage1_block1_1.png'))))
    assert one.shape[1] == 2 * 320 + 4 and np.ptp(one) > 100


def test_tensorboard_has_the_pictures(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    picture = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    monkeypatch.setattr(Scene, 'from_sample', lambda *_: None)
    monkeypatch.setattr(sheets, 'all_sheets', lambda *_: [('stage1_block2', picture)])
    Image.new('RGB', (64, 40)).save(tmp_path / 'a.jpg')
    backends = [dict(type='TensorboardVisBackend')]
    hook, runner = ClusterVisualizationHook(), SimpleNamespace()
    hook._recording = None
    runner.visualizer = Visualizer(vis_backends=backends, save_dir=str(tmp_path))
    for runner.iter in (3, 7):
        meta = dict(img_path=str(tmp_path / 'a.jpg'), ori_shape=(40, 64))
        hook._draw(runner, 0, BaseDataElement(metainfo=meta))
    runner.visualizer.close()
    (events,) = tmp_path.rglob('events*')
    written = EventAccumulator(str(events.parent), size_guidance=dict(images=0)).Reload()
    images = written.Images('clusters_a_stage1_block2')
    assert [image.step for image in images] == [3, 7]
    for image in images:
        decoded = cv2.imdecode(np.frombuffer(image.encoded_image_string, np.uint8), 1)[..., ::-1]
        np.testing.assert_array_equal(decoded, picture)


def test_exif_orientation_as_in_the_annotations(tmp_path, monkeypatch):
    """Images are read as mmpaca.LoadVerifiedImageFromFile does."""
    tag = Image.Exif()
    tag[0x0112] = 6  # turn by 90 degrees
    Image.new('RGB', (64, 40)).save(tmp_path / 'a.jpg', exif=tag)
    shapes = []
    monkeypatch.setattr(Scene, 'from_sample', lambda image, *_: shapes.append(image.shape))
    monkeypatch.setattr(sheets, 'all_sheets', lambda *_: [])
    hook = ClusterVisualizationHook()
    hook._recording = None
    runner = SimpleNamespace(visualizer=SimpleNamespace(dataset_meta=None))
    for shape in ((40, 64), (64, 40)):
        meta = dict(img_path=str(tmp_path / 'a.jpg'), ori_shape=shape)
        hook._draw(runner, 0, BaseDataElement(metainfo=meta))
    assert shapes == [(40, 64, 3), (64, 40, 3)]


def test_bare_names_under_any_scope():
    for scope in ('mmdet', 'mmpretrain', 'mmengine', 'mmpaca'):
        with DefaultScope.overwrite_default_scope(scope):
            assert isinstance(HOOKS.build(dict(type='ClusterRecordHook')), ClusterRecordHook)
            assert HOOKS.get('ClusterVisualizationHook') is ClusterVisualizationHook
            metric = METRICS.build(dict(type='ClusterAlignmentMetric', seed=1))
            assert isinstance(metric, ClusterAlignmentMetric)
    with pytest.raises(ValueError, match='interval=0'):
        ClusterVisualizationHook(interval=0)


def test_test_time_augmentation_is_refused(runner):
    model = runner().model
    assert unwrapped(model, allow_tta=False) is model
    wrapped = DetTTAModel(module=model)
    assert unwrapped(wrapped) is model
    with pytest.raises(ValueError, match='run without --tta'):
        unwrapped(wrapped, allow_tta=False)
