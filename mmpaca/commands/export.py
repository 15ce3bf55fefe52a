"""Export the backbone of a detector or classifier for programs without mmpaca.

OUT_DIR/backbone.pt2 is for torch.export.load, OUT_DIR/backbone.onnx for ONNX Runtime and others.
Both take normalised images (batch, channels, height, width) of any batch size, height and width,
and give the maps feat0, feat1, ... in the same layout. The .pt2 file runs on the type of device it
was traced on, the ONNX file on any. Each file is read back and compared with PyTorch at three sizes
before it is written: the largest difference must be within 1e-4 of a map's largest magnitude.
"""

import argparse

from . import options

HELP = 'export the backbone to torch.export and ONNX files'
EXAMPLE = 'mmpaca export mask_rcnn_paca published exported --shape 800 1280'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and the files."""
    options.add_config(parser)
    options.add_checkpoint(parser)
    out_dir = parser.add_argument('out_dir', metavar='OUT_DIR', help='folder to write')
    options.completed(out_dir, options.FOLDER)
    options.add_shape(parser, '800 1280')
    parser.add_argument(
        '--opset',
        type=options.at_least(1),
        metavar='N',
        help="ONNX operator set version (default: PyTorch's choice)",
    )
    options.add_device(parser)


def run(args: argparse.Namespace) -> None:
    """Export."""
    from mmpaca.apis.configs import find_checkpoint, find_config
    from mmpaca.apis.outputs import check_out_dir

    config = find_config(args.config)
    checkpoint = find_checkpoint(args.checkpoint, config)
    out_dir = check_out_dir(args.out_dir, 'OUT_DIR')
    from mmpaca import plugin

    plugin.install()
    from mmpaca.apis.devices import find_device
    from mmpaca.apis.export import check_opset, export_backbone
    from mmpaca.apis.inference import Predictor
    from mmpaca.compat import require

    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        require(package)
    check_opset(args.opset)
    device = find_device(args.device)
    model = Predictor(config, checkpoint, device).model
    export_backbone(model, config, out_dir, args.shape or (800, 1280), args.opset)
