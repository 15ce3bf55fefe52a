"""Time exported models beside PyTorch: from a uint8 image to boxes, scores and masks of its size.

    tools/analysis/benchmark_export.py --model CONFIG CHECKPOINT HEIGHT WIDTH [--model ...]

CHECKPOINT is a file, `published`, or `none` for random weights, which detect about as much as the
limit of the config. All run in one process and take turns; the table, in Markdown, has medians and
their ratio to PyTorch. Masks are pasted into the image by mmdet's code and by mmpaca-runtime's. Images
for int8 are --calibration, or generated ones, which is enough for times. Nothing else should run on
the machine.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import mmpaca.plugin
from mmpaca.apis.configs import find_checkpoint, find_config, read_config
from mmpaca.apis.deploy import ExportOptions, open_model, write_model
from mmpaca.apis.verification import generated_pictures, open_onnx, predict, read_rgb
from mmpaca.compat import require
from mmpaca.datasets.images import find_images
from mmpaca.deploy.openvino import open_openvino, write_openvino
from mmpaca.deploy.quantization import quantize_onnx

sys.path.insert(0, str(Path(__file__).parents[2] / 'runtime'))
from mmpaca_runtime.result import from_label_map, paste_masks

KINDS = ('onnxruntime', 'onnxruntime int8', 'OpenVINO', 'OpenVINO bf16', 'OpenVINO int8')
PAUSE = 0.3  # seconds; threads that have just finished still spin for a while


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--model',
        nargs=4,
        action='append',
        required=True,
        metavar=('CONFIG', 'CHECKPOINT', 'HEIGHT', 'WIDTH'),
    )
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=KINDS)
    parser.add_argument('--calibration', nargs='+', default=[], metavar='IMAGES')
    parser.add_argument('--repeats', type=int, default=20)
    return parser.parse_args()


def open_kind(kind: str, content: bytes, images: list[np.ndarray], folder: Path) -> tuple:
    """A function that runs a file, and the size of the file in bytes."""
    if kind.startswith('onnxruntime'):
        content = quantize_onnx(content, images) if 'int8' in kind else content
        return open_onnx(content), len(content)
    path = folder / f'{kind}.xml'
    write_openvino(content, path, int8_images=images if 'int8' in kind else None)
    size = path.stat().st_size + path.with_suffix('.bin').stat().st_size
    return open_openvino(path, 'bf16' if 'bf16' in kind else 'f32'), size


def finish(outputs: dict[str, np.ndarray], image: np.ndarray) -> None:
    """Do to the outputs of an image what mmpaca-runtime does: paste the masks of boxes."""
    if 'label_map' in outputs:
        from_label_map(image, outputs['label_map'][0], [])
    elif outputs.get('masks', np.empty(0, bool)).dtype != bool:
        kept = outputs['labels'][0] >= 0
        boxes, masks = outputs['boxes'][0][kept], outputs['masks'][0][kept]
        paste_masks(masks, boxes, *image.shape[:2], 0.5)


def measure(runs: dict[str, Callable], image: np.ndarray, repeats: int) -> dict[str, float]:
    """Medians in seconds; the first two rounds do not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 2):
        for name, run in runs.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            run(image)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[2:]) for name, values in times.items()}


def benchmark(
    name: str, checkpoint: str, size: tuple[int, int], args: argparse.Namespace, folder: Path
) -> list[str]:
    """Rows of the table for a model."""
    config = read_config(name, None)
    file = None if checkpoint == 'none' else find_checkpoint(checkpoint, find_config(name))
    options = ExportOptions()
    predictor = open_model(config, file, options)
    start = time.perf_counter()
    content = write_model(predictor, config, options)
    print(f'{name}: exported in {time.perf_counter() - start:.0f} s')
    images = list(read_rgb(find_images(args.calibration)))
    images = images or [*generated_pictures(*size, 4)]
    image = generated_pictures(*size)
    sizes = {'PyTorch': 0}
    runs: dict[str, Callable] = {'PyTorch': lambda image: predict(predictor, image)}
    able = require('openvino').Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    for kind in args.kinds:
        if 'bf16' in kind and 'BF16' not in able:
            print('this CPU has no bfloat16: OpenVINO bf16 is skipped')
            continue
        file_run, sizes[kind] = open_kind(kind, content, images, folder)
        runs[kind] = lambda image, run=file_run: finish(run(image), image[0])
    medians = measure(runs, image, args.repeats)
    base = medians['PyTorch']
    shape = 'x'.join(map(str, size))
    return [
        f'| {Path(name).stem} | {shape} | {kind} | {seconds * 1e3:.1f} | {seconds / base:.2f} | '
        f'{f"{sizes[kind] / 1e6:.1f}" if sizes[kind] else "-"} |'
        for kind, seconds in medians.items()
    ]


def main() -> None:
    args = parse()
    mmpaca.plugin.install()
    rows = []
    for name, checkpoint, *size in args.model:
        height, width = map(int, size)
        with tempfile.TemporaryDirectory() as folder:
            rows += benchmark(name, checkpoint, (height, width), args, Path(folder))
    print('\n| model | image | runtime | ms | of PyTorch | file, MB |\n|---|---|---|---|---|---|')
    print('\n'.join(rows))


if __name__ == '__main__':
    main()
