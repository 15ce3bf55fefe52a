"""Find objects or classes in images with a file that `mmpaca export` wrote, without PyTorch.

Writes to DIR:

  vis/NAME.jpg            boxes, masks, class names and scores; of a video each frame
  predictions.coco.json   all detections in COCO format, with images and categories

Pictures show the detections from --score-thr on, the JSON file contains all. A file that cannot be
read is reported at the end, and the exit status is 1.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .detector import Detector
from .images import find_files, read_frames


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        'mmpaca-predict',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('model', metavar='MODEL.onnx')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='image, folder, glob or video')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs'), metavar='DIR')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='COCO file (default: in DIR)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='of pictures (default: 0.3)')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images of one size')
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda, ...')
    parser.add_argument('--threads', type=int, default=0, metavar='N', help='CPU threads')
    parser.add_argument('--no-save-vis', action='store_true', help='write no pictures')
    args = parser.parse_args(argv)
    if not 0 <= args.score_thr <= 1 or args.batch_size < 1 or args.threads < 0:
        parser.error('--score-thr is in 0 to 1, --batch-size at least 1, --threads at least 0')
    return args


def batches(
    files: Sequence[Path], size: int, broken: list[str]
) -> Iterator[list[tuple[str, str, np.ndarray]]]:
    """Lists of file, name and image; what cannot be read is appended to ``broken``."""
    batch = []
    for number, path in enumerate(files):
        print(f'\r{number}/{len(files)} files', end='', file=sys.stderr, flush=True)
        try:
            for name, image in read_frames(path):
                batch.append((path.as_posix(), name, image))
                if len(batch) == size:
                    yield batch
                    batch = []
        except (OSError, ValueError) as error:
            broken.append(str(error))
    if batch:
        yield batch
    print(f'\r{len(files)}/{len(files)} files', file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    """Predict and write; 1 if a file cannot be read."""
    files = find_files(args.inputs)
    detector = Detector(args.model, args.device, args.threads)
    out = args.out or args.out_dir / 'predictions.coco.json'
    out.parent.mkdir(parents=True, exist_ok=True)
    if not args.no_save_vis:
        (args.out_dir / 'vis').mkdir(parents=True, exist_ok=True)
    images, annotations, broken, spent = [], [], [], 0.0
    used: dict[str, int] = {}
    for batch in batches(files, args.batch_size, broken):
        start = time.perf_counter()
        results = detector([image for _, _, image in batch])
        spent += time.perf_counter() - start
        for (file, name, image), result in zip(batch, results, strict=True):
            height, width = image.shape[:2]
            images.append(dict(id=len(images) + 1, file_name=file, height=height, width=width))
            for annotation in result.to_coco(len(images)):
                annotations.append(dict(id=len(annotations) + 1, **annotation))
            if not args.no_save_vis:
                used[name] = used.get(name, 0) + 1  # a.jpg of one folder and of another
                name += f'_{used[name]}' if used[name] > 1 else ''
                result.draw(args.score_thr).save(args.out_dir / 'vis' / f'{name}.jpg', quality=92)
    categories = [dict(id=i, name=name) for i, name in enumerate(detector.classes, 1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    part = out.with_name(f'{out.name}.part')
    part.write_text(json.dumps(content))
    os.replace(part, out)
    each = spent / max(len(images), 1) * 1e3
    print(f'{len(images)} images, {len(annotations)} detections, {each:.0f} ms an image; {out}')
    for line in broken:
        print(line, file=sys.stderr)
    return int(bool(broken))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; a user's error is one sentence."""
    args = parse(argv)
    try:
        return run(args)
    except (ImportError, OSError, ValueError) as error:
        print(f'mmpaca-predict: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
