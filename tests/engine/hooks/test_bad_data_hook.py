"""Broken images do not end an evaluation: they count as images without predictions."""

import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from PIL import Image
from toy import forked

from mmpaca.datasets import CLASSES
from mmpaca.datasets.evaluation import BROKEN, EvaluationLoader, drop_predictions
from mmpaca.datasets.seg_maps import SegFileError
from mmpaca.engine import BadDataSummaryHook
from mmpaca.registry import DATASETS

# As in mmdet's recipes, but for the size.
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'),
    ),
]


@MODELS.register_module('GroundTruthModel')
class GroundTruthModel(BaseModel):
    """Predicts what is annotated, also for images that could not be loaded."""

    def __init__(self):
        super().__init__()
        self.parameter = torch.nn.Parameter(torch.zeros(1))  # for DistributedDataParallel

    def forward(self, inputs, data_samples=None, mode='predict'):
        for sample in data_samples:
            if 'gt_sem_seg' in sample:
                sample.pred_sem_seg = sample.gt_sem_seg.clone()
                continue
            if 'gt_label' in sample:
                scores = torch.nn.functional.one_hot(sample.gt_label[0], 4)
                sample.set_pred_score(scores.float()).set_pred_label(sample.gt_label)
                continue
            truth = sample.gt_instances
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes.tensor,
                labels=truth.labels,
                scores=torch.ones(len(truth)),
                masks=torch.from_numpy(truth.masks.to_ndarray()),
            )
        return data_samples


def evaluate(root, tmp_path, **options):
    """Test on the validation images; returns the metrics and the log."""
    dataset = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        metainfo=dict(classes=CLASSES),
        test_mode=True,
        serialize_data=False,  # collects garbage, which takes a second late in a test run
        pipeline=PIPELINE,
    )
    cfg = dict(
        model=dict(type='mmengine.GroundTruthModel'),
        work_dir=str(tmp_path),
        test_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
            dataset=dataset,
        ),
        test_cfg=dict(),
        test_evaluator=dict(
            type='CocoMetric', ann_file=f'{root}/annotations/val.json', metric=['bbox', 'segm']
        ),
        default_hooks=dict(bad_data=dict(type='mmpaca.BadDataSummaryHook')),
        log_level='WARNING',
        experiment_name=f'bad_data_{tmp_path.name}',
        default_scope='mmdet',
    )
    cfg = Config(cfg)
    cfg.merge_from_dict(options)
    metrics = Runner.from_cfg(cfg).test()
    logs = sorted(tmp_path.glob('*/*.log'))
    return metrics, ''.join(log.read_text() for log in logs)


def expected_ap(coco, without):
    """AP of perfect detections on all images but some, mean of 101 recall thresholds a class."""
    missing = {image['id'] for image in coco['images'] if image['file_name'] in without}
    aps = []
    for category in coco['categories']:
        images = [a['image_id'] for a in coco['annotations'] if a['category_id'] == category['id']]
        recall = sum(image not in missing for image in images) / len(images)
        aps.append((np.linspace(0, 1, 101) <= recall).mean())
    return np.mean(aps)


@pytest.fixture(scope='module')
def broken(shapes, tmp_path_factory):
    """The shapes with two broken validation images, and annotations that crash pycocotools."""
    root = tmp_path_factory.mktemp('bad') / 'shapes'
    shutil.copytree(shapes, root)
    path = root / 'annotations/val.json'
    coco = json.loads(path.read_text())
    names = [image['file_name'] for image in coco['images']]
    whole = (root / 'val' / names[1]).read_bytes()
    (root / 'val' / names[1]).write_bytes(whole[: len(whole) // 2])
    (root / 'val' / names[6]).unlink()
    os.mkfifo(root / 'val' / names[6])  # reading it would never end
    extra = dict(image_id=coco['images'][0]['id'], category_id=1, iscrowd=0, bbox=[1, 1, 9, 9])
    broken = [dict(extra, id=10**6, area=81, segmentation=[[0, 0, 1e9, 0, 9, 9]])]
    path.write_text(json.dumps({**coco, 'annotations': [*coco['annotations'], *broken]}))
    return root, coco, (names[1], names[6])


@pytest.mark.parametrize('dataset', ['CocoDataset', 'mmpaca.TolerantCocoDataset'])
def test_broken_images_count_as_images_without_predictions(broken, tmp_path, dataset):
    root, coco, names = broken
    options = {
        'test_dataloader.dataset.type': dataset,
        'test_dataloader.num_workers': 2,
        'default_hooks.bad_data.max_bad_share': 0.25,
    }
    metrics, log = evaluate(root, tmp_path, **options)
    expected = expected_ap(coco, names)
    assert 0.5 < expected < 0.9
    assert metrics['coco/bbox_mAP'] == pytest.approx(expected, abs=1e-3)
    assert metrics['coco/segm_mAP'] == pytest.approx(expected, abs=1e-3)
    for name, says in zip(
        names, ('truncated PNG', 'is not a file but a folder, a pipe'), strict=True
    ):
        assert len(re.findall(rf'bad image \S+/val/{name}: .*{says}.*counts as', log)) == 1
    assert re.search(r'Bad data: 2 of 8 images of this evaluation could not be loaded', log)
    assert 'ground truth of CocoMetric' in log and 'far outside of the image' in log


def test_too_many_broken_images_end_an_evaluation(broken, tmp_path):
    says = r'2 of 8 images of the evaluation are broken, more than max_bad_share=0.2 of BadData'
    with pytest.raises(RuntimeError, match=says):
        evaluate(broken[0], tmp_path)
    with pytest.raises(ValueError, match='max_bad_share=nan must be in 0..1'):
        BadDataSummaryHook(max_bad_share=float('nan'))


def test_two_processes(broken, tmp_path):
    """Each knows of its own broken image; the metric and the summary are as in one process."""
    root, coco, names = broken

    def rank(number):
        os.environ['LOCAL_RANK'] = str(number)
        dist.init_process_group('gloo', f'file://{tmp_path}/store', rank=number, world_size=2)
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
        share = {'default_hooks.bad_data.max_bad_share': 0.25}
        metrics, log = evaluate(
            root, tmp_path, **share, launcher='pytorch', model_wrapper_cfg=wrapper
        )
        if number == 0:
            assert metrics['coco/segm_mAP'] == pytest.approx(expected_ap(coco, names), abs=1e-3)
            assert 'Bad data: 2 of 8 images' in log and all(f'val/{name}' in log for name in names)

    assert forked(lambda: rank(0), lambda: rank(1)) == [0, 0]


def test_classification(shapes, tmp_path):
    """A classifier's answer for a broken image is wrong."""
    pytest.importorskip('mmpretrain')
    for label in range(4):
        folder = tmp_path / f'images/class{label}'
        folder.mkdir(parents=True)
        for number, source in enumerate(sorted((shapes / 'val').iterdir())[:2]):
            shutil.copy(source, folder / f'{number}.png')
    (tmp_path / 'images/class2/1.png').write_bytes(b'')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    dataset = dict(
        _delete_=True, type='CustomDataset', data_root=str(tmp_path / 'images'), test_mode=True
    )
    metrics, log = evaluate(
        tmp_path,
        tmp_path,
        **{
            'default_scope': 'mmpretrain',
            'test_dataloader.dataset': dict(**dataset, pipeline=pipeline),
            'test_evaluator': dict(_delete_=True, type='Accuracy', topk=(1, 3)),
        },
    )
    assert metrics == {'accuracy/top1': 87.5, 'accuracy/top3': 87.5}
    assert '1 of 8 images of this evaluation' in log


def test_semantic_segmentation(tmp_path):
    """The pixels of a broken image count as missed, at the size of its label map."""
    pytest.importorskip('mmseg')
    maps = [
        np.zeros((20, 30), np.uint8),
        np.ones((40, 10), np.uint8),
        np.full((25, 40), 2, np.uint8),
    ]
    maps[1][:, :5] = 2
    for number, labels in enumerate(maps):
        Image.fromarray(labels).save(tmp_path / f'{number}.png')
        Image.new('RGB', labels.shape[::-1]).save(tmp_path / f'{number}.jpg')
    (tmp_path / '1.jpg').write_bytes((tmp_path / '1.jpg').read_bytes()[:-20])
    options = {
        'default_scope': 'mmseg',
        'test_dataloader.dataset': dict(
            _delete_=True,
            type='BaseSegDataset',
            data_prefix=dict(img_path=str(tmp_path), seg_map_path=str(tmp_path)),
            metainfo=dict(classes=('a', 'b', 'c')),
            reduce_zero_label=False,
            test_mode=True,
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='mmpaca.LoadVerifiedSegMap'),
                dict(type='PackSegInputs'),
            ],
        ),
        'test_evaluator': dict(_delete_=True, type='IoUMetric'),
        'default_hooks.bad_data.max_bad_share': 0.5,
    }
    metrics, log = evaluate(tmp_path, tmp_path / 'run', **options)
    # a: all right; b: 0 of 200; c: 1000 of 1200.
    assert metrics['mIoU'] == pytest.approx(100 * (1 + 0 + 1000 / 1200) / 3, abs=0.01)
    assert metrics['aAcc'] == pytest.approx(100 * 1600 / 2000, abs=0.01)
    assert '1 of 3 images of this evaluation' in log

    Image.new('RGB', (31, 20)).save(tmp_path / '0.jpg')
    with pytest.raises(SegFileError, match=r'label map \S+/0.png is 30x20, its image \S+ is 31x20'):
        evaluate(tmp_path, tmp_path / 'again', **options)


def test_panoptic_predictions_are_left_out():
    """Pixels without a class are void in mmdet's panoptic metric; other images keep theirs."""
    samples = []
    for broken in (True, False):
        sample = BaseDataElement(metainfo={BROKEN: broken})
        sample.pred_panoptic_seg = PixelData(sem_seg=torch.full((1, 2, 3), 1007))
        sample.pred_instances = InstanceData(scores=torch.ones(4))
        samples.append(sample)
    model = GroundTruthModel()
    drop_predictions(model, (), samples)
    assert [s.pred_panoptic_seg.sem_seg.unique().tolist() for s in samples] == [[255], [1007]]
    assert [len(s.pred_instances) for s in samples] == [0, 4]
    with pytest.raises(
        RuntimeError, match='photo.jpg is broken, and predictions of a GroundTruthModel'
    ):
        drop_predictions(
            model, (), [BaseDataElement(metainfo={BROKEN: True, 'img_path': 'photo.jpg'})]
        )


@pytest.mark.parametrize('orientation', range(1, 9))
def test_photographs_turned_by_exif_are_read_alike(tmp_path, orientation):
    """In training, validation and, without an annotated size, as they are to be looked at."""
    from mmpaca.datasets.images import read_image

    rng = np.random.default_rng(0)
    stored = rng.integers(0, 255, (3, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / 'a.png', exif=exif)
    turns = orientation >= 5
    upright = read_image(tmp_path / 'a.png')
    assert upright.shape == ((32, 24, 3) if turns else (24, 32, 3))
    for annotated in ((24, 32), (32, 24)) if turns else ((24, 32),):
        read = []
        for test_mode, loader in (
            (False, 'mmpaca.LoadVerifiedImageFromFile'),
            (True, 'LoadImageFromFile'),
        ):
            height, width = annotated
            coco = dict(
                images=[dict(id=1, file_name='a.png', width=width, height=height)],
                annotations=[dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0)],
                categories=[dict(id=1, name='a')],
            )  # fmt: skip
            (tmp_path / 'a.json').write_text(json.dumps(coco))
            with DefaultScope.overwrite_default_scope('mmdet'):
                data = DATASETS.build(dict(
                    type='mmpaca.TolerantCocoDataset', ann_file=str(tmp_path / 'a.json'),
                    data_prefix=dict(img=str(tmp_path)), metainfo=dict(classes=('a',)),
                    pipeline=[dict(type=loader), dict(type='PackDetInputs', meta_keys=())], test_mode=test_mode,
                    serialize_data=False,
                ))  # fmt: skip
            prepare = EvaluationLoader(data, 0) if test_mode else data.prepare_data
            read.append(prepare(0)['inputs'].permute(1, 2, 0).numpy())  # (3, H, W) -> (H, W, 3)
        assert np.array_equal(*read) and read[0].shape[:2] == annotated
        as_stored = turns and annotated == (24, 32)
        assert np.array_equal(read[0], stored[..., ::-1] if as_stored else upright)


def test_files_outside_of_the_image_folder_are_not_opened(shapes, tmp_path):
    cv2.imwrite(str(tmp_path / 'secret.png'), np.zeros((64, 64, 3), np.uint8))
    coco = json.loads((shapes / 'annotations/val.json').read_text())
    coco['images'][0]['file_name'] = os.path.relpath(tmp_path / 'secret.png', shapes / 'val')
    (tmp_path / 'val.json').write_text(json.dumps(coco))
    with DefaultScope.overwrite_default_scope('mmdet'):
        data = DATASETS.build(
            dict(
                type='CocoDataset',
                ann_file=str(tmp_path / 'val.json'),
                test_mode=True,
                data_prefix=dict(img=str(shapes / 'val')),
                metainfo=dict(classes=CLASSES),
                pipeline=PIPELINE,
            )  # fmt: skip
        )
    with pytest.raises(RuntimeError, match=r'secret.png: is outside of the image folder'):
        EvaluationLoader(data, 0)(0)
