"""Image <-> network-input coordinates."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Geometry:
    """Image <-> network-input coordinates of one image.

    Supports the test pipelines of mmdet, mmpretrain and mmseg: resize, then optionally crop the centre
    (``CenterCrop``), then pad at the right and the bottom (``Pad``, or the batch's padding). Cell
    (i, j) of a map covers ``stride x stride`` pixels of the padded input from row ``stride * i``
    and column ``stride * j`` on, as in RoIAlign; at odd sizes the last cells exceed the border.

    Attributes:
        image_shape: (height, width) of the loaded image.
        resized_shape: (height, width) after resizing.
        input_shape: (height, width) of the network's input without padding.
        offset: (rows, columns) cropped off at the top and left.

    Example:
        >>> import numpy as np
        >>> from mmpaca.explain.geometry import Geometry
        >>> meta = dict(ori_shape=(4, 8), img_shape=(8, 16), scale_factor=(2.0, 2.0))
        >>> Geometry.from_meta(meta).to_image(np.array([[1, 2], [3, 4]]), stride=8)[0]
        array([1, 1, 1, 1, 2, 2, 2, 2])
    """

    image_shape: tuple[int, int]
    resized_shape: tuple[int, int]
    input_shape: tuple[int, int]
    offset: tuple[int, int] = (0, 0)

    @classmethod
    def from_meta(cls, meta: Mapping) -> 'Geometry':
        """Read the geometry from the meta information of a data sample.

        Args:
            meta: ``ori_shape``, ``img_shape`` and, for a resized image, ``scale_factor`` (width,
                height).

        Raises:
            ValueError: a key is missing, or the image was flipped.
        """
        missing = [key for key in ('ori_shape', 'img_shape') if key not in meta]
        if missing:
            raise ValueError(
                f'the data sample has no {" and no ".join(missing)}, needed to align maps with '
                'the image; add it to meta_keys of the pipeline'
            )
        if meta.get('flip'):
            raise ValueError('the test pipeline flips the image; flipped maps are not supported')
        image, given = (tuple(meta[key][:2]) for key in ('ori_shape', 'img_shape'))
        scale = meta.get('scale_factor')
        if scale is None and any(g < n for g, n in zip(given, image, strict=True)):
            raise ValueError(
                f'ori_shape={image}, img_shape={given} and no scale_factor: resized or cropped? '
                'Add scale_factor to meta_keys of the pipeline'
            )
        scale = scale or (1.0, 1.0)  # width, height
        resized = tuple(round(n * s) for n, s in zip(image, scale[1::-1], strict=True))
        # mmcv's CenterCrop rounds like this.
        offset = tuple(max(0, round((r - g) / 2)) for r, g in zip(resized, given, strict=True))
        inside = tuple(min(r, g) for r, g in zip(resized, given, strict=True))
        return cls(image, resized, inside, offset)

    def to_image(self, maps: np.ndarray, stride: int, fill: float = 0) -> np.ndarray:
        """Map to image: each pixel gets the value of its patch.

        Args:
            maps: (..., H, W) over the padded input.
            stride: side of a patch in pixels of the input.
            fill: value of pixels that were cropped off.

        Returns:
            (..., height, width) of ``image_shape``.
        """
        rows, row_inside = self._cells(0, stride)
        columns, column_inside = self._cells(1, stride)
        laid = maps[..., rows[:, None], columns]
        inside = row_inside[:, None] & column_inside
        return np.where(inside, laid, np.asarray(fill, maps.dtype))

    def to_map(self, mask: np.ndarray, stride: int, map_shape: tuple[int, int]) -> np.ndarray:
        """Image to map: the share of each patch that a region of the image covers.

        Args:
            mask: (height, width) of ``image_shape``, bool, or values to be averaged.
            stride: side of a patch in pixels of the input.
            map_shape: (H, W) of the map.

        Returns:
            (H, W) float32 in 0..1, over the pixels of a patch that show the image; nan for
            patches that are padding only.
        """
        shown = self.to_input(mask)
        starts = [np.arange(0, n, stride) for n in self.input_shape]
        sums = np.add.reduceat(shown, starts[0], axis=0, dtype=np.float32)
        sums = np.add.reduceat(sums, starts[1], axis=1)
        counts = [np.minimum(stride, n - s) for n, s in zip(self.input_shape, starts, strict=True)]
        covered = np.full(map_shape, np.nan, np.float32)
        covered[: len(starts[0]), : len(starts[1])] = sums / np.outer(*counts)
        return covered

    def to_input(self, values: np.ndarray) -> np.ndarray:
        """Image to network input: each pixel gets the value of the image's pixel that it shows.

        Args:
            values: (height, width) of ``image_shape``.

        Returns:
            (height, width) of ``input_shape``, without padding.
        """
        return values.take(self._sources(0), 0).take(self._sources(1), 1)

    def boxes_to_input(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes in pixels of the image, (D, 4) left, top, right, bottom, to pixels of the input."""
        scales = np.array(self.resized_shape) / self.image_shape  # rows, columns
        return boxes * np.tile(scales[::-1], 2) - np.tile(self.offset[::-1], 2)

    def cell_box(self, stride: int) -> tuple[float, float, float, float]:
        """Return left, top, width and height of a map's cell (0, 0) in pixels of the image."""
        top, left = (o * n / r for o, n, r in self._axes())
        height, width = (stride * n / r for _, n, r in self._axes())
        return left, top, width, height

    def _axes(self) -> list[tuple[int, int, int]]:
        return list(zip(self.offset, self.image_shape, self.resized_shape, strict=True))

    def _cells(self, axis: int, stride: int) -> tuple[np.ndarray, np.ndarray]:
        """For each row (column) of the image: index of its cell, and True if it was not cropped."""
        scale = self.resized_shape[axis] / self.image_shape[axis]
        centres = (np.arange(self.image_shape[axis]) + 0.5) * scale - self.offset[axis]
        inside = (centres >= 0) & (centres < self.input_shape[axis])
        return np.where(inside, centres, 0).astype(int) // stride, inside

    def _sources(self, axis: int) -> np.ndarray:
        """For each row (column) of the input: index of the image's row."""
        scale = self.image_shape[axis] / self.resized_shape[axis]
        centres = np.arange(self.input_shape[axis]) + self.offset[axis] + 0.5
        return np.minimum((centres * scale).astype(int), self.image_shape[axis] - 1)
