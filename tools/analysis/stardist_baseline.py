"""Train StarDist on a COCO dataset for some minutes and measure it, as a baseline for instance masks.

For an environment of its own, without mmpaca: pip install stardist tensorflow pycocotools pillow. The
settings are those of StarDist's 2D example: 32 rays, grid 2, its augmentation, percentile normalisation,
15 % of the training images held out for the learning rate and the thresholds. Prints the accuracies
that mmpaca's InstanceAccuracyMetric computes, and writes them to --out.

    python stardist_baseline.py data/nuclei --minutes 40
"""

import argparse
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
from csbdeep.utils import normalize
from PIL import Image
from pycocotools.coco import COCO
from stardist.matching import matching_dataset
from stardist.models import Config2D, StarDist2D

IOU_THRS = (0.5, 0.6, 0.7, 0.8, 0.9)
HELD_OUT = 0.15


class TimeLimit(keras.callbacks.Callback):
    """End the training after some time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds, self.steps = seconds, 0

    def on_train_begin(self, logs=None) -> None:
        self.start = time.monotonic()

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.steps += 1
        if time.monotonic() - self.start >= self.seconds:
            self.model.stop_training = True


def read(root: Path, part: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Read the normalised grey images and label maps of a part."""
    coco = COCO(root / f'annotations/{part}.json')
    images, labels = [], []
    for info in coco.loadImgs(coco.getImgIds()):
        with Image.open(root / part / info['file_name']) as image:
            grey = np.asarray(image.convert('L'), np.float32)
        images.append(normalize(grey, 1, 99.8))
        found = np.zeros(grey.shape, np.int32)
        for number, one in enumerate(coco.imgToAnns[info['id']], 1):
            found[coco.annToMask(one) > 0] = number
        labels.append(found)
    return images, labels


def augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flip, turn and scale intensities at random, as the example does."""
    turns = np.random.randint(4)
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if np.random.rand() < 0.5:
        image, labels = image[::-1], labels[::-1]
    image = image * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)
    sigma = 0.02 * np.random.uniform(0, 1)
    return image + sigma * np.random.normal(0, 1, image.shape), labels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', type=Path, help='folder with annotations, train and val')
    parser.add_argument('--minutes', type=float, default=40.0, help='training time')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/stardist'))
    args = parser.parse_args()
    keras.utils.set_random_seed(args.seed)
    images, labels = read(args.data, 'train')
    order = np.random.default_rng(args.seed).permutation(len(images))
    held = order[: round(HELD_OUT * len(images))]
    kept = order[len(held) :]
    config = Config2D(
        n_rays=32, grid=(2, 2), n_channel_in=1, train_epochs=10**4, train_tensorboard=False
    )
    model = StarDist2D(config, name='model', basedir=str(args.out))
    model.prepare_for_training()
    limit = TimeLimit(60 * args.minutes)
    model.callbacks.append(limit)
    validation = [images[i] for i in held], [labels[i] for i in held]
    model.train(
        [images[i] for i in kept], [labels[i] for i in kept], validation_data=validation,
        augmenter=augment,
    )  # fmt: skip
    thresholds = model.optimize_thresholds(*validation)
    images, labels = read(args.data, 'val')
    start = time.perf_counter()
    found = [model.predict_instances(image)[0] for image in images]
    result = dict(
        minutes=args.minutes, seed=args.seed, steps=limit.steps, params=model.keras_model.count_params(),
        prob_thresh=thresholds['prob'], nms_thresh=thresholds['nms'],
        seconds_per_image=(time.perf_counter() - start) / len(images),
    )  # fmt: skip
    for thr in IOU_THRS:
        stats = matching_dataset(labels, found, thresh=thr, by_image=False, show_progress=False)
        result[f'accuracy_{100 * thr:g}'] = stats.accuracy
    (args.out / 'result.json').write_text(json.dumps(result, indent=1, default=float))
    print(json.dumps(result, indent=1, default=float))


if __name__ == '__main__':
    sys.exit(main())
