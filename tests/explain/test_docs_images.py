"""The pictures of the documentation, of a scene whose numbers are known."""

import runpy

import numpy as np
import pytest


@pytest.fixture(scope='module')
def script(root) -> dict:
    """What tools/dev/make_docs_images.py defines."""
    return runpy.run_path(str(root / 'tools/dev/make_docs_images.py'))


def test_attention_of_a_detection(script, scene):
    block, cat = scene.blocks[0], scene.detections[0]
    # Inside the upper left quarter, the mean of two heads.
    shares = script['attended'](block, scene.coverage(block, cat))
    np.testing.assert_allclose(shares, [0.375, 0.125, 0, 0.5], atol=1e-6)
    # Patches are 4 pixels wide: its pixels 5..25 and 5..35 cover rows 1..5 and columns 1..8.
    assert script['middle_patch'](scene, block, cat) == (3, 4)


def test_pictures_show_these_numbers(script, scene):
    figure = script['attention_figure'](scene)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:5] == [
        'one of N = 320 patches',
        'attends to M = 4 clusters',
        '50% to cluster 4',
        '38% to cluster 1',
        '12% to cluster 2',
    ]
    values = [axis.images[0].get_array() for axis in figure.axes[-3:]]
    assert [value.shape for value in values] == [(320, 4), (4, 320), (320, 320)]
    # The square root of A Z, whose rows sum to one.
    np.testing.assert_allclose((values[2] ** 2).sum(1), 1, atol=1e-5)

    row = script['cluster_row'](scene)
    assert row.shape[0] == 24 + 320 and row.shape[1] > 5 * 320


def test_large_picture_shows_unlike_clusters(script, scene):
    block = scene.blocks[0]
    chosen = script['unlike'](block)
    assert chosen[0] == int(block.received()[0].argmax())
    assert len(set(chosen)) == 3
    height, width = scene.image.shape[:2]
    assert script['large_picture'](scene).shape == (2 * height + 4, 2 * width + 4, 3)


def test_architecture_figure_is_what_the_script_draws(root):
    draw = runpy.run_path(str(root / 'tools/dev/make_architecture_figure.py'))['draw']
    assert (root / 'docs/images/architecture.svg').read_text() == draw()
