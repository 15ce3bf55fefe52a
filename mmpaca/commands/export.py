"""Export a detector, classifier or segmentor to one file that runs without PyTorch and mmpaca.

OUT.onnx is for ONNX Runtime and others, OUT.xml (with OUT.bin) for OpenVINO. The file takes images
as they were read, `image` (batch, height, width, 3) uint8 RGB of any size, and gives `boxes` in their
pixels, `scores`, `labels` and `masks`, or the `scores` of classes, or a `label_map`: resizing,
padding, normalisation and NMS are inside. Class names, thresholds and normalisation are in the
file's metadata. OUT.pt2 is for torch.export.load: the same without resizing, see the documentation.

The file is run on generated images, and with --verify on yours, and compared with PyTorch: it is
written only if the detections agree (IoU > 0.99, scores within 1e-3 for 99.9 % of them) and, where
there are annotations, AP within 0.001.

With --backbone, OUT is a folder for the backbone alone: backbone.pt2 for torch.export.load and
backbone.onnx. Both take normalised images (batch, channels, height, width) and give the maps feat0,
feat1, ... The .pt2 file runs on the type of device it was traced on.
"""

import argparse

from . import options

HELP = 'export a model to one ONNX, OpenVINO or torch.export file'
EXAMPLE = 'mmpaca export mask_rcnn_paca epoch_12.pth detector.onnx --verify val.json'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the file and its contents."""
    options.add_config(parser)
    options.add_checkpoint(parser)
    out = parser.add_argument('out', metavar='OUT', help='OUT.onnx, OUT.xml or OUT.pt2 to write')
    options.completed(out, options.FILE)
    parser.add_argument(
        '--format',
        choices=('onnx', 'openvino', 'torch'),
        help='check that OUT has the suffix of this format (default: by the suffix)',
    )
    parser.add_argument(
        '--precision',
        choices=('fp32', 'fp16', 'int8'),
        default='fp32',
        help='fp16 halves the file and computes in fp32; int8 needs --calibration and --verify',
    )
    verify = parser.add_argument(
        '--verify',
        metavar='DATA',
        help='compare on these images: COCO annotations (.json) of images that are where the '
        'config has those of its test set, or an image folder',
    )
    options.completed(verify, options.FILE)
    calibration = parser.add_argument(
        '--calibration', metavar='IMAGES', nargs='+', default=[], help='training images for int8'
    )
    options.completed(calibration, options.FILE)
    parser.add_argument(
        '--no-resize',
        action='store_true',
        help='leave resizing and padding of the test pipeline out of the file',
    )
    parser.add_argument(
        '--score-thr',
        metavar='SCORE',
        type=options.fraction,
        help="minimum score of a detection (default: the config's)",
    )
    parser.add_argument(
        '--opset', type=options.at_least(1), metavar='N', help='ONNX operator set version'
    )
    parser.add_argument(
        '--server',
        choices=('triton', 'ovms'),
        help='also write a model repository of Triton or OpenVINO Model Server, the folder OUT_triton '
        'or OUT_ovms (without the suffix of OUT)',
    )
    options.add_cfg_options(parser)
    backbone = parser.add_argument_group('the backbone alone')
    backbone.add_argument('--backbone', action='store_true', help='OUT is a folder, see above')
    options.add_shape(backbone, '800 1280')
    options.add_device(backbone)


def run(args: argparse.Namespace) -> None:
    """Export."""
    from mmpaca.apis.configs import find_checkpoint, find_config

    config = find_config(args.config)
    checkpoint = find_checkpoint(args.checkpoint, config)
    from mmpaca import plugin

    plugin.install()
    from mmpaca.compat import require

    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        require(package)
    from mmpaca.apis.export import check_opset

    check_opset(args.opset)
    (_export_backbone if args.backbone else _export_model)(args, config, checkpoint)


def _export_backbone(args: argparse.Namespace, config: str, checkpoint: str) -> None:
    from mmpaca.apis.devices import find_device
    from mmpaca.apis.export import export_backbone
    from mmpaca.apis.inference import Predictor
    from mmpaca.apis.outputs import check_out_dir

    out_dir = check_out_dir(args.out, 'OUT')
    model = Predictor(config, checkpoint, find_device(args.device)).model
    export_backbone(model, config, out_dir, args.shape or (800, 1280), args.opset)


def _export_model(args: argparse.Namespace, config: str, checkpoint: str) -> None:
    from pathlib import Path

    from mmpaca.apis.configs import read_config
    from mmpaca.apis.deploy import ExportOptions, export, find_format
    from mmpaca.apis.outputs import check_out_file
    from mmpaca.datasets.images import find_images

    if args.shape or args.device:
        raise ValueError(
            '--shape and --device are for --backbone: a whole model is traced on the CPU'
        )
    file_format = find_format(Path(args.out), args.format)
    if args.server and file_format == 'torch':
        raise ValueError(f'--server {args.server}: it reads OUT.onnx or OUT.xml, not {args.out}')
    out = check_out_file(args.out, 'OUT')
    export(
        read_config(config, args.cfg_options),
        checkpoint,
        out,
        ExportOptions(
            format=file_format,
            precision=args.precision,
            resize=not args.no_resize,
            score_thr=args.score_thr,
            opset=args.opset,
            calibration=find_images(args.calibration),
        ),
        args.verify,
    )
    if args.server:
        from mmpaca.deploy.server import write_server

        repository = out.with_name(f'{out.stem}_{args.server}')
        write_server(args.server, out, repository)
        print(f'wrote {repository}')
