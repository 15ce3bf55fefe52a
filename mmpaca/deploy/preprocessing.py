"""The part of the file before the network: resizing of the image.

Written as ONNX text and not traced: with the resized size as a symbol, torch.export simplifies nested
roundings for minutes. Sizes are computed in float64 with mmcv's operations in mmcv's order, so that
they are equal to the last pixel. OpenCV's bilinear resizing is repeated in its integers: it is an
eighth of a grey level darker than exact interpolation, and scores would differ by more than 1e-3.
"""

from collections.abc import Sequence
from typing import Any

from .pipeline import Crop, Pad, Resize, Step

_FLOAT, _UINT8, _INT32, _INT64, _DOUBLE = 1, 2, 6, 7, 11  # onnx.TensorProto
# Attributes of ONNX Resize. OpenCV's cubic has another coefficient than Pillow's, and Pillow's
# filters widen when they shrink an image.
_MODES = {
    ('cv2', 'bicubic'): 'mode = "cubic", cubic_coeff_a = -0.75',
    ('pillow', 'bilinear'): 'mode = "linear", antialias = 1, exclude_outside = 1',
    ('pillow', 'bicubic'): (
        'mode = "cubic", antialias = 1, exclude_outside = 1, cubic_coeff_a = -0.5'
    ),
}


def write_preprocessing(steps: Sequence[Step], opset: int, ir_version: int) -> Any:
    """Write the model ``picture`` (B, H, W, 3) uint8 to the network's input.

    Outputs: ``input`` (B, 3, h, w) float32; ``scale`` (4,), width, height, width, height of the
    picture over those after resizing; ``ratio`` (2,), the first two of them in float64;
    ``picture_size`` (2,), H and W.

    Args:
        steps: result of :func:`mmpaca.deploy.pipeline.read_pipeline`.
        opset: ONNX operator set version.
        ir_version: version of the file format.

    Returns:
        onnx.ModelProto.
    """
    from onnx import parser

    lines = [
        'image0 = Identity (picture)',  # (B, H, W, 3) uint8 between all steps
        'picture_size = Shape <start = 1, end = 3> (picture)',
        f'whole = Cast <to = {_DOUBLE}> (picture_size)',
    ]
    last, resized = 'image0', 'picture_size'
    for number, step in enumerate(steps, 1):
        last, new = f'image{number}', f's{number}_'
        before = f'image{number - 1}'
        if isinstance(step, Resize):
            lines += _resize(step, before, last, new)
            resized = f'{new}size'
        elif isinstance(step, Pad):
            lines += _pad(step, before, last, new)
        else:
            lines += _crop(step, before, last, new)
    lines += [
        f'planes = Transpose <perm = [0, 3, 1, 2]> ({last})',
        f'input = Cast <to = {_FLOAT}> (planes)',
        f'new_whole = Cast <to = {_DOUBLE}> ({resized})',
        'factor = Div (new_whole, whole)',  # mmcv's scale_factor; mmdet multiplies by its inverse
        'ratio_hw = Reciprocal (factor)',
        'ratio = Gather <axis = 0> (ratio_hw, wh)',
        f'scale_2 = Cast <to = {_FLOAT}> (ratio)',
        'scale = Concat <axis = 0> (scale_2, scale_2)',
    ]
    body = '\n'.join(lines)
    return parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n'
        'preprocessing (uint8[batch, height, width, 3] picture)'
        ' => (float[batch, 3, input_height, input_width] input, float[4] scale,'
        ' double[2] ratio, int64[2] picture_size)\n'
        '<int64[2] wh = {1, 0}>\n'
        f'{{\n{body}\n}}'
    )


def _constant(kind: str, name: str, *values: float) -> str:
    listed = ', '.join(map(str, values))
    return f'{name} = Constant <value = {kind}[{len(values)}] {{{listed}}}> ()'


def _resize(step: Resize, before: str, after: str, new: str) -> list[str]:
    lines = [f'{new}old = Shape <start = 1, end = 3> ({before})', *_new_size(step, new)]
    if (step.backend, step.interpolation) == ('cv2', 'bilinear'):
        return lines + _bilinear(before, after, new)
    lines += [
        f'{new}planes = Transpose <perm = [0, 3, 1, 2]> ({before})',
        f'{new}grey0 = Cast <to = {_FLOAT}> ({new}planes)',
        f'{new}front = Shape <start = 0, end = 2> ({new}planes)',
        f'{new}low = Constant <value_float = 0.0> ()',
        f'{new}high = Constant <value_float = 255.0> ()',
    ]
    passes = [f'{new}size']
    if step.backend == 'pillow':  # columns first, rounded to 8 bits
        lines += [
            _constant('int64', f'{new}y', 0),
            _constant('int64', f'{new}x', 1),
            f'{new}old_h = Gather <axis = 0> ({new}old, {new}y)',
            f'{new}new_w = Gather <axis = 0> ({new}size, {new}x)',
            f'{new}wide = Concat <axis = 0> ({new}old_h, {new}new_w)',
        ]
        passes.insert(0, f'{new}wide')
    mode = _MODES[step.backend, step.interpolation]
    for i, size in enumerate(passes):
        lines += [
            f'{new}sizes{i} = Concat <axis = 0> ({new}front, {size})',
            f'{new}smooth{i} = Resize <{mode}, coordinate_transformation_mode = "half_pixel">'
            f' ({new}grey{i}, , , {new}sizes{i})',
            f'{new}round{i} = Round ({new}smooth{i})',
            f'{new}grey{i + 1} = Clip ({new}round{i}, {new}low, {new}high)',
        ]
    return lines + [
        f'{new}bytes = Cast <to = {_UINT8}> ({new}grey{len(passes)})',
        f'{after} = Transpose <perm = [0, 2, 3, 1]> ({new}bytes)',
    ]


def _new_size(step: Resize, new: str) -> list[str]:
    """Height and width after resizing, ``size``, of those before, ``old``."""
    if step.rule == 'exact':
        width, height = step.scale
        return [_constant('int64', f'{new}size', height, width)]
    whole = [
        f'{new}whole = Cast <to = {_DOUBLE}> ({new}old)',
        _constant('double', f'{new}half', 0.5),
    ]
    if step.rule == 'ratio':
        return [
            *whole,
            *_limit(f'{new}long', float(max(step.scale)), 'ReduceMax', new),
            *_limit(f'{new}short', float(min(step.scale)), 'ReduceMin', new),
            *_fit(new),
        ]
    if step.rule in ('factor', 'ratio_factor'):
        width, height = step.scale
        lines = [
            *whole,
            _constant('double', f'{new}factors', height, width),
            *_scaled(new, 'factors', 'wanted'),
        ]
        if step.rule == 'factor':
            return [*lines, f'{new}size = Identity ({new}wanted)']
        lines.append(f'{new}frame = Cast <to = {_DOUBLE}> ({new}wanted)')
        for side, reduce in (('long', 'ReduceMax'), ('short', 'ReduceMin')):
            lines += [
                f'{new}{side}_frame = {reduce} <keepdims = 1> ({new}frame)',
                f'{new}{side}_side = {reduce} <keepdims = 1> ({new}whole)',
                f'{new}{side} = Div ({new}{side}_frame, {new}{side}_side)',
            ]
        return [*lines, *_fit(new)]
    reduce = 'ReduceMin' if step.rule == 'short' else 'ReduceMax'
    return [
        _constant('int64', f'{new}edge', step.scale[0]),
        f'{new}base = {reduce} <keepdims = 1> ({new}old)',
        f'{new}times = Mul ({new}old, {new}edge)',
        f'{new}size = Div ({new}times, {new}base)',
    ]


def _fit(new: str) -> list[str]:
    """``size`` by the smaller of the factors ``long`` and ``short``."""
    return [f'{new}factor = Min ({new}long, {new}short)', *_scaled(new, 'factor', 'size')]


def _scaled(new: str, factor: str, name: str) -> list[str]:
    return [
        f'{new}{name}_exact = Mul ({new}whole, {new}{factor})',
        f'{new}{name}_up = Add ({new}{name}_exact, {new}half)',
        f'{new}{name} = Cast <to = {_INT64}> ({new}{name}_up)',
    ]


def _limit(name: str, size: float, reduce: str, new: str) -> list[str]:
    """Factor from the longer or shorter side of ``whole`` to a size."""
    return [
        _constant('double', f'{name}_size', size),
        f'{name}_side = {reduce} <keepdims = 1> ({new}whole)',
        # OpenVINO 2026.4 inverts some quotients of a constant and an input: keep it from seeing one.
        f'{name}_sum = Add ({name}_side, {name}_size)',
        f'{name}_wanted = Sub ({name}_sum, {name}_side)',
        f'{name} = Div ({name}_wanted, {name}_side)',
    ]


def _bilinear(before: str, after: str, new: str) -> list[str]:
    """OpenCV's INTER_LINEAR of 8-bit images: weights of 11 bits, columns first, then rows."""
    x, y = f'{new}x_', f'{new}y_'
    return [
        *_weights(x, new, axis=1),
        *_weights(y, new, axis=0),
        f'{x}0 = Gather <axis = 2> ({before}, {x}first)',
        f'{x}1 = Gather <axis = 2> ({before}, {x}second)',
        f'{x}2 = Cast <to = {_INT32}> ({x}0)',
        f'{x}3 = Cast <to = {_INT32}> ({x}1)',
        _constant('int64', f'{new}column', -1, 1),
        f'{x}4 = Reshape ({x}near, {new}column)',
        f'{x}5 = Reshape ({x}far, {new}column)',
        f'{x}6 = Mul ({x}2, {x}4)',
        f'{x}7 = Mul ({x}3, {x}5)',
        f'{x}8 = Add ({x}6, {x}7)',
        _constant('int32', f'{new}sixteen', 16),
        f'{x}9 = Div ({x}8, {new}sixteen)',
        f'{y}0 = Gather <axis = 1> ({x}9, {y}first)',
        f'{y}1 = Gather <axis = 1> ({x}9, {y}second)',
        _constant('int64', f'{new}rows', -1, 1, 1),
        f'{y}4 = Reshape ({y}near, {new}rows)',
        f'{y}5 = Reshape ({y}far, {new}rows)',
        f'{y}6 = Mul ({y}0, {y}4)',
        f'{y}7 = Mul ({y}1, {y}5)',
        _constant('int32', f'{new}high', 65536),
        f'{y}8 = Div ({y}6, {new}high)',
        f'{y}9 = Div ({y}7, {new}high)',
        f'{new}sum = Add ({y}8, {y}9)',
        _constant('int32', f'{new}two', 2),
        _constant('int32', f'{new}four', 4),
        f'{new}more = Add ({new}sum, {new}two)',
        f'{new}quarter = Div ({new}more, {new}four)',
        f'{after} = Cast <to = {_UINT8}> ({new}quarter)',
    ]


def _weights(name: str, new: str, axis: int) -> list[str]:
    """Indices ``first``, ``second`` and int32 weights ``near``, ``far`` along height or width."""
    lines = [
        _constant('int64', f'{name}axis', axis),
        f'{name}new = Gather <axis = 0> ({new}size, {name}axis)',
        f'{name}old = Gather <axis = 0> ({new}old, {name}axis)',
        f'{name}new_f = Cast <to = {_DOUBLE}> ({name}new)',
        f'{name}old_f = Cast <to = {_DOUBLE}> ({name}old)',
        f'{name}growth = Div ({name}new_f, {name}old_f)',
        f'{name}step = Reciprocal ({name}growth)',
        f'{name}zero = Constant <value_int = 0> ()',
        f'{name}one = Constant <value_int = 1> ()',
        f'{name}count = Squeeze ({name}new)',
        f'{name}range = Range ({name}zero, {name}count, {name}one)',
        f'{name}range_f = Cast <to = {_DOUBLE}> ({name}range)',
        _constant('double', f'{name}half', 0.5),
        f'{name}centre = Add ({name}range_f, {name}half)',
        f'{name}scaled = Mul ({name}centre, {name}step)',
        f'{name}place = Sub ({name}scaled, {name}half)',
        f'{name}place_f = Cast <to = {_FLOAT}> ({name}place)',
        f'{name}floor = Floor ({name}place_f)',
        f'{name}part = Sub ({name}place_f, {name}floor)',
        f'{name}floor_i = Cast <to = {_INT64}> ({name}floor)',
        f'{name}next = Add ({name}floor_i, {name}one)',
        f'{name}last = Sub ({name}old, {name}one)',
        f'{name}first_low = Max ({name}floor_i, {name}zero)',
        f'{name}first = Min ({name}first_low, {name}last)',
        f'{name}second_low = Max ({name}next, {name}zero)',
        f'{name}second = Min ({name}second_low, {name}last)',
    ]
    share = f'{name}part'
    if axis == 1:  # OpenCV sets the weights at the left and right edge, not at the others
        share = f'{name}share'
        lines += [
            f'{name}left = Less ({name}floor_i, {name}zero)',
            f'{name}right = GreaterOrEqual ({name}floor_i, {name}last)',
            f'{name}edge = Or ({name}left, {name}right)',
            f'{name}nothing = Constant <value_float = 0.0> ()',
            f'{share} = Where ({name}edge, {name}nothing, {name}part)',
        ]
    return lines + [
        f'{name}unit = Constant <value_float = 1.0> ()',
        f'{name}bits = Constant <value_float = 2048.0> ()',
        f'{name}far_f = Mul ({share}, {name}bits)',
        f'{name}far_r = Round ({name}far_f)',
        f'{name}far = Cast <to = {_INT32}> ({name}far_r)',
        f'{name}rest = Sub ({name}unit, {share})',
        f'{name}near_f = Mul ({name}rest, {name}bits)',
        f'{name}near_r = Round ({name}near_f)',
        f'{name}near = Cast <to = {_INT32}> ({name}near_r)',
    ]


def _pad(step: Pad, before: str, after: str, new: str) -> list[str]:
    width, height = step.size
    return [
        f'{new}hw = Shape <start = 1, end = 3> ({before})',
        _constant('int64', f'{new}size', height, width),
        f'{new}missing = Sub ({new}size, {new}hw)',
        _constant('int64', f'{new}none', 0, 0, 0, 0, 0),
        _constant('int64', f'{new}channels', 0),
        f'{new}pads = Concat <axis = 0> ({new}none, {new}missing, {new}channels)',
        f'{new}value_f = Constant <value_float = {step.value}> ()',
        f'{new}value = Cast <to = {_UINT8}> ({new}value_f)',
        f'{after} = Pad ({before}, {new}pads, {new}value)',
    ]


def _crop(step: Crop, before: str, after: str, new: str) -> list[str]:
    width, height = step.size
    return [
        f'{new}hw = Shape <start = 1, end = 3> ({before})',
        _constant('int64', f'{new}want', height, width),
        f'{new}size = Min ({new}hw, {new}want)',
        f'{new}rest = Sub ({new}hw, {new}size)',
        f'{new}rest_f = Cast <to = {_FLOAT}> ({new}rest)',
        _constant('float', f'{new}half', 0.5),
        f'{new}middle = Mul ({new}rest_f, {new}half)',
        f'{new}even = Round ({new}middle)',  # to even, as Python's
        f'{new}first = Cast <to = {_INT64}> ({new}even)',
        f'{new}end = Add ({new}first, {new}size)',
        _constant('int64', f'{new}axes', 1, 2),
        f'{after} = Slice ({before}, {new}first, {new}end, {new}axes)',
    ]
