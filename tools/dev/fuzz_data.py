"""Check, load and evaluate mutated datasets in COCO format.

Mutates annotation files (values, entries, bytes, encodings) and images (bytes, sizes, EXIF, pipes,
devices). Each dataset is judged as by ``mmpaca check-data``, loaded as in training and evaluated, in
a child process. What is judged clean must load and evaluate; anything else may be skipped, or refused
by an error that names the file. A crash, a hang, another error or too much memory is printed, the
dataset is kept, and the script ends with status 1.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from PIL import Image

import mmpaca  # noqa: F401  (before mmdet)

from mmdet.evaluation import CocoMetric  # isort: skip
from mmpaca.apis.check_data import find_image_faults
from mmpaca.datasets.coco_faults import FAULTS, find_faults, read_annotations, without_faults
from mmpaca.datasets.evaluation import EvaluationLoader
from mmpaca.engine.hooks.bad_data_hook import drop_unusable
from mmpaca.registry import DATASETS

CLASSES = ('a', 'b')
PIPELINE = [
    dict(type='mmpaca.LoadVerifiedImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(48, 48), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
]
SIZES = [(20, 30), (30, 20), (24, 24), (16, 40)]  # height, width
VALUES = (
    None, True, False, 0, -1, 1, 2, 5, 0.5, 10**9, 10**400, 1e9, 1e300, -1e300, float('nan'), float('inf'), '', 'a',
    '1', '\0', '[/]', '[red]', '\ud800', '\u202e', '../../../../etc/passwd', '/etc/passwd', 'x' * 5000, '.', '..',
    [], [None], [[]], {}, dict(a=1), [1, 2, 3, 4], [0, 0, 0, 0], ['1'] * 4, [-5, -5, 90, 90], [1e9] * 4,
    [[1, 2, 3, 4, 5, 6]], [[1e9, 0, 5, 5, 0, 9]], [['nan', 'nan'] * 4], [[float('nan')] * 6], [[3, 3] * 3],
    [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [[0, 0, 99, 0, 0, 99]] * 30, dict(size=[20, 30], counts=[600]),
    dict(size=[20, 30], counts=[0, 600]), dict(size=[10**5, 10**5], counts=[10**10]), dict(size=[20, 30], counts='1'),
    dict(size=[20, 30], counts='oooooooo'), dict(size=[20, 30], counts=[-1, 601]), dict(size=None, counts=None),
    dict(counts=[600]), [[[[[[]]]]]],
)  # fmt: skip


def whole(folder: Path, rng: random.Random) -> dict:
    """Write images and return their annotations."""
    (folder / 'images').mkdir()
    images, annotations = [], []
    pixels = np.random.default_rng(rng.randrange(2**32))
    for number, (height, width) in enumerate(SIZES, start=1):
        name = f'{number}.{rng.choice(("jpg", "png"))}'
        picture = cv2.resize(pixels.integers(0, 255, (4, 4, 3), dtype=np.uint8), (width, height))
        cv2.imwrite(str(folder / 'images' / name), picture)
        images.append(dict(id=number, file_name=name, height=height, width=width))
        for place in range(2):
            left, top = 2 + 5 * place, 3
            corners = [left, top, left + 8, top, left + 8, top + 9]
            rle = dict(size=[height, width], counts=[50, 60, height * width - 110])
            annotations.append(
                dict(id=len(annotations) + 1, image_id=number, category_id=place + 1, iscrowd=0, area=36,
                     bbox=[left, top, 8, 9], segmentation=rle if rng.random() < 0.3 else [corners])
            )  # fmt: skip
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)]
    return dict(images=images, annotations=annotations, categories=categories)


def mutate(coco: dict, folder: Path, rng: random.Random) -> bytes:
    """Mutate images in place; returns the content of the annotation file."""
    kind = rng.choice(('annotations', 'annotations', 'annotations', 'text', 'images', 'both'))
    if kind in ('images', 'both'):
        for path in rng.sample(sorted((folder / 'images').iterdir()), rng.randint(1, 2)):
            _mutate_image(path, rng)
    if kind in ('annotations', 'both'):
        for _ in range(rng.randint(1, 4)):
            _mutate_tree(coco, rng)
    text = json.dumps(coco, ensure_ascii=rng.random() < 0.9)
    content = text.encode(errors='surrogatepass')
    if kind == 'text':
        content = rng.choice((
            lambda: content[: rng.randrange(len(content))],
            lambda: text.encode('utf-16'),
            lambda: b'\xef\xbb\xbf' + content,
            lambda: b'[' * rng.choice((10, 10**5)) + content,
            lambda: _mutate_bytes(content, rng),
            lambda: text.replace(str(rng.randrange(10)), rng.choice(('1e999', '-', 'NaN', '9' * 5000)), 1).encode(),
        ))()  # fmt: skip
    return content


def _mutate_tree(coco: dict, rng: random.Random) -> None:
    """Change one value, key or entry at a random depth."""
    node = coco[rng.choice(sorted(coco))] if coco and rng.random() < 0.97 else coco
    while isinstance(node, dict | list) and node:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        if not isinstance(node[key], dict | list) or not node[key] or rng.random() < 0.3:
            break
        node = node[key]
    else:
        return
    action = rng.random()
    if action < 0.1:
        del node[key]
    elif action < 0.2 and isinstance(node, list):
        node.extend([node[key]] * rng.choice((1, 1, 3, 11_000)))
    else:
        node[key] = json.loads(json.dumps(rng.choice(VALUES)))


def _mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(changed))
        length = rng.choice((0, 1, 1, 4, 50))
        changed[place : place + length] = rng.randbytes(rng.choice((0, 1, 1, 4)))
    return bytes(changed)


def _mutate_image(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    middle = rng.randrange(len(content))
    choice = rng.randrange(9)
    if choice < 4:
        path.write_bytes(
            (
                _mutate_bytes(content, rng),
                content[:middle] + rng.choice((b'', b'\xff\xd9', b'IEND')),
                content[:middle] + bytes(rng.randrange(200)) + content[middle:],
                b'',
            )[choice]
        )
        return
    if choice == 4:  # turned, or of another colour mode
        exif = Image.Exif()
        exif[0x0112] = rng.randint(0, 9)
        with Image.open(io.BytesIO(content)) as image:
            converted = image.convert(rng.choice(('L', 'RGB', 'CMYK')))
        converted.save(path, format='JPEG' if converted.mode == 'CMYK' else None, exif=exif)
        return
    path.unlink()
    if choice == 5:
        os.mkfifo(path)
    elif choice == 6:
        path.symlink_to(rng.choice(('/dev/zero', path.name, '/proc/self/mem')))
    elif choice == 7:
        path.mkdir()


def finding(seed: int, folder: Path) -> str | None:
    """Judge, load and evaluate the dataset of a seed; returns what is wrong with mmpaca."""
    rng = random.Random(seed)
    ann = folder / 'fuzzed.json'
    ann.write_bytes(mutate(whole(folder, rng), folder, rng))
    try:
        clean = _judge(ann, folder)
    except ValueError:
        clean = None  # refused
    for use in (_load, _evaluate):
        try:
            use(ann, folder, clean)
        except (ValueError, RuntimeError) as error:
            if clean:
                return f'clean, but {use.__name__} says {error}'
            if str(folder) not in str(error):
                return f'an error of {use.__name__} that names no file: {error}'
    return None


def _judge(ann: Path, folder: Path) -> bool:
    coco = read_annotations(ann.read_bytes())
    faults = list(find_faults(coco))
    without = {fault.image for fault in faults if FAULTS[fault.kind] == 'image'}
    faults += find_image_faults(coco, folder / 'images', without=without)
    list(map(str, faults))
    fixed = without_faults(coco, faults)
    if fixed['images'] and fixed['annotations']:
        left = [fault for fault in find_faults(fixed) if FAULTS[fault.kind] != 'stays']
        if left:
            raise AssertionError(f'the fixed file still has {left[0]}')
    return all(FAULTS[fault.kind] == 'stays' for fault in faults)


def _classes(ann: Path) -> tuple[str, ...]:
    """The file's own names, which a user's config would have, too."""
    try:
        return tuple(str(one['name']) for one in json.loads(ann.read_bytes())['categories'])
    except (ValueError, LookupError, TypeError, RecursionError):
        return CLASSES


def _dataset(ann: Path, folder: Path, test_mode: bool) -> 'torch.utils.data.Dataset':
    with DefaultScope.overwrite_default_scope('mmdet'), contextlib.redirect_stdout(io.StringIO()):
        return DATASETS.build(
            dict(
                type='mmpaca.TolerantCocoDataset', ann_file=str(ann), data_prefix=dict(img=str(folder / 'images')),
                metainfo=dict(classes=_classes(ann)), pipeline=PIPELINE, test_mode=test_mode, serialize_data=False,
                max_bad_share=1.0,
            )
        )  # fmt: skip


def _load(ann: Path, folder: Path, clean: bool | None) -> None:
    data = _dataset(ann, folder, test_mode=False)
    for index in range(min(len(data), 20)):
        if data.prepare_data(index) is None and clean:
            raise ValueError(f'{data.get_data_info(index)["img_path"]} cannot be loaded')


def _evaluate(ann: Path, folder: Path, clean: bool | None) -> None:
    data = _dataset(ann, folder, test_mode=True)
    load = EvaluationLoader(data, 1.0)
    for index in range(min(len(data), 20)):
        load(index)
    if clean and load.is_bad.any():
        raise ValueError(f'{load.bad_files()} cannot be loaded')
    with contextlib.redirect_stdout(io.StringIO()):
        metric = CocoMetric(str(ann), metric=['bbox', 'segm'])
        metric.dataset_meta = data.metainfo
        drop_unusable(metric)
        for index in range(min(len(data), 20)):
            metric.process({}, [_prediction(data.get_data_info(index))])
        if len(data):
            metric.evaluate(size=min(len(data), 20))


def _prediction(info: dict) -> dict:
    shape = (int(info['height']), int(info['width']))
    masks = torch.ones((1, *(min(n, 100) for n in shape)), dtype=torch.bool)
    found = dict(
        bboxes=torch.tensor([[1.0, 1, 9, 9]]), scores=torch.ones(1), labels=torch.zeros(1, dtype=int),
        masks=masks,
    )  # fmt: skip
    return dict(pred_instances=found, img_id=info['img_id'], ori_shape=shape)


def _work(seeds: range, place: SimpleNamespace, folder: Path) -> None:
    warnings.simplefilter('ignore')
    MMLogger.get_instance('fuzz', log_level='CRITICAL')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        place.value = seed
        for old in folder.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        signal.alarm(60)  # ends a hang; a loaded machine is slow
        try:
            fault = finding(seed, folder)
        except Exception:
            fault = traceback.format_exc()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if fault is None and grown > 600:
            fault = f'{grown:.0f} MiB of memory'
        if fault:
            print(f'seed {seed}: {fault}', flush=True)
            os._exit(1)
    os._exit(0)


def main() -> None:
    """Fuzz for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=60, help='duration (default: 60)')
    parser.add_argument(
        '--seed', type=int, default=0, help='seed of the first dataset (default: 0)'
    )
    parser.add_argument(
        '--batch', type=int, default=100, help='datasets per process (default: 100)'
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    context = multiprocessing.get_context('fork')
    place = context.Value('q', 0)
    seed, failures = args.seed, 0
    end = time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            seeds = range(seed, seed + args.batch)
            process = context.Process(target=_work, args=(seeds, place, Path(folder)))
            process.start()
            process.join()
            seed = seeds.stop
            if process.exitcode:
                seed = place.value + 1
                failures += 1
                kept = Path(f'seed{place.value}.json')
                shutil.copy(Path(folder) / 'fuzzed.json', kept)
                print(f'seed {place.value}: exit status {process.exitcode}, see {kept}')
    print(f'{seed - args.seed} datasets, {failures} failures')
    sys.exit(1 if failures else 0)


if __name__ == '__main__':
    main()
