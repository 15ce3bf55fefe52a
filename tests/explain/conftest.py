"""A scene made by hand: what is drawn can be told in advance."""

import numpy as np
import pytest
import torch

from mmpaca.explain import BlockRecord
from mmpaca.explain.geometry import Geometry
from mmpaca.explain.scene import Detection, Scene


@pytest.fixture
def scene() -> Scene:
    """A grey image of 60 x 80 pixels, resized to 120 x 160 and padded to 128 x 160.

    Stage 1 has 16 x 20 patches, two heads and four clusters, the quarters of the image: the first
    head attends to the own quarter (0.75) and the one beside it (0.25), the second to the lower
    right one alone. Stage 3 has 8 x 10 patches and one cluster, their middle column.
    """
    rows, columns = np.mgrid[:16, :20]
    quarter = torch.from_numpy(2 * (rows >= 8) + (columns >= 10))
    z = torch.nn.functional.one_hot(quarter, 4).permute(2, 0, 1).float()
    first = 0.75 * torch.nn.functional.one_hot(quarter, 4).float()
    first += 0.25 * torch.nn.functional.one_hot(quarter ^ 1, 4).float()
    second = torch.zeros(16, 20, 4)
    second[..., 3] = 1
    column = torch.zeros(1, 8, 10)
    column[:, :, 5] = 1 / 8
    blocks = [
        BlockRecord(0, 1, 8, (z / z.sum((1, 2), keepdim=True))[None], torch.stack([first, second])[None]),
        BlockRecord(2, 0, 16, column[None], torch.ones(1, 1, 8, 10, 1)),
    ]  # fmt: skip
    masks = np.zeros((2, 60, 80), bool)
    masks[0, 5:25, 5:35] = True  # in the upper left quarter
    masks[1, 40:58, 50:78] = True  # in the lower right one
    return Scene(
        image=np.full((60, 80, 3), 100, np.uint8),
        geometry=Geometry((60, 80), (120, 160), (120, 160)),
        blocks=blocks,
        left_out=(3,),
        detections=[
            Detection('<b>cat</b>', 0.9, (5, 5, 35, 25), masks[0]),
            Detection('dog', 0.5, (50, 40, 78, 58), masks[1]),
        ],
    )
