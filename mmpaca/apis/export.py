"""A backbone as a file that runs without mmpaca: torch.export's or ONNX."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mmpaca.analysis.model import input_channels
from mmpaca.compat import require

#: The largest error let pass, as a share of the largest magnitude in a map.
TOLERANCE = 1e-4
_INPUT = 'image'
_AXES = {0: 'batch', 2: 'height', 3: 'width'}
# Sizes that no stride divides and no two of which are equal: nothing in them is a special case.
_TRACED = (2, 103, 167)  # batch, height, width

Run = Callable[[Tensor], Sequence[Tensor]]


def trace(backbone: nn.Module) -> ExportedProgram:
    """What a backbone computes in inference, for any batch size, height and width.

    The program is for the kind of device that the backbone is on: its weights lie there, and on
    CPUs it takes other ways. (An ONNX file written from it runs on any.)

    Args:
        backbone: maps (B, C, H, W) images to a tuple of maps. It is set to eval mode.

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
    """Height and width in pixels below which a traced program refuses an image.

    For PyTorch's tracing a map of a single row or column is a case of its own, so that the last
    stage needs two of each.
    """
    (name,) = program.graph_signature.user_inputs
    image = next(node for node in program.graph.nodes if node.name == name).meta['val']
    height, width = (program.range_constraints[side.node.expr].lower for side in image.shape[2:])
    return int(height), int(width)


def write_pt2(program: ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """The content of a file for ``torch.export.load``.

    Args:
        program: of :func:`trace`.
        metadata: kept in the file under ``metadata.json``.
    """
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={'metadata.json': json.dumps(dict(metadata))})
    return file.getvalue()


def write_onnx(
    program: ExportedProgram, metadata: Mapping[str, str], opset: int | None = None
) -> bytes:
    """The content of an ONNX file: input ``image``, outputs ``feat0``, ``feat1``, ...

    Args:
        program: of :func:`trace`.
        metadata: kept as the model's properties.
        opset: ONNX's version of its operators; None for PyTorch's choice.

    Raises:
        ImportError: onnx or onnxscript is missing; it names the command that installs them.
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
    if opset not in (None, written):  # PyTorch goes on with another one
        raise ValueError(f'opset={opset} cannot be written for this model, {written} can')
    exported.model.metadata_props.update(metadata)
    return exported.model_proto.SerializeToString()


def run_pt2(content: bytes) -> Run:
    """What the content of a ``.pt2`` file computes."""
    return torch.export.load(io.BytesIO(content)).module()


def run_onnx(content: bytes) -> Run:
    """What the content of an ONNX file computes, by onnxruntime on the CPU.

    Raises:
        ImportError: onnxruntime is missing; it names the command that installs it.
    """
    session = require('onnxruntime').InferenceSession(content, providers=['CPUExecutionProvider'])

    def run(image: Tensor) -> list[Tensor]:
        return [torch.from_numpy(out) for out in session.run(None, {_INPUT: image.cpu().numpy()})]

    return run


def largest_error(given: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[float, float]:
    """The largest error in any map: absolute, and over the largest magnitude of that map.

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
