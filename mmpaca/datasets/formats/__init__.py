"""Labels of other tools: COCO, Pascal VOC, YOLO, labelme and CVAT.

These five are plain text. They are read here, and not by a converter, so that every invalid entry
is an error that names its file and line, and polygons stay polygons.
"""

import json
from collections.abc import Callable
from pathlib import Path

from .coco import is_coco, read_coco
from .cvat import find_cvat, read_cvat
from .labelme import is_labelme, read_labelme
from .labels import LabelledImage, LabelledObject, Labels, files_below
from .voc import find_voc, read_voc
from .yolo import find_yolo, read_yolo

__all__ = ['FORMATS', 'LabelledImage', 'LabelledObject', 'Labels', 'find_labels', 'read_labels']

#: Name for ``--format``, and what reads it.
FORMATS: dict[str, Callable[[Path, list[Path]], Labels]] = dict(
    coco=read_coco, voc=read_voc, yolo=read_yolo, labelme=read_labelme, cvat=read_cvat
)


def find_labels(root: Path) -> dict[str, list[Path]]:
    """Find label files below a folder by their content.

    Returns:
        The files of each format in :data:`FORMATS` that is there.
    """
    found = dict(
        voc=find_voc(root), cvat=find_cvat(root), yolo=find_yolo(root), coco=[], labelme=[]
    )
    for path in files_below(root, '.json'):
        try:
            content = json.loads(path.read_text())
        except (ValueError, RecursionError):
            continue
        if is_coco(content):
            found['coco'].append(path)
        elif is_labelme(content):
            found['labelme'].append(path)
    return {name: found[name] for name in FORMATS if found[name]}


def read_labels(root: str | Path, format: str | None = None) -> Labels:
    """Read all labels below a folder.

    Args:
        root: folder of images and labels.
        format: name in :data:`FORMATS`; None to recognise it.

    Raises:
        ValueError: the folder does not exist, has labels of no known format, or of several; or a
            label is invalid.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f'folder not found: {root}')
    found = find_labels(root)
    if format is not None:
        found = {format: found[format]} if format in found else {}
    if not found:
        wanted = format or 'COCO, Pascal VOC, YOLO (data.yaml or classes.txt), labelme or CVAT'
        raise ValueError(f'no labels below {root}: put files in the format {wanted} there')
    if len(found) > 1:
        kinds = '; '.join(
            f'{name}: {len(files)}, first {files[0]}' for name, files in found.items()
        )
        raise ValueError(
            f'labels of several formats below {root} ({kinds}): choose one with --format'
        )
    ((name, files),) = found.items()
    labels = FORMATS[name](root, files)
    if not any(image.objects for image in labels.images):
        raise ValueError(
            f'no object is labelled below {root} ({name}, {len(labels.images)} images)'
        )
    return labels
