"""The part of the file after the network: from logits of the network's input to maps of the image's size.

Written as ONNX text, as :mod:`mmpaca.deploy.preprocessing` is.
"""

import math
from typing import Any

#: More classes than a label map of uint8 can have.
MANY_CLASSES = 257


def write_mask_resizing(opset: int, ir_version: int, threshold: float) -> Any:
    """Write the model from logits in the network's input to masks (B, K, H, W) of the picture.

    Source: ``RTMDetInsHead._bbox_mask_post_process``, which multiplies the height by the ratio of the
    widths and vice versa.

    Args:
        opset: ONNX operator set version.
        ir_version: version of the file format.
        threshold: probability that is above it belongs to the mask.

    Returns:
        onnx.ModelProto with the inputs ``logits`` (B, K, h, w), ``ratio`` and ``picture_size``.
    """
    from onnx import TensorProto, parser

    return parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n'
        'mask_resizing (float[batch, K, input_height, input_width] logits, double[2] ratio, int64[2] picture_size)'
        ' => (bool[batch, K, height, width] masks)\n'
        '<int64[2] origin = {0, 0}, int64[2] axes = {2, 3}>\n'
        f"""{{
            front = Shape <start = 0, end = 2> (logits)
            hw = Shape <start = 2> (logits)
            whole = Cast <to = {TensorProto.DOUBLE}> (hw)
            exact = Mul (whole, ratio)
            up = Ceil (exact)
            full = Cast <to = {TensorProto.INT64}> (up)
            enough = Max (full, picture_size)
            sizes = Concat <axis = 0> (front, enough)
            smooth = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
                (logits, , , sizes)
            cut = Slice (smooth, origin, picture_size, axes)
            limit = Constant <value_float = {math.log(threshold / (1 - threshold))}> ()
            masks = Greater (cut, limit)
        }}"""
    )


def write_label_map(opset: int, ir_version: int, classes: int, threshold: float = 0.5) -> Any:
    """Write the model from logits of classes to the label map (B, H, W) of the picture.

    Source: ``mmseg/models/segmentors/base.py``, ``postprocess_result``.

    Args:
        opset: ONNX operator set version.
        ir_version: version of the file format.
        classes: number K of maps; of a single one the label is 1 where it is above a threshold.
        threshold: of the probability of a single map.

    Returns:
        onnx.ModelProto with the inputs ``logits`` (B, K, h, w) and ``picture_size``; the labels are
        uint8 if that is enough, or else int64.
    """
    from onnx import TensorProto, parser

    kind = 'uint8' if classes < MANY_CLASSES else 'int64'
    if classes > 1:
        best = 'best = ArgMax <axis = 1, keepdims = 0> (full)'
    else:
        best = f"""axis = Constant <value_ints = [1]> ()
            one = Squeeze (full, axis)
            limit = Constant <value_float = {math.log(threshold / (1 - threshold))}> ()
            best = Greater (one, limit)"""
    return parser.parse_model(
        f'<ir_version: {ir_version}, opset_import: ["" : {opset}]>\n'
        'label_map (float[batch, K, input_height, input_width] logits, int64[2] picture_size)'
        f' => ({kind}[batch, height, width] label_map)\n'
        f"""{{
            front = Shape <start = 0, end = 2> (logits)
            sizes = Concat <axis = 0> (front, picture_size)
            full = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
                (logits, , , sizes)
            {best}
            label_map = Cast <to = {getattr(TensorProto, kind.upper())}> (best)
        }}"""
    )
