"""Pascal VOC: one XML file per image, with boxes."""

from pathlib import Path
from xml.etree import ElementTree

from .labels import (
    ImageIndex,
    LabelledImage,
    LabelledObject,
    Labels,
    check_missing,
    files_below,
    image_size,
    split_of,
)


def find_voc(root: Path) -> list[Path]:
    """Return the VOC files below a folder."""
    return [path for path in files_below(root, '.xml') if root_tag(path) == 'annotation']


def root_tag(path: Path) -> str:
    """Return the name of an XML file's root element; empty if it is no XML file."""
    try:
        _, element = next(ElementTree.iterparse(path, events=('start',)))
    except (ElementTree.ParseError, StopIteration):
        return ''
    return element.tag


def parse_xml(path: Path) -> ElementTree.Element:
    """Read an XML file.

    Raises:
        ValueError: it cannot be parsed.
    """
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f'{path} is not a whole XML file: {error}') from None


def read_voc(root: Path, files: list[Path]) -> Labels:
    """Read Pascal VOC files.

    ``ImageSets/Main/{train,val,test}.txt`` split them, else the names of folders do. Pixels count
    from 1 in this format: a box reaches from xmin - 1 to xmax. Difficult objects are ignored.

    Args:
        root: folder of images and labels.
        files: the XML files.

    Raises:
        ValueError: names the file and the invalid entry; or too many images are missing.
    """
    index = ImageIndex(root)
    splits = _image_sets(root)
    images, missing = [], []
    unlisted = 0
    for file in files:
        content = parse_xml(file)
        name = content.findtext('filename') or file.stem
        # Copied and renamed files often keep an old <filename>: their own name counts as well.
        path = index.find(file.stem, file) or index.find(name, file)
        if path is None:
            missing.append(name)
            continue
        split = splits.get(file.stem, '') if splits else split_of(file.relative_to(root).parent)
        if splits and not split:
            unlisted += 1
            continue
        objects = [_read_object(element, file) for element in content.iter('object')]
        images.append(LabelledImage(path, _size(content, path), objects, split))
    notes = check_missing(missing, len(files), root)
    if unlisted:
        notes.append(f'{unlisted} images are in no list of ImageSets/Main; they are left out')
    difficult = sum(one.ignored for image in images for one in image.objects)
    if difficult:
        notes.append(f'{difficult} objects are marked difficult; they are ignored')
    without = len(set(index.paths) - {image.path for image in images}) - unlisted
    if without > 0:
        notes.append(f'{without} images have no XML file; they are left out')
    classes = sorted({one.name for image in images for one in image.objects})
    return Labels('voc', classes, images, notes)


def _image_sets(root: Path) -> dict[str, str]:
    """Return the split of each image that ``ImageSets/Main`` lists, by its stem."""
    splits: dict[str, str] = {}
    for split in ('test', 'val', 'train'):
        for file in sorted(root.rglob(f'ImageSets/Main/{split}.txt')):
            for line in file.read_text().splitlines():
                stem = Path(line.strip()).stem if line.strip() else ''
                if splits.get(stem, split) != split:
                    raise ValueError(f'{file}: {stem} is also in {splits[stem]}.txt: remove one')
                splits[stem] = split
    return splits


def _size(content: ElementTree.Element, path: Path) -> tuple[int, int]:
    """Return the annotated size, or that of the file where the labels have none."""
    try:
        size = (int(content.findtext('size/height', '')), int(content.findtext('size/width', '')))
    except ValueError:
        return image_size(path)
    return size if min(size) > 0 else image_size(path)


def _read_object(element: ElementTree.Element, file: Path) -> LabelledObject:
    name = (element.findtext('name') or '').strip()
    box = element.find('bndbox')
    values = {} if box is None else {edge: box.findtext(edge, '') for edge in _EDGES}
    try:
        left, top, right, bottom = (float(values[edge]) for edge in _EDGES)
    except (KeyError, ValueError):
        raise ValueError(
            f'{file}: an object {name!r} has the box {values}: xmin, ymin, xmax and ymax '
            'must be numbers'
        ) from None
    if not name:
        raise ValueError(f'{file}: an object has no name: add its class')
    ignored = (element.findtext('difficult') or '0').strip() == '1'
    bbox = (left - 1, top - 1, right - left + 1, bottom - top + 1)
    return LabelledObject(name, bbox, None, ignored)


_EDGES = ('xmin', 'ymin', 'xmax', 'ymax')
