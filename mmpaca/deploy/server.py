"""Model repositories of existing servers: NVIDIA Triton and OpenVINO Model Server."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from mmpaca.compat import require

#: Names of ``write_server``'s kinds.
SERVERS = ('triton', 'ovms')
#: Largest batch that Triton makes of requests for images of one size.
MAX_BATCH = 8
# OpenVINO Model Server reads this folder in its container.
_OVMS_ROOT = '/models'
_TRITON_BACKENDS = {'.onnx': 'platform: "onnxruntime_onnx"', '.xml': 'backend: "openvino"'}
_TRITON_TYPES = {
    'uint8': 'TYPE_UINT8',
    'float32': 'TYPE_FP32',
    'float16': 'TYPE_FP16',
    'int64': 'TYPE_INT64',
    'bool': 'TYPE_BOOL',
}


class Port(NamedTuple):
    """An input or output.

    Attributes:
        name: its name.
        dtype: name of its numpy type.
        shape: with the batch; -1 where it is free.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


def write_server(kind: str, content_path: Path, out_dir: Path) -> None:
    """Write the folders that a server reads a model from; the model is named like its file.

    Triton: ``OUT_DIR/NAME/config.pbtxt`` and ``OUT_DIR/NAME/1/model.onnx`` (or ``model.xml`` and
    ``.bin``). OpenVINO Model Server: ``OUT_DIR/config.json``, which keeps the models that it lists
    already, and ``OUT_DIR/NAME/1/``.

    Args:
        kind: one of :data:`SERVERS`.
        content_path: exported file, ``.onnx`` or ``.xml``.
        out_dir: model repository, made if necessary.

    Raises:
        FileExistsError: the repository has a model of this name.
        ImportError: onnx or openvino is missing; the error names the command that installs it.
        ValueError: the kind, the file's format or the repository's config.json is invalid.
    """
    if kind not in SERVERS:
        raise ValueError(f'server {kind!r}: choose one of {", ".join(SERVERS)}')
    if content_path.suffix not in _TRITON_BACKENDS:
        known = ' or '.join(_TRITON_BACKENDS)
        raise ValueError(f'{content_path}: servers read files that end in {known}')
    folder = out_dir / content_path.stem
    if folder.exists():
        raise FileExistsError(f'{folder} exists: delete it, or give the file another name')
    models = _ovms_models(out_dir) if kind == 'ovms' else []
    inputs, outputs = read_ports(content_path)
    (folder / '1').mkdir(parents=True)
    shutil.copyfile(content_path, folder / '1' / f'model{content_path.suffix}')
    if content_path.suffix == '.xml':
        shutil.copyfile(content_path.with_suffix('.bin'), folder / '1' / 'model.bin')
    if kind == 'triton':
        (folder / 'config.pbtxt').write_text(
            triton_config(folder.name, content_path.suffix, inputs, outputs)
        )
        return
    models.append(dict(config=dict(name=folder.name, base_path=f'{_OVMS_ROOT}/{folder.name}')))
    content = json.dumps(dict(model_config_list=models), indent=2)
    (out_dir / 'config.json').write_text(content + '\n')


def _ovms_models(out_dir: Path) -> list[Any]:
    path = out_dir / 'config.json'
    if not path.exists():
        return []
    try:
        models = json.loads(path.read_text())['model_config_list']
    except (ValueError, KeyError, TypeError):
        models = None
    if not isinstance(models, list):
        raise ValueError(f'{path}: not a configuration of OpenVINO Model Server; delete it')
    return models


def read_ports(path: Path) -> tuple[list[Port], list[Port]]:
    """Return the inputs and outputs of an exported file."""
    if path.suffix == '.xml':
        model = require('openvino').Core().read_model(path)
        ports = [
            [
                Port(
                    port.get_any_name(),
                    port.get_element_type().to_dtype().name,
                    tuple(d.get_length() if d.is_static else -1 for d in port.get_partial_shape()),
                )
                for port in side
            ]
            for side in (model.inputs, model.outputs)
        ]
        return ports[0], ports[1]
    onnx = require('onnx')
    graph = onnx.load(path, load_external_data=False).graph
    sides = []
    for side in (graph.input, graph.output):
        types = [(value.name, value.type.tensor_type) for value in side]
        sides.append(
            [
                Port(
                    name,
                    onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
                    tuple(d.dim_value if d.HasField('dim_value') else -1 for d in tensor.shape.dim),
                )
                for name, tensor in types
            ]
        )
    return sides[0], sides[1]


def triton_config(name: str, suffix: str, inputs: list[Port], outputs: list[Port]) -> str:
    """Return the text of a ``config.pbtxt``: batches are made of requests of one image size.

    Args:
        name: of the model.
        suffix: of its file.
        inputs: all with a free batch.
        outputs: all with a free batch.
    """
    lines = [
        f'name: "{name}"',
        _TRITON_BACKENDS[suffix],
        f'max_batch_size: {MAX_BATCH}',
        'dynamic_batching { max_queue_delay_microseconds: 1000 }',
    ]
    for side, ports in (('input', inputs), ('output', outputs)):
        for port in ports:
            dims = ', '.join(map(str, port.shape[1:]))  # without the batch
            dtype = _TRITON_TYPES[port.dtype]
            lines.append(f'{side} {{ name: "{port.name}" data_type: {dtype} dims: [ {dims} ] }}')
    return '\n'.join(lines) + '\n'
