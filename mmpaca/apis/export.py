"""Export a backbone to a file that runs without mmpaca: torch.export's or ONNX."""

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mmpaca.analysis.model import input_channels
from mmpaca.checkpoint.saving import write_atomically
from mmpaca.compat import require
from mmpaca.version import __version__

#: The largest error accepted, relative to the largest magnitude of a map.
TOLERANCE = 1e-4
_OLDEST_OPSET = 7  # torch's
_INPUT = 'image'
_AXES = {0: 'batch', 2: 'height', 3: 'width'}
# Sizes that no stride divides and no two of which are equal: nothing in them is a special case.
_TRACED = (2, 103, 167)  # batch, height, width

Run = Callable[[Tensor], Sequence[Tensor]]


def trace(backbone: nn.Module) -> ExportedProgram:
    """Trace the inference of a backbone for any batch size, height and width.

    The program is for the type of device that the backbone is on: it holds the weights there, and
    CPUs have code paths of their own. An ONNX file written from it runs on any device.

    Args:
        backbone: maps (B, C, H, W) images to a tuple of maps; set to eval mode.

    Raises:
        torch._dynamo.exc.UserError: PyTorch cannot trace it with these axes free.
    """
    batch, height, width = _TRACED
    channels, device = input_channels(backbone), next(backbone.parameters()).device
    image = torch.rand(batch, channels, height, width, device=device)
    axes = dict.fromkeys(_AXES, Dim.DYNAMIC)
    with torch.no_grad():
        return torch.export.export(backbone.eval(), (image,), dynamic_shapes=(axes,), strict=False)


def smallest_size(program: ExportedProgram) -> tuple[int, int]:
    """Return the smallest height and width in pixels that a traced program accepts.

    PyTorch traces a map of a single row or column as a special case, so the last stage needs two
    of each.
    """
    (name,) = program.graph_signature.user_inputs
    image = next(node for node in program.graph.nodes if node.name == name).meta['val']
    height, width = (program.range_constraints[side.node.expr].lower for side in image.shape[2:])
    return int(height), int(width)


def write_pt2(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Return the content of a file for ``torch.export.load``.

    Args:
        program: result of :func:`trace`.
        metadata: stored in the file under ``metadata.json``.
    """
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={'metadata.json': json.dumps(dict(metadata))})
    return file.getvalue()


def write_onnx(
    program: ExportedProgram, metadata: Mapping[str, str], opset: int | None = None
) -> bytes:
    """Return the content of an ONNX file: input ``image``, outputs ``feat0``, ``feat1``, ...

    Args:
        program: result of :func:`trace`.
        metadata: stored as the model's properties.
        opset: ONNX operator set version; None for PyTorch's choice.

    Raises:
        ImportError: onnx or onnxscript is missing; the error names the command that installs them.
        ValueError: PyTorch cannot write this version.
    """
    require('onnx')
    require('onnxscript')
    outputs = [f'feat{i}' for i in range(len(program.graph_signature.user_outputs))]
    exported = cast(
        torch.onnx.ONNXProgram,  # None without dynamo only
        torch.onnx.export(
            program,
            dynamo=True,
            input_names=[_INPUT],
            output_names=outputs,
            dynamic_shapes=(_AXES,),  # of a traced program these are names only
            opset_version=opset,
            verbose=False,
        ),
    )
    written = exported.model.opset_imports['']
    if opset not in (None, written):  # PyTorch falls back to another version
        raise ValueError(f'--opset {opset} cannot be written for this model, {written} can')
    exported.model.metadata_props.update(metadata)
    return exported.model_proto.SerializeToString()


def run_pt2(content: bytes) -> Run:
    """Load the content of a ``.pt2`` file as a function."""
    return torch.export.load(io.BytesIO(content)).module()


def run_onnx(content: bytes) -> Run:
    """Load the content of an ONNX file as a function that onnxruntime runs on the CPU.

    Raises:
        ImportError: onnxruntime is missing; the error names the command that installs it.
    """
    session = require('onnxruntime').InferenceSession(content, providers=['CPUExecutionProvider'])

    def run(image: Tensor) -> list[Tensor]:
        return [torch.from_numpy(out) for out in session.run(None, {_INPUT: image.cpu().numpy()})]

    return run


def largest_error(given: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[float, float]:
    """Return the largest error in any map: absolute, and relative to that map's largest magnitude.

    Raises:
        ValueError: number or shapes of the maps differ.
    """
    shapes = [[tuple(out.shape) for out in outs] for outs in (given, expected)]
    if shapes[0] != shapes[1]:
        raise ValueError(f'maps of shapes {shapes[0]} instead of {shapes[1]}')
    absolute = [
        (ours.cpu() - theirs.cpu()).abs().max().item()
        for ours, theirs in zip(given, expected, strict=True)
    ]
    magnitudes = [out.abs().max().item() for out in expected]
    return max(absolute), max(a / m for a, m in zip(absolute, magnitudes, strict=True))


def check_opset(opset: int | None) -> None:
    """Refuse an ONNX operator set that does not exist.

    Raises:
        ImportError: onnx is missing; the error names the command that installs it.
        ValueError: onnx does not know this version.
    """
    newest = require('onnx').defs.onnx_opset_version()
    if opset is not None and not _OLDEST_OPSET <= opset <= newest:
        raise ValueError(f'--opset {opset} is invalid, give {_OLDEST_OPSET} to {newest}')


def export_metadata(model: nn.Module, config: str) -> dict[str, str]:
    """Return what a user of the files has to know: normalisation, channel order and origin.

    Args:
        model: detector or classifier.
        config: path of its config.
    """
    metadata = dict(config=Path(config).name, mmpaca=__version__)
    preprocessor = model.data_preprocessor
    for name in ('mean', 'std'):
        if hasattr(preprocessor, name):
            values = getattr(preprocessor, name).flatten().tolist()
            metadata[name] = ', '.join(f'{value:.6g}' for value in values)
    if input_channels(cast(nn.Module, model.backbone)) == 3:
        # The same option of mmpretrain and of mmdet; OpenCV reads BGR.
        to_rgb = getattr(
            preprocessor, 'to_rgb', getattr(preprocessor, '_channel_conversion', False)
        )
        metadata['channels'] = 'RGB' if to_rgb else 'BGR'
    return metadata


def sample_images(
    channels: int, shape: tuple[int, int], smallest: tuple[int, int], device: torch.device
) -> list[Tensor]:
    """Return an image of the shape, one with the sides swapped, and two of another size."""
    height, width = shape
    other = max(height // 2 + 1, smallest[0]), max(width // 3 + 2, smallest[1])
    sizes = [(1, height, width), (1, width, height), (2, *other)]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, channels, h, w, generator=generator).to(device) for n, h, w in sizes]


def check_run(name: str, run: Run, images: list[Tensor], expected: list[list[Tensor]]) -> None:
    """Compare what a file computes with PyTorch.

    Args:
        name: file name, for messages.
        run: the loaded file.
        images: (B, C, H, W) inputs.
        expected: PyTorch's maps of each input.

    Raises:
        ValueError: the error is larger than :data:`TOLERANCE`.
    """
    for image, maps in zip(images, expected, strict=True):
        absolute, relative = largest_error(run(image), maps)
        size = 'x'.join(map(str, image.shape))
        print(f'{name} at {size}: largest error {absolute:.1e}, {relative:.1e} of the map')
        if not relative <= TOLERANCE:  # NaN is an error, too
            raise ValueError(
                f'{name} is not written: at {size} it differs from PyTorch by {relative:.1e} of the '
                f'largest magnitude, the tolerance is {TOLERANCE:.0e}'
            )


# TF32's error would be larger than the tolerance.
@torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False)
@torch.no_grad()
def export_backbone(
    model: nn.Module,
    config: str,
    out_dir: Path,
    shape: tuple[int, int] = (800, 1280),
    opset: int | None = None,
) -> None:
    """Write ``backbone.pt2`` and ``backbone.onnx``, each after it was read back and compared.

    Args:
        model: detector or classifier, on the device to trace on.
        config: path of its config.
        out_dir: folder to write.
        shape: height and width in pixels at which the files are compared first.
        opset: ONNX operator set version; None for PyTorch's choice.

    Raises:
        OSError: a file cannot be written.
        ValueError: the shape or opset is not possible, or a file computes something else.
    """
    start = time.time()
    backbone = cast(nn.Module, model.backbone)
    program = trace(backbone)
    smallest = smallest_size(program)
    print(f'traced in {time.time() - start:.0f} s: any batch size, at least {smallest} pixels')
    if min(shape) < max(smallest):  # the sides are swapped, too
        raise ValueError(f'--shape {shape[0]} {shape[1]} is too small, give at least {smallest}')
    metadata = export_metadata(model, config)
    print(f'normalise images with {metadata}')
    device = next(backbone.parameters()).device
    images = sample_images(input_channels(backbone), shape, smallest, device)
    expected = [backbone(image) for image in images]
    for name, write, run in (
        ('backbone.pt2', write_pt2, run_pt2),
        ('backbone.onnx', partial(write_onnx, opset=opset), run_onnx),
    ):
        content = write(program, metadata)
        check_run(name, run(content), images, expected)
        write_atomically(out_dir / name, content)
        print(f'wrote {out_dir / name}, {len(content) / 1e6:.1f} MB')
