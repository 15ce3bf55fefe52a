"""The operator that PyTorch lacks: NMS of a batch, written to ONNX as NonMaxSuppression."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Score of a row that is no candidate. Scores are probabilities: anything below 0 will do.
NO_CANDIDATE = -1.0
_THRESHOLD = -0.5


@torch.library.custom_op('mmpaca::batch_nms', mutates_args=())
def batch_nms(boxes: Tensor, scores: Tensor, max_output: int, iou_threshold: float) -> Tensor:
    """Hard NMS for each image of a batch; every image has the same number of candidates.

    Args:
        boxes: (B, N, 4).
        scores: (B, N); rows with :data:`NO_CANDIDATE` are ignored.
        max_output: number K of boxes to keep at most.
        iou_threshold: boxes of a higher IoU with a better one are dropped.

    Returns:
        (B, K) int64: indices of the kept boxes by descending score, then -1.
    """
    from mmpaca.ops.nms import nms  # torchvision takes seconds to load

    kept = scores.new_full((len(boxes), max_output), -1, dtype=torch.int64)
    for row, box, score in zip(kept, boxes, scores, strict=True):
        candidates = (score > _THRESHOLD).nonzero()[:, 0]
        best = nms(box[candidates], score[candidates], iou_threshold, offset=0)[:max_output]
        row[: len(best)] = candidates[best]
    return kept


@batch_nms.register_fake
def _(boxes: Tensor, scores: Tensor, max_output: int, iou_threshold: float) -> Tensor:
    return scores.new_empty((scores.shape[0], max_output), dtype=torch.int64)


def onnx_translations() -> dict[Any, Callable]:
    """Return the ``custom_translation_table`` of torch.onnx.export for the graphs of this package.

    Raises:
        ImportError: onnxscript is missing.
    """
    from onnxscript import opset18

    op: Any = opset18  # its types are too narrow for values and constants

    def batch_nms(boxes: Any, scores: Any, max_output: int, iou_threshold: float) -> Any:
        picked = op.NonMaxSuppression(  # (M, 3): image, class, box; image by image, best first
            boxes,
            op.Unsqueeze(scores, op.Constant(value_ints=[1])),
            op.Constant(value_ints=[max_output]),
            # onnxruntime compares float32 values, as mmcv does
            op.Constant(value_floats=[float(np.float32(iou_threshold))]),
            op.Constant(value_floats=[_THRESHOLD]),
        )
        image = op.Gather(picked, op.Constant(value_int=0), axis=1)  # (M,)
        box = op.Gather(picked, op.Constant(value_int=2), axis=1)
        batch = op.Shape(scores, start=0, end=1)
        zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
        images = op.Range(zero, op.Squeeze(batch), one)
        # Number of boxes of earlier images, so that a row of the result begins with an image.
        own = op.Equal(op.Unsqueeze(image, op.Constant(value_ints=[1])), images)  # (M, B)
        counts = op.ReduceSum(op.Cast(own, to=7), op.Constant(value_ints=[0]), keepdims=0)
        first = op.CumSum(counts, zero, exclusive=1)
        place = op.Sub(op.Range(zero, op.Squeeze(op.Shape(image)), one), op.Gather(first, image))
        where = op.Concat(
            op.Unsqueeze(image, op.Constant(value_ints=[1])),
            op.Unsqueeze(place, op.Constant(value_ints=[1])),
            axis=1,
        )
        size = op.Concat(batch, op.Constant(value_ints=[max_output]), axis=0)
        empty = op.Expand(op.Constant(value_int=-1), size)
        return op.ScatterND(empty, where, box)

    return {torch.ops.mmpaca.batch_nms.default: batch_nms}
