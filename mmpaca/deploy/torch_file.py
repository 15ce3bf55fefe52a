"""Files of torch.export (.pt2) from traced graphs, and running them."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from mmpaca.compat import require

from .metadata import PREFIX
from .onnx_file import OPSET
from .pipeline import Step
from .preprocessing import write_preprocessing

#: Name of the file inside with the metadata.
METADATA = 'mmpaca.json'
_IR_VERSION = 10

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def write_program(
    program: ExportedProgram, outputs: Sequence[str], metadata: Mapping[str, str]
) -> bytes:
    """Return the content of a ``.pt2`` file.

    Args:
        program: result of :func:`mmpaca.deploy.onnx_file.trace`.
        outputs: their names.
        metadata: stored as JSON in the file :data:`METADATA` inside, with ``mmpaca.outputs``.
    """
    entries = {**metadata, f'{PREFIX}outputs': json.dumps(outputs)}
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(entries)})
    return buffer.getvalue()


def open_program(content: bytes, steps: Sequence[Step], write_after: Callable | None) -> Run:
    """Open a ``.pt2`` file, with what it lacks: the steps before and after the network.

    Args:
        content: of the file.
        steps: see :func:`complete`.
        write_after: see :func:`complete`.

    Raises:
        ImportError: onnxruntime is missing; the error names the command that installs it.
    """
    extra = {METADATA: ''}
    program = torch.export.load(io.BytesIO(content), extra_files=extra)
    # Its guards refuse maps of one pixel, with which the graph computes the same as with others.
    module = program.module(check_guards=False)
    outputs = json.loads(json.loads(extra[METADATA])[f'{PREFIX}outputs'])
    return complete(module, outputs, steps, write_after)


def complete(
    network: Callable, outputs: Sequence[str], steps: Sequence[Step], write_after: Callable | None
) -> Run:
    """Put the steps before and after the network around it.

    Args:
        network: function of ``image`` (B, 3, h, w) RGB, 0 to 255, and ``scale`` (4,).
        outputs: names of what it returns.
        steps: what happens to the image before the data preprocessor.
        write_after: as for :func:`mmpaca.deploy.onnx_file.join`.

    Returns:
        Function of ``image`` (B, H, W, 3) uint8 RGB to arrays by the names of the outputs.

    Raises:
        ImportError: onnxruntime is missing; the error names the command that installs it.
    """
    before = _open(write_preprocessing(steps, OPSET, _IR_VERSION))
    after = write_after and _open(write_after(OPSET, _IR_VERSION))

    @torch.no_grad()
    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        made = before(picture=image)
        found = network(torch.from_numpy(made['input']), torch.from_numpy(made['scale']))
        results = {name: value.numpy() for name, value in zip(outputs, found, strict=True)}
        if after:
            last = outputs[-1]
            results[last] = after(**made, logits=results[last])[last]
        return results

    return run


def _open(model: Any) -> Callable[..., dict[str, np.ndarray]]:
    """A function of arrays by name; it ignores those that the model does not take."""
    session = require('onnxruntime').InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    taken = [value.name for value in session.get_inputs()]
    names = [value.name for value in session.get_outputs()]

    def run(**arrays: np.ndarray) -> dict[str, np.ndarray]:
        results = session.run(names, {name: arrays[name] for name in taken})
        return dict(zip(names, results, strict=True))

    return run
