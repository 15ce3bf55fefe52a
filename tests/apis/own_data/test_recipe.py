"""Decisions for datasets of given sizes, and minutes into iterations."""

import numpy as np
import pytest

from mmpaca.apis.own_data.project import plan
from mmpaca.apis.own_data.recipe import decide
from mmpaca.apis.own_data.statistics import Statistics


def statistics(**given) -> Statistics:
    """A dataset like bccd: 640x480, a small class of 36 pixels, most objects of 100."""
    found = dict(
        num_images=dict(train=205, val=87),
        image_sizes=np.tile([480, 640], (205, 1)),
        counts=dict(Platelets=200, RBC=2000),
        sizes=np.repeat([36.0, 100.0], [200, 2000]),
        small=36.0,
        smallest_class='Platelets',
        relative_spread=1.0,
        elongated=0.0,
        per_image=np.full(205, 14),
        max_per_image=30,
        grey=False,
    )
    return Statistics(**found | given)


def test_small_objects_decide_on_the_resolution():
    recipe = decide(statistics(), 'detect', 'micro', 'cpu', top_view=True)
    assert recipe.zoom.value == 0.556 and recipe.long_side is None and recipe.crop.value is None
    assert 'Platelets objects have 36 pixels, 20 after scaling' in recipe.zoom.why
    assert recipe.flips.value == ['horizontal', 'vertical', 'diagonal']
    assert (recipe.anchor_scale.value, recipe.strides.value) == (5, [4, 8, 16, 32])
    assert (recipe.max_per_img.value, recipe.proposals.value, recipe.samples.value) == (
        100,
        200,
        64,
    )
    assert recipe.in_channels == [48, 96, 160, 224] and recipe.batch_size.value == 4


def test_tiny_and_crowded_objects():
    """Nuclei: enlarged at most twice, trained in crops, with room for all of them."""
    found = statistics(
        image_sizes=np.tile([520, 696], (9, 1)),
        sizes=np.full(900, 8.0),
        small=8.0,
        per_image=np.full(9, 100),
        max_per_image=375,
    )
    recipe = decide(found, 'instance', 'nano', 'cpu', top_view=False)
    assert (recipe.zoom.value, recipe.crop.value) == (2.0, 320)
    assert recipe.flips.value == ['horizontal'] and recipe.in_channels == [32, 64, 96, 128]
    assert (recipe.max_per_img.value, recipe.proposals.value, recipe.samples.value) == (
        500,
        500,
        128,
    )


def test_large_objects():
    """Small inputs, but no smaller than 256 pixels; another level of the neck; long anchors."""
    found = statistics(sizes=np.full(900, 450.0), small=450.0, elongated=0.3)
    recipe = decide(found, 'detect', 'micro', 'cpu', top_view=False)
    assert recipe.zoom.value == 0.4
    assert recipe.anchor_ratios.value == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert recipe.anchor_scale.value == 8 and recipe.strides.value == [4, 8, 16, 32]


def test_photographs_of_several_cameras_are_scaled_to_one_size():
    sides = np.array([[3000, 4000], [750, 1000]] * 10)
    found = statistics(image_sizes=sides, sizes=np.array([400.0, 100.0] * 10), small=100.0)
    assert decide(found, 'detect', 'micro', 'cpu', False).long_side is None
    found = statistics(**{**vars(found), 'relative_spread': 0.1})
    recipe = decide(found, 'detect', 'micro', 'cpu', False)
    assert recipe.zoom is None and recipe.long_side.value == 512
    assert 'objects are larger in larger images' in recipe.long_side.why


def test_less_resolution_for_lack_of_time():
    found = statistics(small=12.0, sizes=np.repeat([12.0, 300.0], [200, 2000]))
    whole, half, quarter = (
        decide(found, 'detect', 'micro', 'cpu', False, k) for k in (1, 0.5, 0.25)
    )
    assert (whole.resolution, whole.crop.value) == (1.667, 736)
    assert (half.resolution, half.crop.value) == (0.833, 384)
    assert '10 after scaling' in half.zoom.why and 'less here, as too few' in half.zoom.why
    assert quarter.resolution == 0.417 and quarter.crop.value is None


@pytest.mark.parametrize(
    ('seconds', 'minutes', 'num_val', 'length', 'interval'),
    [
        ((1.0, 0.1), 30, 87, 1752, 876),  # 1800 - 30 - 2 * 8.7 s
        ((1.0, 1.0), 5, 100, 170, 170),  # evaluation at the end only
        ((5.0, 1.0), 1, 100, 10, 10),
    ],
)
def test_minutes(seconds, minutes, num_val, length, interval):
    iterations, between = plan(seconds, minutes, num_val)
    assert (iterations.value, between.value) == (length, interval)
    assert ('give more --minutes' in iterations.why) == (length < 200)
