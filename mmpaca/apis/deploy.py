"""Export a detector, classifier or segmentor to one file that runs without PyTorch."""

import copy
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmpaca.checkpoint.saving import write_atomically
from mmpaca.deploy.graph import build_graph
from mmpaca.deploy.half import halve_weights
from mmpaca.deploy.metadata import describe_model, detection_cfg
from mmpaca.deploy.onnx_file import join, to_onnx, trace
from mmpaca.deploy.pipeline import Resize, Step, fixed_size, read_pipeline
from mmpaca.deploy.postprocessing import write_label_map, write_mask_resizing
from mmpaca.deploy.torch_file import open_program, write_program

from .inference import Predictor
from .verification import Comparison, RunFile, check_generated, open_onnx, read_rgb, verify

#: Suffix of OUT for each format.
SUFFIXES = {'onnx': '.onnx', 'openvino': '.xml', 'torch': '.pt2'}


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    Attributes:
        format: ``'onnx'``, ``'openvino'`` or ``'torch'``.
        precision: ``'fp32'``, ``'fp16'`` (of the weights) or ``'int8'``.
        resize: resize and pad in the file, as the test pipeline does.
        score_thr: lowest score of a detection; None for that of the config.
        opset: ONNX operator set version; None for the default.
        calibration: images for int8.
    """

    format: str = 'onnx'
    precision: str = 'fp32'
    resize: bool = True
    score_thr: float | None = None
    opset: int | None = None
    calibration: Sequence[Path] = ()


def find_format(out: Path, chosen: str | None) -> str:
    """Return the format of a file by its suffix, or check that the suffix is that of a format.

    Raises:
        ValueError: the suffix is none, or another format's.
    """
    by_suffix = {suffix: name for name, suffix in SUFFIXES.items()}
    known = ', '.join(f'{suffix} ({name})' for suffix, name in by_suffix.items())
    if out.suffix not in by_suffix:
        raise ValueError(f'OUT {out}: give a file that ends in {known}, or a folder and --backbone')
    if chosen not in (None, by_suffix[out.suffix]):
        raise ValueError(f'--format {chosen}: OUT {out} must end in {SUFFIXES[str(chosen)]}')
    return by_suffix[out.suffix]


def open_model(config: Config, checkpoint: str | None, options: ExportOptions) -> Predictor:
    """Open the model on the CPU as the file will have it: threshold and resizing of the options.

    Raises:
        ValueError: it has no threshold that could be changed.
    """
    config = copy.deepcopy(config)
    if not options.resize:
        dataset = find_test_dataset(config)
        pipeline = dataset.pipeline
        kept = [transform for transform in pipeline if not read_pipeline([transform])]
        # mmdet's heads ask for a scale factor
        same = [dict(type='Resize', scale_factor=1.0, keep_ratio=True)]
        detector = config.get('default_scope') == 'mmdet'
        dataset.pipeline = kept[:1] + same * detector + kept[1:]
    predictor = Predictor(config, checkpoint, 'cpu')
    if options.score_thr is not None:
        cfg = detection_cfg(predictor.model)
        if cfg is None or 'score_thr' not in cfg:
            name = type(predictor.model).__name__
            raise ValueError(f'--score-thr: {name} has no score threshold; drop it')
        cfg.score_thr = options.score_thr
    return predictor


def write_model(predictor: Predictor, config: Config, options: ExportOptions) -> bytes:
    """Return the content of an ONNX file, or of a .pt2 file for the format ``'torch'``.

    Raises:
        ImportError: a package is missing; the error names the command that installs it.
        ValueError: the model, its pipeline or the opset is not covered; the error says what is.
    """
    steps = read_pipeline(find_test_dataset(config).pipeline)
    size, model = fixed_size(steps), predictor.model
    graph = build_graph(model)
    outputs: tuple[str, ...] = graph.outputs  # type: ignore[assignment]
    start = time.time()
    program = trace(graph, size)
    traced = time.time()
    steps = steps if options.resize else []
    task = 'instance' if 'masks' in outputs else predictor.task
    metadata = describe_model(model, str(config.filename), predictor.classes or (), task, steps)
    if options.format == 'torch':
        print(f'traced in {traced - start:.0f} s')
        return write_program(program, outputs, metadata)
    network = to_onnx(program, outputs, options.opset)
    whole = join(network, steps, find_postprocessing(model))
    for key, value in metadata.items():
        whole.metadata_props.add(key=key, value=value)
    if options.precision == 'fp16':
        halve_weights(whole)
    content = whole.SerializeToString()
    print(
        f'traced in {traced - start:.0f} s, converted in {time.time() - traced:.0f} s: '
        f'{len(whole.graph.node)} nodes, opset {whole.opset_import[0].version}, '
        f'{len(content) / 1e6:.1f} MB'
    )
    if options.precision == 'int8' and options.format == 'onnx':
        from mmpaca.deploy.quantization import quantize_onnx

        content = quantize_onnx(content, read_rgb(options.calibration))
    return content


def find_postprocessing(model: Any) -> Callable | None:
    """What comes after the network, a function of the versions of operators and file."""
    if hasattr(model, 'decode_head'):
        head = model.decode_head
        threshold = getattr(head, 'threshold', None) or 0.5  # of a single class
        return partial(write_label_map, classes=head.out_channels, threshold=threshold)
    if hasattr(getattr(model, 'bbox_head', None), 'mask_head'):  # RTMDet-Ins
        return partial(write_mask_resizing, threshold=model.test_cfg.mask_thr_binary)
    return None


def find_test_dataset(config: Config) -> Config:
    """Return the settings of the test dataset, of the first one inside wrappers."""
    dataset = config.test_dataloader.dataset
    while 'pipeline' not in dataset:
        dataset = dataset.dataset if 'dataset' in dataset else dataset.datasets[0]
    return dataset


def usual_size(steps: Sequence[Step]) -> tuple[int, int]:
    """Height and width of pictures that the pipeline enlarges a little."""
    resize = next((step for step in steps if isinstance(step, Resize)), None)
    if resize is None or resize.rule in ('factor', 'ratio_factor'):
        return 192, 192
    return int(min(resize.scale)) * 3 // 4, int(max(resize.scale)) * 3 // 4


def export(
    config: Config,
    checkpoint: str | None,
    out: Path,
    options: ExportOptions = ExportOptions(),
    data: str | Path | None = None,
) -> None:
    """Export a model, compare the file with PyTorch, and write it if it agrees.

    Args:
        config: config of a detector of mmdet, a classifier of mmpretrain or a segmentor of mmseg.
        checkpoint: its weights; None for random ones.
        out: file to write, with the suffix of the format.
        options: format, precision and contents.
        data: images to compare on: a COCO annotation file, whose images are where the config's test
            dataset has them, or a folder or file of images. None for a few generated images.

    Raises:
        ImportError: a package is missing; the error names the command that installs it.
        OSError: the file cannot be written.
        ValueError: the model is not covered, or the file differs from PyTorch; it is not written.
    """
    if options.precision == 'int8' and not options.calibration:
        raise ValueError('--precision int8 needs --calibration IMAGES: some training images')
    detector = config.get('default_scope') == 'mmdet'
    if options.precision == 'int8' and not detector:
        raise ValueError('--precision int8 is for detectors, whose AP is compared; use fp16')
    if not detector and str(data).endswith('.json'):
        raise ValueError(f'--verify {data}: only detectors have AP; give a folder of images')
    if options.precision == 'int8' and not str(data).endswith('.json'):
        raise ValueError(
            '--precision int8 needs --verify ANN.json: only AP tells if 8 bits are enough'
        )
    if options.format == 'torch' and (options.precision != 'fp32' or options.opset):
        raise ValueError('--format torch: the file has no --opset and --precision fp32 only')
    steps = read_pipeline(find_test_dataset(config).pipeline)
    size = fixed_size(steps)
    if size and not options.resize and data is not None:
        raise ValueError(
            f'--no-resize: the file takes images of {size[1]}x{size[0]} only; '
            'export it with resizing to use --verify, or drop --verify'
        )
    predictor = open_model(config, checkpoint, options)
    content = write_model(predictor, config, options)

    def check(run: RunFile) -> None:
        comparison = Comparison(predictor, run, options.precision)
        fixed = bool(size) and not options.resize
        check_generated(comparison, size if size and fixed else usual_size(steps), fixed)
        if data is not None:
            verify(comparison, config, data)
        comparison.finish(out.name)

    if options.format != 'openvino':
        if options.format == 'onnx':
            check(open_onnx(content))
        else:
            before = steps if options.resize else []
            check(open_program(content, before, find_postprocessing(predictor.model)))
        write_atomically(out, content)
        print(f'wrote {out}, {len(content) / 1e6:.1f} MB')
        return
    from mmpaca.deploy.openvino import open_openvino, write_openvino

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix='.export') as folder:
        path = Path(folder) / out.name
        images = read_rgb(options.calibration) if options.precision == 'int8' else None
        write_openvino(content, path, options.precision == 'fp16', images)
        check(open_openvino(path))
        for part in (path.with_suffix('.bin'), path):  # the file that names the other comes last
            part.replace(out.with_suffix(part.suffix))
    print(f'wrote {out} and {out.with_suffix(".bin").name}')
