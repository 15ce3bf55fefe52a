"""Print the results of a test run: AP, cluster alignment, and where the pictures are."""

import argparse
import json
from pathlib import Path

METRICS = ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/segm_mAP', 'coco/segm_mAP_50')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='the --work-dir of `mmpaca test`')
    return parser.parse_args()


def main() -> None:
    work_dir = parse_args().work_dir
    results = sorted(work_dir.glob('*/*.json'))
    if not results:
        raise SystemExit(f'error: no results of `mmpaca test` in {work_dir}: did it finish?')
    newest = results[-1]  # mmengine names its folders by time
    metrics = json.loads(newest.read_text())
    for name in METRICS:
        print(f'{name:<20} {metrics[name]:.3f}')
    for name in (name for name in metrics if name.startswith('clusters/')):
        print(f'{name:<30} {metrics[name]:.3f}')
    pictures = newest.parent / 'pictures'
    print(f'pictures (ground truth left, prediction right): {pictures}')
    page = work_dir.parent / 'clusters' / 'index.html'
    if page.is_file():
        print(f'clusters of four images, open in a browser: {page.resolve()}')
    print(f'checkpoint, log and config: {work_dir.parent}')


if __name__ == '__main__':
    main()
