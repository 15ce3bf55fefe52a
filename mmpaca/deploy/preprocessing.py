"""The parts of the file around the network: resizing of the image and of masks.

Written as ONNX text and not traced: with the resized size as a symbol, torch.export simplifies nested
roundings for minutes. Sizes are computed in float64 with mmcv's operations in mmcv's order, so that
they are equal to the last pixel.
"""

import math
from collections.abc import Sequence
from typing import Any

from .pipeline import Crop, Pad, Resize, Step

_FLOAT, _INT64, _DOUBLE = 1, 7, 11  # onnx.TensorProto
# Attributes of ONNX Resize. OpenCV's cubic has another coefficient than Pillow's, and Pillow's
# filters widen when they shrink an image.
_MODES = {
    ('cv2', 'bilinear'): 'mode = "linear"',
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
        'shape = Shape (picture)',
        'picture_size = Slice (shape, one, three)',
        'planes = Transpose <perm = [0, 3, 1, 2]> (picture)',
        f'image0 = Cast <to = {_FLOAT}> (planes)',
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
        f'input = Identity ({last})',
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
        ' => (float[batch, 3, h, w] input, float[4] scale,'
        ' double[2] ratio, int64[2] picture_size)\n'
        '<int64[1] one = {1}, int64[1] three = {3},'
        ' int64[2] wh = {1, 0}>\n'
        f'{{\n{body}\n}}'
    )


def write_mask_resizing(threshold: float, opset: int, ir_version: int) -> Any:
    """Write the model from logits in the network's input to masks (B, K, H, W) of the picture.

    Source: ``RTMDetInsHead._bbox_mask_post_process``, which multiplies the height by the ratio of the
    widths and vice versa.

    Args:
        threshold: probability that is above it belongs to the mask.
        opset: ONNX operator set version.
        ir_version: version of the file format.

    Returns:
        onnx.ModelProto with the inputs ``logits`` (B, K, h, w), ``ratio`` and ``picture_size``.
    """
    from onnx import parser

    return parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n'
        'mask_resizing (float[batch, K, h, w] logits, double[2] ratio, int64[2] picture_size)'
        ' => (bool[batch, K, height, width] masks)\n'
        '<int64[2] origin = {0, 0}, int64[2] axes = {2, 3}>\n'
        f"""{{
            front = Shape <start = 0, end = 2> (logits)
            hw = Shape <start = 2> (logits)
            whole = Cast <to = {_DOUBLE}> (hw)
            exact = Mul (whole, ratio)
            up = Ceil (exact)
            full = Cast <to = {_INT64}> (up)
            enough = Max (full, picture_size)
            sizes = Concat <axis = 0> (front, enough)
            smooth = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
                (logits, , , sizes)
            cut = Slice (smooth, origin, picture_size, axes)
            limit = Constant <value_float = {math.log(threshold / (1 - threshold))}> ()
            masks = Greater (cut, limit)
        }}"""
    )


def _constant(kind: str, name: str, *values: float) -> str:
    listed = ', '.join(map(str, values))
    return f'{name} = Constant <value = {kind}[{len(values)}] {{{listed}}}> ()'


def _resize(step: Resize, before: str, after: str, new: str) -> list[str]:
    lines = [
        f'{new}front = Shape <start = 0, end = 2> ({before})',
        f'{new}back = Shape <start = 2> ({before})',
    ]
    if step.rule == 'exact':
        width, height = step.scale
        lines += [_constant('int64', f'{new}size', height, width)]
    elif step.rule == 'ratio':
        lines += [
            _constant('double', f'{new}long', float(max(step.scale))),
            _constant('double', f'{new}short', float(min(step.scale))),
            _constant('double', f'{new}half', 0.5),
            f'{new}old = Cast <to = {_DOUBLE}> ({new}back)',
            f'{new}longer = ReduceMax <keepdims = 1> ({new}old)',
            f'{new}shorter = ReduceMin <keepdims = 1> ({new}old)',
            f'{new}by_long = Div ({new}long, {new}longer)',
            f'{new}by_short = Div ({new}short, {new}shorter)',
            f'{new}factor = Min ({new}by_long, {new}by_short)',
            f'{new}exact = Mul ({new}old, {new}factor)',
            f'{new}up = Add ({new}exact, {new}half)',
            f'{new}size = Cast <to = {_INT64}> ({new}up)',
        ]
    else:
        reduce = 'ReduceMin' if step.rule == 'short' else 'ReduceMax'
        lines += [
            _constant('int64', f'{new}edge', step.scale[0]),
            f'{new}base = {reduce} <keepdims = 1> ({new}back)',
            f'{new}times = Mul ({new}back, {new}edge)',
            f'{new}size = Div ({new}times, {new}base)',
        ]
    mode = _MODES[step.backend, step.interpolation]
    return lines + [
        f'{new}sizes = Concat <axis = 0> ({new}front, {new}size)',
        f'{new}smooth = Resize <{mode}, coordinate_transformation_mode = "half_pixel">'
        f' ({before}, , , {new}sizes)',
        # Images are whole numbers after resizing, too.
        f'{new}round = Round ({new}smooth)',
        f'{new}low = Constant <value_float = 0.0> ()',
        f'{new}high = Constant <value_float = 255.0> ()',
        f'{after} = Clip ({new}round, {new}low, {new}high)',
    ]


def _pad(step: Pad, before: str, after: str, new: str) -> list[str]:
    width, height = step.size
    return [
        f'{new}hw = Shape <start = 2> ({before})',
        _constant('int64', f'{new}size', height, width),
        f'{new}missing = Sub ({new}size, {new}hw)',
        _constant('int64', f'{new}none', 0, 0, 0, 0, 0, 0),
        f'{new}pads = Concat <axis = 0> ({new}none, {new}missing)',
        f'{new}value = Constant <value_float = {step.value}> ()',
        f'{after} = Pad ({before}, {new}pads, {new}value)',
    ]


def _crop(step: Crop, before: str, after: str, new: str) -> list[str]:
    width, height = step.size
    return [
        f'{new}hw = Shape <start = 2> ({before})',
        _constant('int64', f'{new}want', height, width),
        f'{new}size = Min ({new}hw, {new}want)',
        f'{new}rest = Sub ({new}hw, {new}size)',
        f'{new}rest_f = Cast <to = {_FLOAT}> ({new}rest)',
        _constant('float', f'{new}half', 0.5),
        f'{new}middle = Mul ({new}rest_f, {new}half)',
        f'{new}even = Round ({new}middle)',  # to even, as Python's
        f'{new}first = Cast <to = {_INT64}> ({new}even)',
        f'{new}end = Add ({new}first, {new}size)',
        _constant('int64', f'{new}axes', 2, 3),
        f'{after} = Slice ({before}, {new}first, {new}end, {new}axes)',
    ]
