"""Which graph serves a model: by what its classes compute, not by their names."""

import copy
from collections.abc import Mapping
from typing import Any

from mmcv.cnn import ConvModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .classifier import Classifier
from .dense import DenseDetector
from .dino import DINODetector
from .layout import put_channels_first
from .rtmdet_ins import RTMDetIns
from .segmentor import Segmentor
from .swin import make_traceable
from .two_stage import TwoStageDetector, as_list

COVERED = (
    'RetinaNet, ATSS, FCOS, RTMDet and other dense heads that predict as BaseDenseHead, RTMDet-Ins, '
    'Faster, Mask, Cascade and Cascade Mask R-CNN, DINO, classifiers with softmax, and segmentors with '
    'PaCaSegHead, UPerHead, PSPHead, FCNHead or SegformerHead'
)
_NMS = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}


def build_graph(model: Any) -> nn.Module:
    """Build the inference of a model as a function of tensors.

    Args:
        model: detector of mmdet, classifier of mmpretrain or segmentor of mmseg; it is not changed.

    Returns:
        Module with ``outputs``, the names of what ``forward(image, scale)`` returns.

    Raises:
        ValueError: a part of the model is not covered; the error names it.
    """
    graph = _graph_class(model)
    model = make_traceable(put_channels_first(fold_batch_norms(copy.deepcopy(model).eval())))
    return graph(model).eval()


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """Fold BatchNorm into the convolution before it, in every ConvModule, in place.

    Not only for speed: BatchNorm asks whether its input is empty, which no number of RoIs says
    while it is traced.
    """
    for module in model.modules():
        if not isinstance(module, ConvModule) or not module.with_norm:
            continue
        norm = module.norm
        after_conv = module.order.index('norm') == module.order.index('conv') + 1
        if isinstance(norm, _BatchNorm) and after_conv and type(module.conv) is nn.Conv2d:
            module.conv = fuse_conv_bn_eval(module.conv, norm)
            setattr(module, module.norm_name, nn.Identity())
    return model


def _graph_class(model: Any) -> type[nn.Module]:
    if hasattr(model, 'backbone') and hasattr(model, 'head'):
        _check_classifier(model)
        return Classifier
    if hasattr(model, 'decode_head'):
        _check_segmentor(model)
        return Segmentor
    from mmdet.models import DINO, SingleStageDetector
    from mmdet.models import TwoStageDetector as TwoStage

    if type(model) is DINO:
        _check_dino(model)
        return DINODetector
    if isinstance(model, TwoStage) and type(model).predict is TwoStage.predict:
        _check_two_stage(model)
        return TwoStageDetector
    single = isinstance(model, SingleStageDetector)
    if single and type(model).predict is SingleStageDetector.predict:
        from mmdet.models import RTMDetInsHead, RTMDetInsSepBNHead

        _check_dense(model.bbox_head, 'bbox_head')
        _check_nms(model.test_cfg, 'model.test_cfg')
        ins = type(model.bbox_head) in (RTMDetInsHead, RTMDetInsSepBNHead)
        return RTMDetIns if ins else DenseDetector
    raise _not_covered(model, 'the model')


def _not_covered(part: Any, name: str, why: str = '') -> ValueError:
    return ValueError(f'{name} {type(part).__name__}{why} is not exported; covered are: {COVERED}')


def _computes_as(part: Any, base: type, *methods: str) -> bool:
    return all(getattr(type(part), name, None) is getattr(base, name, None) for name in methods)


def _check_nms(cfg: Mapping, name: str) -> None:
    nms = cfg.get('nms') or {}
    if nms.get('type', 'nms') != 'nms' or not {*nms} <= _NMS or 'iou_threshold' not in nms:
        raise ValueError(
            f"{name}.nms={dict(nms)} is not exported, only type='nms' with iou_threshold is"
        )


def _check_coder(part: Any, name: str) -> None:
    from mmdet.models.task_modules import DeltaXYWHBBoxCoder, DistancePointBBoxCoder

    if type(part.bbox_coder) not in (DeltaXYWHBBoxCoder, DistancePointBBoxCoder):
        raise _not_covered(part, name, f' with {type(part.bbox_coder).__name__}')


def _check_dense(head: Any, name: str) -> None:
    from mmdet.models import RPNHead, RTMDetInsHead, RTMDetInsSepBNHead
    from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
    from mmdet.models.task_modules import AnchorGenerator, MlvlPointGenerator

    known = type(head) in (RPNHead, RTMDetInsHead, RTMDetInsSepBNHead)
    methods = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
    if not known and not _computes_as(head, BaseDenseHead, *methods):
        raise _not_covered(head, name)
    if type(head.prior_generator) not in (AnchorGenerator, MlvlPointGenerator):
        raise _not_covered(head, name, f' with {type(head.prior_generator).__name__}')
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise _not_covered(head, name, f' with {type(head.loss_cls).__name__}')
    _check_coder(head, name)


def _check_two_stage(model: Any) -> None:
    from mmdet.models import CascadeRoIHead, FCNMaskHead, SingleRoIExtractor, StandardRoIHead
    from mmdet.models.roi_heads.bbox_heads import BBoxHead

    _check_dense(model.rpn_head, 'rpn_head')
    _check_nms(model.test_cfg.rpn, 'model.test_cfg.rpn')
    head = model.roi_head
    if type(head) not in (StandardRoIHead, CascadeRoIHead) or head.with_shared_head:
        raise _not_covered(head, 'roi_head')
    _check_nms(head.test_cfg, 'model.test_cfg.rcnn')
    for part in as_list(head.bbox_head):
        methods = ('predict_by_feat', '_predict_by_feat_single', 'regress_by_class')
        if not _computes_as(part, BBoxHead, *methods) or not (part.with_cls and part.with_reg):
            raise _not_covered(part, 'bbox_head')
        if part.custom_cls_channels or part.custom_activation:
            raise _not_covered(part, 'bbox_head', f' with {type(part.loss_cls).__name__}')
        _check_coder(part, 'bbox_head')
    extractors = as_list(head.bbox_roi_extractor)
    if head.with_mask:
        extractors += as_list(head.mask_roi_extractor)
        for part in as_list(head.mask_head):
            if type(part) is not FCNMaskHead:
                raise _not_covered(part, 'mask_head')
    for extractor in extractors:
        pools = [type(layer).__name__ for layer in extractor.roi_layers]
        if type(extractor) is not SingleRoIExtractor or {*pools} != {'RoIAlign'}:
            raise _not_covered(extractor, 'roi_extractor')


def _check_dino(model: Any) -> None:
    from mmdet.models import DINOHead

    head = model.bbox_head
    if type(head) is not DINOHead or not head.loss_cls.use_sigmoid:
        raise _not_covered(head, 'bbox_head')
    if model.data_preprocessor.pad_size_divisor != 1:
        raise ValueError(
            'DINO is exported with pad_size_divisor=1 in the data_preprocessor only: '
            'it masks padding, and the file does not'
        )


def _check_classifier(model: Any) -> None:
    from mmpretrain.models.heads import ClsHead

    if not isinstance(model.head, ClsHead) or not _computes_as(
        model.head, ClsHead, 'predict', '_get_predictions'
    ):
        raise _not_covered(model.head, 'head')


def _check_segmentor(model: Any) -> None:
    from mmseg.models import EncoderDecoder
    from mmseg.models.decode_heads import FCNHead, PSPHead, SegformerHead, UPerHead

    from mmpaca.models import PaCaSegHead

    methods = ('predict', 'inference', 'whole_inference', 'encode_decode', 'postprocess_result')
    if not _computes_as(model, EncoderDecoder, *methods, 'extract_feat'):
        raise _not_covered(model, 'the model')
    head = model.decode_head
    heads = (PaCaSegHead, UPerHead, PSPHead, FCNHead, SegformerHead)
    methods = ('predict', 'predict_by_feat', 'forward', '_forward_feature', 'logits_and_clusters')
    if not any(isinstance(head, kind) and _computes_as(head, kind, *methods) for kind in heads):
        raise _not_covered(head, 'decode_head')
    if head.align_corners:
        raise _not_covered(head, 'decode_head', ' with align_corners=True')
    mode = model.test_cfg.get('mode', 'whole')
    if mode != 'whole':
        raise ValueError(
            f"model.test_cfg.mode={mode!r} is not exported, only 'whole' is: "
            '--cfg-options model.test_cfg.mode=whole'
        )
    if (model.data_preprocessor.test_cfg or {}).get('size'):
        raise ValueError(
            'data_preprocessor.test_cfg.size is not exported, only size_divisor is: '
            'pad in the test pipeline'
        )
