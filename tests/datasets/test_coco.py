"""Training goes on with broken data, names it, and stops where there is too much of it."""

import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from broken import SIZE, add_broken_annotations, write_broken
from mmengine.config import Config, ConfigDict
from mmengine.dataset import (
    ClassBalancedDataset,
    ConcatDataset,
    RepeatDataset,
    pseudo_collate,
)
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader, Subset

from mmpaca.datasets import CLASSES
from mmpaca.datasets.coco import LoadVerifiedImageFromFile
from mmpaca.datasets.coco_faults import (
    FAULTS,
    count,
    find_faults,
    without_faults,
)
from mmpaca.datasets.images import decode
from mmpaca.engine.resumable_dataloader import ContinuedBatchSampler, continued_dataloader
from mmpaca.registry import DATASETS

PIPELINE = [
    dict(type='mmpaca.LoadVerifiedImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),
]


@pytest.fixture(scope='module')
def broken(shapes, tmp_path_factory):
    """A folder with broken images and annotations, and what is wrong with which image."""
    out = tmp_path_factory.mktemp('broken') / 'shapes'
    says = write_broken(shapes, out)
    path = out / 'annotations/train.json'
    coco, counts = add_broken_annotations(json.loads(path.read_text()))
    path.write_text(json.dumps(coco))
    return out, says, counts


def dataset(root, **options):
    config = dict(
        type='mmpaca.TolerantCocoDataset',
        data_root=str(root),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=CLASSES),
        pipeline=PIPELINE,
        max_bad_share=1.0,
    )
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build({**config, **options})


def test_each_fault_is_found_and_left_out(shapes):
    whole = json.loads((shapes / 'annotations/train.json').read_text())
    before = count(list(find_faults(whole)))
    assert not [row for row in before if row[2] != 'stays']
    coco, expected = add_broken_annotations(whole)
    faults = list(find_faults(coco))
    already = {kind: number for kind, number, _, _ in before}
    assert {kind: n - already.get(kind, 0) for kind, n, _, _ in count(faults)} == expected
    clean = without_faults(coco, faults)
    left = {FAULTS[fault.kind] for fault in find_faults(clean)}
    assert left == {'stays'}
    # What was whole is still there, and nothing else but what stays and the mended area.
    assert clean['annotations'][: len(whole['annotations'])] == whole['annotations']
    assert len(clean['annotations']) == len(whole['annotations']) + 4
    # Boxes alone need no segmentation.
    boxes = {fault.kind for fault in find_faults(coco, with_mask=False, thorough=False)}
    assert not any(kind.startswith('segmentation') for kind in boxes)


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (dict(annotations=None), "no list 'annotations': needed are images, annotations and"),
        (dict(images=[], annotations=[]), 'the list of images is empty'),
        (dict(categories=[dict(name='a')]), "category no. 0 is {'name': 'a'}: it needs an id and"),
    ],
)
def test_no_coco_file(shapes, tool, tmp_path, change, says):
    coco = json.loads((shapes / 'annotations/train.json').read_text())
    path = tmp_path / 'other.json'
    path.write_text(json.dumps({**coco, **change}))
    with pytest.raises(ValueError, match=f'{path}: {says}'):
        dataset(shapes, ann_file=str(path))
    printed = tool('analysis/check_coco.py', path, shapes / 'train', ok=False)
    assert printed.startswith(f'error: {path}: {says}')


def test_nothing_is_left(shapes, tmp_path):
    coco = json.loads((shapes / 'annotations/train.json').read_text())
    for annotation in coco['annotations']:
        annotation['image_id'] = str(annotation['image_id'])
    path = tmp_path / 'text.json'
    path.write_text(json.dumps(coco))
    says = f'nothing is left to train on, there are {len(coco["annotations"])} x unknown image'
    with pytest.raises(ValueError, match=f'{path}: {says}'):
        dataset(shapes, ann_file=str(path))


def test_a_class_that_the_file_has_not(shapes):
    with pytest.raises(
        ValueError, match=r"'star'\], not \['stars'\]: set dataset.metainfo.classes"
    ):
        dataset(shapes, metainfo=dict(classes=('circle', 'stars')))
    assert len(dataset(shapes, metainfo=dict(classes=('star', 'circle'))))


def reordered(shapes, path, change):
    coco = json.loads((shapes / 'annotations/train.json').read_text())
    change(coco['categories'])
    path.write_text(json.dumps(coco))
    return str(path)


def labels(data):
    return [
        [instance['bbox_label'] for instance in data.get_data_info(i)['instances']]
        for i in range(len(data))
    ]


def test_labels_follow_names(shapes, tmp_path):
    expected = labels(dataset(shapes))
    reverse = reordered(shapes, tmp_path / 'reversed.json', list.reverse)
    assert labels(dataset(shapes, ann_file=reverse)) == expected
    names = CLASSES[::-1]
    mirrored = labels(dataset(shapes, metainfo=dict(classes=names)))
    assert mirrored == [[len(CLASSES) - 1 - label for label in image] for image in expected]
    # mmdet's metric would number them by the file's order.
    says = rf'{reverse}: its categories are in the order .*, the classes in the order .*: sort the'
    with pytest.raises(ValueError, match=says):
        dataset(shapes, ann_file=reverse, test_mode=True)
    assert labels(dataset(shapes, ann_file=reverse, test_mode=True, metainfo=dict(classes=names)))


@pytest.mark.parametrize('test_mode', [False, True])
def test_duplicate_categories_are_refused(shapes, tmp_path, test_mode):
    def rename(categories):
        categories[1]['name'] = categories[0]['name']

    path = reordered(shapes, tmp_path / 'twice.json', rename)
    with pytest.raises(ValueError, match=f"{path}: 2 categories have the name 'circle'"):
        dataset(shapes, ann_file=path, test_mode=test_mode)


@pytest.mark.parametrize(
    'content', [b'[' * 100_000, b'{"images": [', b'\xff\xfe{\0', b'', b'null', b'5']
)
def test_a_file_that_is_no_json(shapes, tmp_path, content):
    (tmp_path / 'x.json').write_bytes(content)
    with pytest.raises(ValueError, match=f'{tmp_path}/x.json: '):
        dataset(shapes, ann_file=str(tmp_path / 'x.json'))


def test_unusual_images_load(broken):
    root, says, _ = broken
    data = dataset(root)
    loaded = {}
    for i in range(len(data)):
        name = data.get_data_info(i)['img_path'].rpartition('/')[2]
        sample = data.prepare_data(i)
        assert (sample is None) == (name in says), name
        if sample is not None:
            loaded[name] = sample['inputs'].permute(1, 2, 0).numpy()  # (3, H, W) -> (H, W, 3)
    reference = loaded['alpha.png']
    for name in ('palette.png', 'deep.png', 'cmyk.jpg'):
        error = np.abs(loaded[name].astype(int) - reference).mean()
        assert error < (1 if name == 'deep.png' else 40), (name, error)
    assert (loaded['grey.png'] == loaded['grey.png'][..., :1]).all()
    # One file, annotated as stored and as it is to be looked at.
    assert loaded['exif_stored.jpg'].shape == (SIZE // 2, SIZE, 3)
    turned = np.rot90(loaded['exif_stored.jpg'], -1)
    assert np.array_equal(loaded['exif_turned.jpg'], turned)
    assert loaded['pixel.png'].shape == (1, 1, 3)


def test_each_offender_is_named_once(broken, monkeypatch):
    root, says, _ = broken
    lines = []
    monkeypatch.setattr('mmpaca.datasets.coco.log_bad_data', lines.append)
    data = dataset(root)
    for _ in range(2):
        for i in range(len(data)):
            assert data[i] is not None
    for name, text in says.items():
        assert len([x for x in lines if f'/{name}: ' in x and text in x]) == 1, name
    assert len(data.bad_files()) == len(says)
    assert len([x for x in lines if 'skipped)' in x or 'is used)' in x]) == len(data.faults) == 17
    with pytest.raises(
        RuntimeError, match=r'of 34 samples are broken, more than max_bad_share=0.1'
    ):
        strict = dataset(root, max_bad_share=0.1)
        for i in range(len(strict)):
            strict.prepare_data(i)
    clean = json.loads((root / 'annotations/train.json').read_text())
    clean = without_faults(clean, list(find_faults(clean)))
    (root / 'annotations/clean.json').write_text(json.dumps(clean))
    testing = dataset(root, ann_file='annotations/clean.json', test_mode=True)
    with pytest.raises(RuntimeError, match='missing.jpg: .*No such file'):
        for i in range(len(testing)):
            testing[i]
    with pytest.raises(ValueError, match='max_bad_share=2 must be in 0..1'):
        dataset(root, max_bad_share=2)


def test_annotations_need_no_suffix(shapes, tmp_path):
    """As the temporary copies that mmengine makes of remote files."""
    copy = shutil.copy(shapes / 'annotations/train.json', tmp_path / 'copy')
    assert len(dataset(shapes, ann_file=str(copy))) == len(dataset(shapes)) == 16


def test_options_that_would_be_ignored_are_refused():
    with pytest.raises(ValueError, match='ignore_empty=True is not for .*: remove it'):
        LoadVerifiedImageFromFile(ignore_empty=True)
    with pytest.raises(ValueError, match='file_client_args is not for .*: write backend_args'):
        LoadVerifiedImageFromFile(file_client_args=dict(backend='disk'))


def test_a_size_that_differs_is_no_other_picture():
    picture = np.zeros((20, 30, 3), np.uint8)
    content = cv2.imencode('.png', picture)[1].tobytes()
    assert decode(content).shape == decode(content, (20, 30)).shape == (20, 30, 3)
    with pytest.raises(ValueError, match='is 30x20, its annotations are for 20x30'):
        decode(content, (30, 20))
    with pytest.raises(ValueError, match='has 600 pixels, more than max_pixels=599'):
        decode(content, max_pixels=599)


@pytest.mark.parametrize('kind', ['.jpg', '.png'])
def test_a_trailer_is_no_truncation(kind):
    """Phones put films and maps of depth behind a picture."""
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    content = cv2.imencode(kind, picture)[1].tobytes()
    trailer = b'film' * 1250
    assert np.array_equal(decode(content + trailer), decode(content))
    for end in (len(content) // 2, len(content) - 100):
        for broken in (content[:end], content[:end] + bytes(9000)):  # or blocks were lost
            with pytest.raises(ValueError, match=f'is a truncated [A-Z]+ file of {len(broken)} b'):
                decode(broken)


WRAPPERS = dict(
    none=lambda data: data,
    repeated=lambda data: RepeatDataset(data, 2),
    concatenated=lambda data: ConcatDataset([data, data]),
    balanced=lambda data: ClassBalancedDataset(data, 1.0),
    part=lambda data: Subset(data, range(len(data))),
)


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
def test_samples_depend_on_seed_epoch_and_place_alone(shapes, sampler, wrap):
    """Not on the number of workers, nor on what was loaded before, nor on what wraps the data set."""
    flip = dict(type='RandomFlip', prob=[0.3, 0.3], direction=['horizontal', 'vertical'])
    data = wrap(dataset(shapes, pipeline=[*PIPELINE[:2], flip, PIPELINE[2]]))

    def batches(workers: int, skip: int, seed: int = 7) -> list:
        used = DataLoader(
            data, num_workers=workers, multiprocessing_context='fork' if workers else None,
            collate_fn=pseudo_collate,
        )  # fmt: skip
        config = ConfigDict(sampler=dict(type=sampler, shuffle=True), batch_size=4)
        loader = continued_dataloader(config, used, seed, skip)
        result = []
        for epoch in range(2 if sampler == 'DefaultSampler' else 1):
            if epoch:
                loader.batch_sampler.sampler.set_epoch(epoch)
            for batch, _ in zip(loader, range(8), strict=False):
                names = [s.img_path for s in batch['data_samples']]
                result.append((names, [x.tolist() for x in batch['inputs']]))
        return result

    first = batches(0, 0)
    assert len(first) >= 8 and batches(2, 0) == first
    assert batches(2, 3)[:5] == first[3:8]
    assert batches(0, 0, seed=8) != first
    # The second time an image comes it is not flipped as the first time, each of them.
    early, late = {}, {}
    for name, pixels in (pair for batch in first[:8] for pair in zip(*batch, strict=True)):
        (late if name in early else early)[name] = pixels
    assert len(late) > 8 and any(early[name] != pixels for name, pixels in late.items())


def test_what_a_sampler_repeats_is_augmented_anew():
    batches = ContinuedBatchSampler(BatchSampler([5] * 4, 2, drop_last=False))
    drawn = [(i, torch.rand(1).item()) for _ in range(2) for batch in batches for i in batch]
    assert len(drawn) == len(set(drawn)) == 8 and {i for i, _ in drawn} == {5}


def test_training_goes_on_and_sums_up(broken, root, tmp_path):
    """The demo's model, two workers, every broken thing."""
    folder, says, _ = broken
    cfg = Config.fromfile(root / 'configs/demo/mask-rcnn_paca-demo_shapes.py')
    cfg.model.backbone.arch = dict(
        embed_dims=(8, 8, 8, 8),
        num_heads=(1, 1, 1, 1),
        mlp_ratios=(1, 1, 1, 1),
        depths=(1, 1, 1, 1),
    )
    cfg.model.neck.in_channels = [8] * 4
    cfg.merge_from_dict(
        {
            'work_dir': str(tmp_path),
            'train_dataloader.num_workers': 2,
            'train_dataloader.batch_size': 4,
            'train_dataloader.dataset.data_root': str(folder),
            'train_dataloader.dataset.max_bad_share': 0.5,
            'train_cfg.max_iters': 10,
            'log_level': 'WARNING',
            'val_cfg': None,
            'val_dataloader': None,
            'val_evaluator': None,
        }
    )
    Runner.from_cfg(cfg).train()
    log = next(tmp_path.glob('*/*.log')).read_text()
    summary = re.search(
        r'Bad data: (\d+) images could not be loaded: (.*); in the annotations', log
    )
    # mmdet's flip of a single pixel makes no tensor; the published recipes resize it before.
    assert set(re.findall(r'train/([a-z_]+\.\w+)', summary[2])) - {'pixel.png'} == set(says)
    assert int(summary[1]) in (len(says), len(says) + 1)
    assert '2 x box: missing, or not four finite numbers' in log
    for name in says:
        assert len(re.findall(rf'bad sample \S+{name}', log)) == 1


def test_check_coco(broken, tool, tmp_path):
    folder, says, counts = broken
    data = (folder / 'annotations/train.json', folder / 'train')
    printed = tool('analysis/check_coco.py', *data, '--fix', 'clean.json', ok=False)
    for name, text in says.items():
        assert re.search(rf'^{name}: image: cannot be loaded \(.*{re.escape(text)}', printed, re.M)
    turned = re.findall(r'^(\S+): image: turned by EXIF, annotated as it is stored$', printed, re.M)
    assert turned == ['exif_stored.jpg']
    assert ': unknown category (99)\n' in printed
    assert re.search(r'unknown category +│ 1 ', printed)
    os.mkfifo(tmp_path / 'pipe')
    printed_error = tool('analysis/check_coco.py', *data, '--fix', 'pipe', ok=False)
    assert printed_error == 'error: --fix pipe is a device or a pipe: give a file\n'
    printed = tool('analysis/check_coco.py', tmp_path / 'clean.json', folder / 'train')
    assert printed.strip().splitlines()[-1].startswith('0 broken, ')
