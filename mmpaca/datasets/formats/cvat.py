"""CVAT's own format, "CVAT for images 1.1": one XML file for many images."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from .labels import (
    ImageIndex,
    LabelledImage,
    LabelledObject,
    Labels,
    box_of,
    check_missing,
    files_below,
    split_of,
)
from .rle import encode, paste
from .voc import parse_xml, root_tag


def find_cvat(root: Path) -> list[Path]:
    """Return the CVAT files below a folder."""
    return [path for path in files_below(root, '.xml') if root_tag(path) == 'annotations']


def read_cvat(root: Path, files: list[Path]) -> Labels:
    """Read CVAT's files.

    Boxes, polygons and masks are read; other shapes are left out. An image's
    ``subset``, or else the folder of the file or image, is its split.

    Args:
        root: folder of images and labels.
        files: the XML files.

    Raises:
        ValueError: names the file and the invalid entry; a file is of a video; or too many images
            are missing.
    """
    index = ImageIndex(root)
    images, missing, classes = [], [], []
    total = skipped = 0
    for file in files:
        content = parse_xml(file)
        if content.find('track') is not None:
            raise ValueError(f'{file} has tracks of a video: export it as "CVAT for images 1.1"')
        classes += [e.text or '' for e in content.findall('meta//label/name')]
        for element in content.iter('image'):
            total += 1
            name = element.get('name', '')
            path = index.find(name, file)
            if path is None:
                missing.append(name)
                continue
            try:
                size = (int(element.attrib['height']), int(element.attrib['width']))
                found = [_read_shape(shape, size) for shape in element]
            except (KeyError, ValueError) as error:
                raise ValueError(f'{file}: image {name} has an invalid shape ({error!r})') from None
            objects = [one for one in found if one is not None]
            skipped += len(found) - len(objects)
            split = split_of(Path(element.get('subset') or '')) or split_of(Path(name).parent)
            split = split or split_of(file.relative_to(root).parent)
            images.append(LabelledImage(path, size, objects, split))
    notes = check_missing(missing, total, root)
    if skipped:
        notes.append(f'{skipped} shapes that are neither boxes, polygons nor masks are left out')
    named = {one.name for image in images for one in image.objects}
    return Labels('cvat', [*dict.fromkeys(classes), *sorted(named - set(classes))], images, notes)


def _read_shape(shape: ElementTree.Element, size: tuple[int, int]) -> LabelledObject | None:
    name = shape.get('label', '')
    if shape.tag == 'box':
        left, top, right, bottom = (float(shape.attrib[k]) for k in ('xtl', 'ytl', 'xbr', 'ybr'))
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        corners = _rotated(corners, float(shape.get('rotation') or 0))
        return LabelledObject(name, box_of(corners.ravel().tolist()))
    if shape.tag == 'polygon':
        points = [float(v) for pair in shape.attrib['points'].split(';') for v in pair.split(',')]
        return LabelledObject(name, box_of(points), [points])
    if shape.tag == 'mask':
        left, top, width, height = (
            int(shape.attrib[k]) for k in ('left', 'top', 'width', 'height')
        )
        counts = [int(count) for count in shape.attrib['rle'].split(',')]
        # Runs of background and mask in turn, row by row.
        part = np.repeat(np.arange(len(counts)) % 2, counts).reshape(height, width)
        return encode(name, paste(part > 0, left, top, size))
    return None


def _rotated(corners: np.ndarray, degrees: float) -> np.ndarray:
    """Turn corners, (4, 2), about their centre, clockwise on the image."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = corners.mean(0)
    return (corners - centre) @ turn + centre
