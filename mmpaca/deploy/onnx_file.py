"""Write a graph of tensors as an ONNX model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from mmpaca.compat import require
from mmpaca.version import __version__

from .ops import onnx_translations
from .pipeline import Step
from .preprocessing import write_preprocessing

#: Gelu and LayerNormalization are single nodes from here on.
OPSET = 20
# The picture has other sizes than the network's input, and so other names.
_AXES = {0: 'batch', 2: 'input_height', 3: 'input_width'}
# Sizes that no stride divides, no two of which are equal and of which the coarsest map still has two windows
# of a Swin Transformer: nothing in them is a special case.
_TRACED = (2, 3, 263, 583)


def trace(graph: nn.Module, size: tuple[int, int] | None = None) -> ExportedProgram:
    """Trace a graph for any batch size, and any height and width unless they are fixed.

    Args:
        graph: result of :func:`mmpaca.deploy.build_graph`.
        size: height and width, if they are fixed; None for any.

    Raises:
        ValueError: PyTorch cannot trace it with these axes free.
    """
    image = torch.rand(*_TRACED[:2], *(size or _TRACED[2:])) * 255
    axes = dict.fromkeys([0] if size else _AXES, Dim.DYNAMIC)
    try:
        with torch.no_grad():
            return torch.export.export(
                graph, (image, torch.ones(4)), dynamic_shapes=(axes, None), strict=False
            )
    except torch._dynamo.exc.UserError as error:
        free = 'batch' if size else 'batch, height and width'
        raise ValueError(
            f'torch.export cannot trace this model with free {free}: {str(error).splitlines()[0]}'
        ) from error


def to_onnx(program: ExportedProgram, outputs: tuple[str, ...], opset: int | None = None) -> Any:
    """Convert a traced graph to an ONNX model: inputs ``image`` and ``scale``.

    Args:
        program: result of :func:`trace`.
        outputs: names of the outputs.
        opset: ONNX operator set version; None for :data:`OPSET`.

    Returns:
        onnx.ModelProto.

    Raises:
        ImportError: onnx or onnxscript is missing; the error names the command that installs them.
        ValueError: PyTorch cannot write this version.
    """
    require('onnx')
    require('onnxscript')
    opset = opset or OPSET
    exported = cast(
        torch.onnx.ONNXProgram,  # None without dynamo only
        torch.onnx.export(
            program,
            dynamo=True,
            input_names=['image', 'scale'],
            output_names=list(outputs),
            dynamic_shapes=(_AXES, None),  # of a traced program these are names only
            opset_version=opset,
            custom_translation_table=onnx_translations(),
            verbose=False,
        ),
    )
    written = exported.model.opset_imports['']
    if opset != written:  # PyTorch falls back to another version
        raise ValueError(f'--opset {opset} cannot be written for this model, {written} can')
    network = exported.model_proto
    # The exporter notes the lines of code, with their paths, that each node comes from.
    for part in (*network.graph.node, *network.graph.value_info, network.graph):
        del part.metadata_props[:]
    return network


def join(network: Any, steps: Sequence[Step], write_after: Callable | None = None) -> Any:
    """Put the preprocessing before a network, and what makes maps of the picture's size after it.

    Args:
        network: result of :func:`to_onnx`.
        steps: what happens to the image before the data preprocessor.
        write_after: function of :mod:`mmpaca.deploy.postprocessing` of the versions of operators and
            file; it takes the network's last output, and the result has its name.

    Returns:
        onnx.ModelProto with the input ``image`` (B, H, W, 3) uint8 RGB.
    """
    import onnx
    from onnx import compose

    versions = network.opset_import[0].version, network.ir_version
    outputs = [value.name for value in network.graph.output]
    before = compose.add_prefix(write_preprocessing(steps, *versions), 'pre/')
    network = compose.add_prefix(network, 'net/', rename_nodes=True)
    names = {'pre/picture': 'image', **{f'net/{name}': name for name in outputs}}
    whole = compose.merge_models(
        before, network, io_map=[('pre/input', 'net/image'), ('pre/scale', 'net/scale')]
    )
    if write_after is not None:
        after = compose.add_prefix(write_after(*versions), 'post/')
        last = outputs[-1]
        wires = {f'post/{name}': f'pre/{name}' for name in ('ratio', 'picture_size')}
        wires['post/logits'] = f'net/{last}'
        io_map = [(wires[value.name], value.name) for value in after.graph.input]
        whole = compose.merge_models(whole, after, io_map=io_map)
        names[f'post/{last}'] = names.pop(f'net/{last}')
    results = {value.name: value for value in whole.graph.output}
    wanted = {new: old for old, new in names.items()}
    del whole.graph.output[:]
    whole.graph.output.extend(results[wanted[name]] for name in outputs)
    _rename(whole.graph, names)
    del whole.opset_import[1:]  # merging repeats it
    whole.graph.name = whole.producer_name = 'mmpaca'
    whole.producer_version = __version__
    onnx.checker.check_model(whole)
    return whole


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)
