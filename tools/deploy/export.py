"""Write the backbone of a detector or classifier for programs without mmpaca.

OUT/backbone.pt2 is for torch.export.load, OUT/backbone.onnx for ONNX Runtime and others. Both take
normalised images (batch, channels, height, width), all but the channels free, and give the maps
feat0, feat1, ... in the same order of axes. The .pt2 file runs on the kind of device that it was
traced on, see --device; the ONNX file on any. A file is written only after it has been read back
and run at three sizes: the largest difference to PyTorch must be within 1e-4 of a map's largest
magnitude.

Of the rest of a detector, mmdeploy (last release 1.3.1; not run here) covers neck, RPN, heads, box
decoding, RoIAlign and NMS of RetinaNet, Mask R-CNN and Cascade Mask R-CNN for ONNX Runtime. It has
no rules for PaCaViT and should need none: the older exporter of PyTorch that it calls takes it, too.
"""

import argparse
import pickle
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import mmpaca
from mmpaca.analysis.model import input_channels
from mmpaca.apis import export
from mmpaca.apis.inference import Predictor
from mmpaca.checkpoint.saving import write_atomically
from mmpaca.compat import require


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='of mmdet or mmpretrain')
    parser.add_argument('checkpoint', help='weights that fit the config')
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        default=[800, 1280],
        metavar=('H', 'W'),
        help='size at which the files are checked first; 800 1280',
    )
    parser.add_argument('--opset', type=int, help="of the ONNX file; PyTorch's choice if left out")
    device = 'cuda:0' if torch.cuda.is_available() else 'cpu'
    parser.add_argument('--device', default=device, help='to trace on; here %(default)s')
    args = parser.parse_args()
    if len(args.shape) > 2 or min(args.shape) < 1:
        parser.error(f'--shape takes a side or a height and a width, got {args.shape}')
    return args


def describe(model: nn.Module, config: str) -> dict[str, str]:
    """What a user of the files has to know of the images, and what made the files."""
    about = dict(config=Path(config).name, mmpaca=mmpaca.__version__)
    preprocessor = model.data_preprocessor
    for name in ('mean', 'std'):
        if hasattr(preprocessor, name):
            values = getattr(preprocessor, name).flatten().tolist()
            about[name] = ', '.join(f'{value:.6g}' for value in values)
    if input_channels(model.backbone) == 3:
        # The same option of mmpretrain and of mmdet; OpenCV reads BGR.
        to_rgb = getattr(
            preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False)
        )
        about['channels'] = 'RGB' if to_rgb else 'BGR'
    return about


def check_images(
    channels: int, shape: tuple[int, int], smallest: tuple[int, int], device: str
) -> list[Tensor]:
    """An image of the size, one that is turned, and two of another size."""
    height, width = shape
    other = max(height // 2 + 1, smallest[0]), max(width // 3 + 2, smallest[1])
    sizes = [(1, height, width), (1, width, height), (2, *other)]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, channels, h, w, generator=generator).to(device) for n, h, w in sizes]


def check(name: str, run: export.Run, images: list[Tensor], expected: list[list[Tensor]]) -> None:
    """Compare what a file computes with PyTorch, and end the process if it is something else."""
    for image, maps in zip(images, expected, strict=True):
        absolute, relative = export.largest_error(run(image), maps)
        size = 'x'.join(map(str, image.shape))
        print(f'{name} at {size}: largest error {absolute:.1e}, {relative:.1e} of the map')
        if not relative <= export.TOLERANCE:  # NaN is an error, too
            sys.exit(
                f'error: {name} is not written: at {size} it differs from PyTorch by {relative:.1e} '
                f'of the largest magnitude, allowed are {export.TOLERANCE:.0e}'
            )


def write_files(model: nn.Module, args: argparse.Namespace) -> None:
    """Trace the backbone; write, check and keep both files.

    Raises:
        OSError: a file cannot be written.
        ValueError: the shape or opset is not possible.
    """
    start = time.time()
    program = export.trace(model.backbone)
    smallest = export.smallest_size(program)
    print(f'traced in {time.time() - start:.0f} s: any batch, {smallest} pixels or more')
    if min(args.shape) < max(smallest):
        raise ValueError(f'--shape {args.shape}: at least {smallest} pixels are possible')
    about = describe(model, args.config)
    print(f'normalise images with {about}')
    channels = input_channels(model.backbone)
    images = check_images(channels, (args.shape[0], args.shape[-1]), smallest, args.device)
    expected = [model.backbone(image) for image in images]
    for name, write, run in (
        ('backbone.pt2', export.write_pt2, export.run_pt2),
        ('backbone.onnx', partial(export.write_onnx, opset=args.opset), export.run_onnx),
    ):
        content = write(program, about)
        check(name, run(content), images, expected)
        write_atomically(args.out / name, content)
        print(f'wrote {args.out / name}, {len(content) / 1e6:.1f} MB')


@torch.no_grad()
def main() -> None:
    args = parse_args()
    torch.backends.cudnn.allow_tf32 = False  # it is further off than the error allowed
    try:
        for package in ('onnx', 'onnxscript', 'onnxruntime'):
            require(package)
        model = Predictor(args.config, args.checkpoint, args.device).model
    except (ImportError, OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        sys.exit(f'error: {error}')
    try:
        write_files(model, args)
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
