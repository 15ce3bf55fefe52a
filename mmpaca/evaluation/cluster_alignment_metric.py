"""Alignment of clusters with annotated objects and categories."""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS as ROOT_METRICS

from mmpaca.explain.geometry import Geometry
from mmpaca.explain.recorder import Recording
from mmpaca.explain.scene import box_mask
from mmpaca.registry import METRICS

_BACKGROUND = 0  # category k of the dataset is k + 1
_UNLABELLED = 255  # in label maps


@ROOT_METRICS.register_module()
@METRICS.register_module()
class ClusterAlignmentMetric(BaseMetric):
    """Alignment of each stage's clusters with annotated objects and categories.

    The cluster of a patch is the argmax of Z in the stage's last block. Per stage i, counted from 1:

    - ``stage<i>_iou``: mean over instances of the best IoU between the instance's patches and the
      patches of any cluster. An instance's patches are those that its mask covers at least by half,
      or else the one that it covers most. Crowds, and instances that no pixel of the resized image
      shows, are ignored.
    - ``stage<i>_mi_bits``: mutual information in bits between a patch's cluster and the category of
      most of its pixels (background is a category; smaller instances are on top), over all patches
      of the dataset.
    - ``stage<i>_in_use``: perplexity of the clusters over all patches, 2 to the power of their
      entropy in bits: M if all are used equally, 1 if one has every patch.
    - ``stage<i>_iou_random``, ``stage<i>_mi_bits_random``: the baseline, with patches assigned at
      random to clusters of the same sizes. (The perplexity is the same.)

    Padding is ignored. Annotations come from ``ann_file``, as with CocoMetric, or from ``instances``
    of the data samples (add it to ``meta_keys`` of PackDetInputs), in coordinates of the loaded
    image. With mmseg they are the label maps: a class is one instance, and pixels without a class
    are ignored. The segmentation head's clusters, which are classes, are ``head``. An instance without
    a mask is its box. Needs :class:`~mmpaca.engine.ClusterRecordHook`, one of our default hooks.

    Args:
        ann_file: COCO annotations; None for ``instances``.
        seed: seed of the random baseline.
        **kwargs: arguments of mmengine's BaseMetric.
    """

    default_prefix = 'clusters'

    def __init__(self, ann_file: str | None = None, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.recording: Recording | None = None  # set by ClusterRecordHook
        self._coco = None
        if ann_file is not None:
            from mmdet.datasets.api_wrappers import COCO

            self._coco = COCO(ann_file)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Compare the latest batch's clusters with its annotations.

        Args:
            data_batch: unused.
            data_samples: data samples of the batch, as dicts with their meta information.

        Raises:
            RuntimeError: the batch was not recorded.
            ValueError: an image has no annotations.
        """
        if self.recording is None:
            raise RuntimeError(
                'ClusterAlignmentMetric needs recorded clusters: add '
                "default_hooks=dict(cluster_record=dict(type='mmpaca.ClusterRecordHook'))"
            )
        blocks = self.recording.last_blocks()
        recorded = len(blocks[0].assignment) if blocks else 0
        if recorded != len(data_samples):
            raise RuntimeError(
                f'{len(data_samples)} data samples, but the latest forward pass had {recorded} images'
            )
        labels = [block.labels().cpu().numpy() for block in blocks]
        for i, sample in enumerate(data_samples):
            geometry = Geometry.from_meta(sample)
            image_id = sample['img_id'] if 'img_id' in sample else sample['img_path']
            semantic = self._coco is None and 'gt_sem_seg' in sample
            if semantic:
                instances, categories = read_label_map(sample['gt_sem_seg']['data'])
            else:
                instances = self._instances(sample, geometry.image_shape)
                categories = paint_categories(instances, geometry.image_shape)
            self.results.append(
                {
                    block.title: self._compare(
                        stage_labels[i],
                        block.assignment.shape[1],
                        [
                            geometry.to_map(mask, block.stride, stage_labels[i].shape)
                            for _, mask, crowd in instances
                            if not crowd
                        ],
                        patch_categories(
                            categories, geometry, block.stride, stage_labels[i].shape, semantic
                        ),
                        np.random.default_rng(
                            (self.seed, block.stage, zlib.crc32(str(image_id).encode()))
                        ),
                    )
                    for block, stage_labels in zip(blocks, labels, strict=True)
                }
            )

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics of each stage over all images."""
        metrics = {}
        for name in results[0]:
            found = [result[name] for result in results]
            for kind, suffix in (('clusters', ''), ('random', '_random')):
                ious = np.concatenate([one[kind]['ious'] for one in found])
                joint = sum_joint([one[kind]['joint'] for one in found], found[0]['num_clusters'])
                metrics[f'{name}_iou{suffix}'] = float(ious.mean()) if len(ious) else float('nan')
                metrics[f'{name}_mi_bits{suffix}'] = mutual_information(joint)
                if kind == 'clusters':
                    metrics[f'{name}_in_use'] = perplexity(joint.sum(1))
        return metrics

    def _compare(
        self,
        labels: np.ndarray,
        num_clusters: int,
        coverages: list[np.ndarray],
        categories: np.ndarray,
        rng: np.random.Generator,
    ) -> dict:
        """Compare one image at one stage; the result is small, as it is sent between processes."""
        visible = categories >= 0
        masks = [m[visible] for m in map(instance_patches, coverages) if m.any()]
        result: dict[str, Any] = dict(num_clusters=num_clusters)
        shuffled = rng.permutation(labels[visible])
        for kind, given in (('clusters', labels[visible]), ('random', shuffled)):
            pairs = np.stack([given, categories[visible]])
            result[kind] = dict(
                ious=best_ious(given, masks, num_clusters),
                joint=np.unique(pairs, axis=1, return_counts=True),
            )
        return result

    def _instances(self, sample: dict, shape: tuple[int, int]) -> list[tuple]:
        """Return (category from 0, (height, width) bool mask, is crowd) of each annotation."""
        if self._coco is None:
            if 'instances' not in sample:
                raise ValueError(
                    f'image {sample["img_id"]} has no annotations: give ClusterAlignmentMetric '
                    "an ann_file, or add 'instances' to meta_keys of PackDetInputs"
                )
            return [
                (one['bbox_label'], decode_region(one, 'mask', shape), bool(one['ignore_flag']))
                for one in sample['instances']
            ]
        cat_ids = self._coco.get_cat_ids(cat_names=self.dataset_meta['classes'])
        annotations = self._coco.load_anns(self._coco.get_ann_ids(img_ids=[sample['img_id']]))
        return [
            (
                cat_ids.index(one['category_id']),
                decode_region(one, 'segmentation', shape),
                bool(one.get('iscrowd')),
            )
            for one in annotations
            if one['category_id'] in cat_ids
        ]


def decode_region(annotation: dict, key: str, shape: tuple[int, int]) -> np.ndarray:
    """Decode the mask of an annotation, polygons or RLE, to (height, width) bool; without one, its box.

    Args:
        annotation: annotation of COCO, or instance of mmdet's datasets.
        key: entry with the mask: ``'segmentation'`` of COCO, ``'mask'`` of mmdet.
        shape: (height, width) of the image.
    """
    from pycocotools import mask as coco_mask

    region = annotation.get(key)
    if not region:
        left, top, right, bottom = annotation['bbox']
        if key == 'segmentation':  # the box is left, top, width, height
            right, bottom = left + right, top + bottom
        return box_mask((left, top, right, bottom), shape)
    if isinstance(region, list) or isinstance(region['counts'], list):
        region = coco_mask.frPyObjects(region, *shape)
    if isinstance(region, list):  # one part per polygon
        region = coco_mask.merge(region)
    return coco_mask.decode(region).astype(bool)


def paint_categories(instances: list[tuple], shape: tuple[int, int]) -> np.ndarray:
    """Paint the category of each pixel, smaller instances on top.

    Args:
        instances: (category from 0, (height, width) bool mask, is crowd) of each.
        shape: (height, width).

    Returns:
        (height, width), category + 1, 0 for background.
    """
    painted = np.full(shape, _BACKGROUND)
    for category, mask, _ in sorted(instances, key=lambda one: -one[1].sum()):
        painted[mask] = category + 1
    return painted


def read_label_map(labels: Any) -> tuple[list[tuple], np.ndarray]:
    """Read the regions and categories of a label map.

    Args:
        labels: tensor of class indices, (1, height, width), 255 for pixels without a class.

    Returns:
        (class, (height, width) bool mask, False) of each class; and (height, width), class + 1, 0
        without a class.
    """
    classes = labels[0].cpu().numpy().astype(np.int64)
    regions = [(int(c), classes == c, False) for c in np.unique(classes) if c != _UNLABELLED]
    return regions, np.where(classes == _UNLABELLED, _BACKGROUND, classes + 1)


def patch_categories(
    categories: np.ndarray,
    geometry: Geometry,
    stride: int,
    map_shape: tuple[int, int],
    ignore_background: bool = False,
) -> np.ndarray:
    """Find the category of most pixels of each patch; of a tie the lower one.

    Args:
        categories: (height, width) of the image.
        geometry: position of the map on the image.
        stride: side of a patch in pixels of the network's input.
        map_shape: (H, W) of the map.
        ignore_background: treat 0 like padding.

    Returns:
        (H, W), -1 for patches that are padding only, or mostly ignored.
    """
    present = np.unique(categories)
    shares = np.stack(
        [geometry.to_map(categories == category, stride, map_shape) for category in present]
    )
    padding = np.isnan(shares[0])
    found = np.where(padding, -1, present[np.nan_to_num(shares).argmax(0)])
    return np.where(found == _BACKGROUND, -1, found) if ignore_background else found


def instance_patches(coverage: np.ndarray) -> np.ndarray:
    """Find the patches that an instance covers at least by half, or else the one it covers most.

    Args:
        coverage: (H, W), share of each patch that it covers, nan for padding.

    Returns:
        (H, W) bool.
    """
    coverage = np.nan_to_num(coverage)
    patches = coverage >= 0.5
    if not patches.any() and coverage.any():
        patches.flat[coverage.argmax()] = True
    return patches


def best_ious(labels: np.ndarray, masks: Sequence[np.ndarray], num_clusters: int) -> np.ndarray:
    """Compute each mask's best IoU with the patches of any cluster.

    Args:
        labels: (P,) cluster of each patch.
        masks: each (P,) bool with at least one patch.
        num_clusters: M.

    Returns:
        (len(masks),) in 0..1.
    """
    sizes = np.bincount(labels, minlength=num_clusters)
    best = np.zeros(len(masks))
    for i, mask in enumerate(masks):
        shared = np.bincount(labels[mask], minlength=num_clusters)
        best[i] = (shared / (sizes + mask.sum() - shared)).max()
    return best


def sum_joint(parts: Sequence[tuple[np.ndarray, np.ndarray]], num_clusters: int) -> np.ndarray:
    """Sum the sparse (cluster, category) counts of many images.

    Args:
        parts: for each image the pairs that occur, (2, P), and their counts, (P,).
        num_clusters: M.

    Returns:
        (M, K) int64; K is one more than the largest category.
    """
    num_categories = 1 + max(int(pairs[1].max()) for pairs, _ in parts)
    joint = np.zeros((num_clusters, num_categories), np.int64)
    for pairs, counts in parts:
        joint[tuple(pairs)] += counts
    return joint


def mutual_information(joint: np.ndarray) -> float:
    """Mutual information in bits between rows and columns of counts, (M, K)."""
    p = joint / joint.sum()
    independent = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
    seen = p > 0
    return float((p[seen] * np.log2(p[seen] / independent[seen])).sum())


def perplexity(counts: np.ndarray) -> float:
    """Perplexity of counts, (M,): 2 to the power of their entropy in bits."""
    p = counts[counts > 0] / counts.sum()
    return float(2 ** -(p * np.log2(p)).sum())
