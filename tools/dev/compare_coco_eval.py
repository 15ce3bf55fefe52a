"""Evaluate predictions with pycocotools and with faster-coco-eval: every number and both times.

Ends with status 1 where any number differs by more than 1e-9, else with 0. The predictions are
what CocoMetric writes with outfile_prefix (`tools/test.py ... --cfg-options
test_evaluator.outfile_prefix=PREFIX`): PREFIX.bbox.json and, for masks, PREFIX.segm.json.
"""

import argparse
import contextlib
import copy
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.table import Table

import mmpaca  # noqa: F401
from mmpaca.evaluation import FasterCOCOeval

NAMES = ('AP', 'AP50', 'AP75', 'AP small', 'AP medium', 'AP large', 'AR@100', 'AR@300', 'AR@1000', 'AR small', 'AR medium', 'AR large')  # fmt: skip
TOLERANCE = 1e-9


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('ann', type=Path, help='annotation file')
    parser.add_argument('prefix', help='of the files of predictions')
    parser.add_argument('--repeat', type=int, default=3, help='take the best time of so many')
    args = parser.parse_args()
    if not args.ann.is_file():
        parser.error(f'{args.ann} does not exist')
    if not Path(f'{args.prefix}.bbox.json').is_file():
        parser.error(f'{args.prefix}.bbox.json does not exist')
    if args.repeat < 1:
        parser.error(f'--repeat {args.repeat} must be at least 1')
    return args


def evaluate(
    evaluator: type[COCOeval], truth: COCO, predictions: list[dict], kind: str
) -> tuple[np.ndarray, float]:
    """As CocoMetric does, with its numbers of proposals.

    Returns:
        The 12 figures, and seconds from predictions in COCO's form to figures.
    """
    predictions = copy.deepcopy(predictions)  # loadRes writes into them
    with contextlib.redirect_stdout(io.StringIO()):
        start = time.perf_counter()
        run = evaluator(truth, truth.loadRes(predictions), kind)
        run.params.maxDets = [100, 300, 1000]
        run.evaluate()
        run.accumulate()
        run.summarize()
        return run.stats, time.perf_counter() - start


def compare(ann: Path, predictions: list[dict], kind: str, repeat: int) -> bool:
    """Print one table; whether all figures are equal."""
    figures, seconds = {}, {}
    for evaluator in (COCOeval, FasterCOCOeval):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(ann))
        runs = [evaluate(evaluator, truth, predictions, kind) for _ in range(repeat)]
        figures[evaluator], seconds[evaluator] = runs[0][0], min(time for _, time in runs)
    table = Table(title=f'{kind}, {len(predictions)} predictions')
    for title in ('', 'pycocotools', 'faster-coco-eval', 'difference'):
        table.add_column(title)
    slow, fast = figures.values()
    for name, a, b in zip(NAMES, slow, fast, strict=True):
        table.add_row(name, f'{a:.10f}', f'{b:.10f}', f'{abs(a - b):.0e}')
    slow_time, fast_time = seconds.values()
    table.add_row(
        'seconds', f'{slow_time:.2f}', f'{fast_time:.2f}', f'{slow_time / fast_time:.1f} x'
    )
    Console().print(table)
    return bool(np.abs(slow - fast).max() <= TOLERANCE)


def main() -> None:
    args = parse_args()
    equal = True
    for kind in ('bbox', 'segm'):
        file = Path(f'{args.prefix}.{kind}.json')
        if file.is_file():
            predictions = json.loads(file.read_text())
            for prediction in predictions if kind == 'segm' else ():
                prediction.pop('bbox', None)  # its area would stand for the mask's
            equal &= compare(args.ann, predictions, kind, args.repeat)
    sys.exit(0 if equal else 'the figures differ')


if __name__ == '__main__':
    main()
