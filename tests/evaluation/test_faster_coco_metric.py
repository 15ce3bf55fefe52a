"""faster-coco-eval gives pycocotools' numbers, in every case that mmdet's CocoMetric has."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from commands import ROOT
from mmdet.evaluation.metrics import CocoMetric
from mmengine.registry import METRICS, DefaultScope
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import mmpaca
from mmpaca.datasets import CLASSES
from mmpaca.evaluation import FasterCOCOeval, FasterCocoMetric


@pytest.fixture  # for each test its own: evaluators write into it
def truth(shapes) -> COCO:
    """The shapes' annotations, some of them crowds."""
    coco = COCO()
    coco.dataset = json.loads((shapes / 'annotations/train.json').read_text())
    for annotation in coco.dataset['annotations'][::7]:
        annotation['iscrowd'] = 1
    coco.createIndex()
    return coco


def detect(truth: COCO, rng: np.random.Generator, per_image: int) -> dict[int, dict]:
    """Objects found askew, some of a wrong class, many with the same score, in mmdet's form."""
    found = {}
    for image_id in truth.getImgIds()[: 640 // per_image]:
        objects = truth.loadAnns(truth.getAnnIds(image_id))
        chosen = [objects[i] for i in rng.integers(len(objects), size=per_image)]
        masks = np.stack([truth.annToMask(one) for one in chosen])
        shift = rng.integers(-6, 7, (per_image, 2))
        masks = np.stack([np.roll(m, s, (0, 1)) for m, s in zip(masks, shift, strict=True)])
        # (N, 4), x y width height -> corners; whole pixels, so that IoUs meet the thresholds
        corners = np.round([one['bbox'] for one in chosen])
        corners[:, 2:] += corners[:, :2]
        corners[:, 2:] += shift
        labels = np.array([one['category_id'] - 1 for one in chosen])
        wrong = rng.random(per_image) < 0.3
        labels[wrong] = rng.integers(len(CLASSES), size=wrong.sum())
        scores = rng.random(per_image)
        if per_image > 100:  # the best come last
            scores = np.abs(shift).mean(1) / 6
        found[image_id] = dict(
            bboxes=torch.tensor(corners, dtype=torch.float32),
            labels=torch.tensor(labels),
            scores=torch.tensor(scores.round(1)),
            masks=[coco_mask.encode(np.asfortranarray(mask)) for mask in masks],
        )
    return found


def as_instance(annotation: dict) -> dict:
    """As mmdet's CocoDataset makes it."""
    x, y, width, height = annotation['bbox']
    label, crowd = annotation['category_id'] - 1, annotation['iscrowd']
    return dict(bbox_label=label, bbox=[x, y, x + width, y + height], ignore_flag=crowd)


def metric_of(kind: type[CocoMetric] | str, truth: COCO, found: dict[int, dict], **kwargs) -> dict:
    """Feed a metric as mmdet's loop does."""
    if isinstance(kind, str):
        with DefaultScope.overwrite_default_scope('mmdet'):
            metric = METRICS.build(dict(type=kind, **kwargs))
    else:
        metric = kind(**kwargs)
    metric.dataset_meta = dict(classes=CLASSES)
    samples = []
    for image_id, instances in found.items():
        size = (truth.imgs[image_id]['height'], truth.imgs[image_id]['width'])
        samples.append(dict(img_id=image_id, ori_shape=size, pred_instances=instances))
        samples[-1]['instances'] = [as_instance(a) for a in truth.imgToAnns[image_id]]
    metric.process({}, samples)
    return metric.evaluate(len(samples))


def figures(evaluator: type[COCOeval], truth: COCO, found: dict[int, dict], kind: str, **params):
    """COCOeval after its three steps, with parameters set as CocoMetric sets them."""
    predictions = []
    for image_id, one in found.items():
        for box, label, score, mask in zip(*(one[k] for k in ('bboxes', 'labels', 'scores', 'masks')), strict=True):  # fmt: skip
            entry = dict(image_id=image_id, category_id=int(label) + 1, score=float(score))
            if kind == 'bbox':
                x1, y1, x2, y2 = box.tolist()
                entry['bbox'] = [x1, y1, x2 - x1, y2 - y1]
            else:
                entry['segmentation'] = mask
            predictions.append(entry)
    run = evaluator(truth, truth.loadRes(predictions), kind)
    for name, value in params.items():
        setattr(run.params, name, value)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize(
    ('per_image', 'params'),
    [
        (20, dict(maxDets=[100, 300, 1000])),
        # More than 100 of a class: AP is of the best 100, AP50 of the best 300.
        (320, dict(maxDets=[100, 200, 300])),
        (20, dict(maxDets=[1, 10, 100], catIds=[3, 1], iouThrs=np.array([0.5, 0.75, 0.9]))),
        (20, dict(maxDets=[5, 10, 100], useCats=0)),
    ],
)
def test_every_number_is_the_same(truth, kind, per_image, params):
    found = detect(truth, np.random.default_rng(0), per_image)
    right = figures(COCOeval, truth, found, kind, **params)
    fast = figures(FasterCOCOeval, truth, found, kind, **params)
    assert right.stats[1] > 0.001
    np.testing.assert_allclose(fast.stats, right.stats, rtol=0, atol=1e-9)
    for name in ('precision', 'recall'):
        np.testing.assert_allclose(fast.eval[name], right.eval[name], rtol=0, atol=1e-9)
    if per_image > 100:
        at_100, _, at_300 = np.moveaxis(right.eval['precision'], -1, 0)
        assert (at_100 != at_300).any()


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(metric=['bbox', 'segm'], classwise=True, ann_file=True),
        dict(metric='bbox'),  # annotations from the samples
        dict(metric='proposal', proposal_nums=(1, 5, 10), ann_file=True),
    ],
)
def test_the_metric_is_mmdets(truth, tmp_path, kwargs):
    if kwargs.pop('ann_file', False):
        (tmp_path / 'ann.json').write_text(json.dumps(truth.dataset))
        kwargs['ann_file'] = str(tmp_path / 'ann.json')
    found = detect(truth, np.random.default_rng(1), 20)
    right = metric_of(CocoMetric, truth, found, **kwargs)
    assert len(right) >= 6 and max(right.values()) > 0.05
    for kind in ('FasterCocoMetric', 'mmpaca.FasterCocoMetric'):
        fast = metric_of(kind, truth, found, **kwargs)
        assert fast.keys() == right.keys()
        for name, value in right.items():
            assert fast[name] == pytest.approx(value, abs=1e-9, nan_ok=True)


def test_it_is_faster_coco_eval_that_runs(truth, monkeypatch):
    import faster_coco_eval

    calls = []
    right = faster_coco_eval.COCOeval_faster.evaluate
    monkeypatch.setattr(
        faster_coco_eval.COCOeval_faster, 'evaluate', lambda self: calls.append(1) or right(self)
    )
    found = detect(truth, np.random.default_rng(1), 5)
    metric_of(CocoMetric, truth, found, metric='bbox')
    assert not calls
    metric_of(FasterCocoMetric, truth, found, metric=['bbox'])
    assert len(calls) == 1
    metric_of(CocoMetric, truth, found, metric='bbox')  # nothing is left behind
    assert len(calls) == 1


def test_what_is_refused(truth, monkeypatch):
    with pytest.raises(ValueError, match="use_mp_eval=True is for type='CocoMetric'"):
        FasterCocoMetric(use_mp_eval=True)
    run = FasterCOCOeval(truth, truth, 'bbox')
    run.params.imgIds = ['a', 'b']
    with pytest.raises(TypeError, match="numbers as image ids, got 'a'"):
        run.evaluate()
    with pytest.raises(ValueError, match='parameters of evaluate'):
        run.accumulate(COCOeval(truth, truth, 'bbox').params)

    class Hide:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == 'faster_coco_eval':
                raise ModuleNotFoundError(f'No module named {name!r}', name=name)

    monkeypatch.delitem(sys.modules, 'faster_coco_eval', raising=False)
    monkeypatch.setattr(sys, 'meta_path', [Hide, *sys.meta_path])
    with pytest.raises(ImportError, match=r"run: pip install 'mmpaca\[fast-eval\]'"):
        FasterCocoMetric()


def test_comparing_by_a_command(truth, shapes, tmp_path, monkeypatch, capsys):
    """The tool finds equal what CocoMetric wrote, and sees where an evaluator errs."""
    found = detect(truth, np.random.default_rng(2), 20)
    ann, prefix = str(shapes / 'annotations/train.json'), str(tmp_path / 'found')
    metric_of(
        CocoMetric, truth, found, metric=['bbox', 'segm'], ann_file=ann, outfile_prefix=prefix
    )

    def status_of(*arguments: str):
        monkeypatch.setattr(sys, 'argv', ['compare_coco_eval.py', *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / 'tools/dev/compare_coco_eval.py'), run_name='__main__')
        return end.value.code

    assert status_of(ann, prefix, '--repeat', '1') == 0
    printed = capsys.readouterr().out
    assert 'bbox, 320 predictions' in printed and 'segm, 320 predictions' in printed
    assert status_of(ann, 'none') == 2
    assert 'none.bbox.json does not exist' in capsys.readouterr().err

    class OnlyTheBest(COCOeval):
        def evaluate(self):
            self.params.maxDets = [1, 1, 1]
            super().evaluate()

    monkeypatch.setattr(mmpaca.evaluation, 'FasterCOCOeval', OnlyTheBest)
    assert status_of(ann, prefix, '--repeat', '1') == 'the figures differ'
