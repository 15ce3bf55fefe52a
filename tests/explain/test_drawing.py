"""Where boxes, masks and labels are drawn, and in which colours."""

import numpy as np

from mmpaca.explain.drawing import draw_classes, draw_detections
from mmpaca.explain.pictures import PALETTE
from mmpaca.explain.scene import Detection


def detection(box, label=0, score=0.9, has_mask=True, shape=(600, 800)) -> Detection:
    mask = np.zeros(shape, bool)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = True
    return Detection('cat', score, box, mask, label, has_mask)


def test_masks_and_boxes_have_the_class_colour():
    image = np.full((600, 800, 3), 100, np.uint8)
    boxes = [(100, 200, 300, 400), (500, 200, 700, 400)]
    found = [detection(boxes[0], 1), detection(boxes[1], 2, has_mask=False)]
    drawn = draw_detections(image, found)
    assert drawn.shape == image.shape
    tint = 0.55 * 100 + 0.45 * PALETTE[1].astype(float)
    assert np.abs(drawn[300, 200] - tint).max() <= 1
    assert (drawn[300, 600] == 100).all()  # no mask there
    assert (drawn[300, 100] == PALETTE[1]).all() and (drawn[300, 500] == PALETTE[2]).all()
    assert (drawn[500:] == 100).all() and (image == 100).all()
    palette = [(9, 9, 9)] * 3
    assert (draw_detections(image, found, palette)[300, 100] == 9).all()


def test_small_images_are_enlarged():
    image = np.full((60, 90, 3), 100, np.uint8)
    drawn = draw_detections(image, [detection((30, 20, 60, 50), shape=(60, 90))])
    assert drawn.shape == (360, 540, 3)
    assert (drawn[180, 180] == PALETTE[0]).all()  # the box's left side
    tint = 0.55 * 100 + 0.45 * PALETTE[0].astype(float)
    assert np.abs(drawn[210, 270] - tint).max() <= 1


def test_labels_do_not_cover_each_other():
    image = np.full((600, 800, 3), 100, np.uint8)
    twice = [detection((100, 200, 300, 400), i, 0.9 - i / 10, has_mask=False) for i in range(2)]
    drawn = draw_detections(image, twice)
    above, below = drawn[180:198, 100:300], drawn[402:425, 100:300]
    counts = [[(part == PALETTE[i]).all(-1).sum() for i in range(2)] for part in (above, below)]
    assert sum(count > 200 for row in counts for count in row) == 2
    assert counts[0][0] > 200  # the surer one is above
    # At the border a label is inside the image.
    drawn = draw_detections(image, [detection((700, 0, 799, 50), has_mask=False)])
    assert (drawn[:60, 650:] == PALETTE[0]).all(-1).sum() > 500


def test_classes_are_below_the_image():
    image = np.full((500, 400, 3), 100, np.uint8)
    drawn = draw_classes(image, [('cat', 0.75), ('dog', 0.25)])
    assert (drawn[:500] == 100).all() and drawn.shape[1] == 400 and drawn.shape[0] > 530
    row = (drawn[510] == PALETTE[1]).all(-1)
    assert row.sum() > 0.6 * 400 and not row[320:].any()
