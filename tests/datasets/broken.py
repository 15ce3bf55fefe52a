"""A dataset with everything wrong that we could think of."""

import copy
import json
import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SIZE = 64


def write_broken(shapes: Path, out: Path) -> dict[str, str]:
    """Copy the shapes and add images that are broken or unusual, each with one good annotation.

    Returns:
        {file name: what the error says}, of those that cannot be used.
    """
    shutil.copytree(shapes, out)
    folder = out / 'train'
    rng = np.random.default_rng(0)
    picture = np.repeat(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8), 8, 0).repeat(8, 1)
    jpeg = cv2.imencode('.jpg', picture)[1].tobytes()
    png = cv2.imencode('.png', picture)[1].tobytes()
    files = {
        'truncated.jpg': jpeg[: len(jpeg) // 2],
        'truncated.png': png[: len(png) // 2],
        'empty.jpg': b'',
        'text.jpg': b'<html>404</html>',
        'corrupt.png': png[:60] + bytes(40) + png[100:],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    header = b'IHDR' + (10**5).to_bytes(4, 'big') * 2 + b'\x08\x02\0\0\0'
    checksum = zlib.crc32(header).to_bytes(4, 'big')
    start = b'\x89PNG\r\n\x1a\n' + (13).to_bytes(4, 'big')
    (folder / 'gigantic.png').write_bytes(
        start + header + checksum + b'\0\0\0\x32IDAT' + bytes(54) + b'IEND'
    )
    says = {
        'missing.jpg': 'No such file', 'truncated.jpg': 'truncated JPEG',
        'truncated.png': 'truncated PNG', 'empty.jpg': 'cannot be decoded',
        'text.jpg': 'cannot be decoded', 'corrupt.png': '', 'gigantic.png': 'pixels',
        'other_size.png': 'is 32x32, its annotations are for 64x64',
    }  # fmt: skip
    cv2.imwrite(str(folder / 'other_size.png'), picture[::2, ::2])

    # Unusual, and fine.
    rgb = Image.fromarray(picture[..., ::-1])
    rgb.convert('CMYK').save(folder / 'cmyk.jpg', quality=100)
    rgb.convert('L').save(folder / 'grey.png')
    rgb.convert('P').save(folder / 'palette.png')
    rgb.convert('RGBA').save(folder / 'alpha.png')
    cv2.imwrite(str(folder / 'deep.png'), picture.astype(np.uint16) * 257)
    wide = rgb.resize((SIZE, SIZE // 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to look at it
    wide.save(folder / 'exif_stored.jpg', exif=exif, quality=100)
    wide.save(folder / 'exif_turned.jpg', exif=exif, quality=100)
    cv2.imwrite(str(folder / 'pixel.png'), picture[:1, :1])
    sizes = {
        'exif_stored.jpg': (SIZE, SIZE // 2), 'exif_turned.jpg': (SIZE // 2, SIZE),
        'pixel.png': (1, 1),
    }  # fmt: skip

    path = out / 'annotations/train.json'
    coco = json.loads(path.read_text())
    names = [*says, *(p.name for p in sorted(folder.iterdir()) if not p.stem.isdigit())]
    for name in dict.fromkeys(names):
        width, height = sizes.get(name, (SIZE, SIZE))
        image_id = len(coco['images']) + 1
        coco['images'].append(dict(id=image_id, file_name=name, width=width, height=height))
        coco['annotations'].append(annotation(coco, image_id, [0, 0, width, height]))
    path.write_text(json.dumps(coco))
    return says


def annotation(coco: dict, image_id: int, box: list) -> dict:
    """A whole annotation with a new id."""
    x, y, w, h = box
    points = [x, y, x + w, y, x + w, y + h]
    return dict(
        id=max(a['id'] for a in coco['annotations']) + 1, image_id=image_id, category_id=1,
        bbox=box, area=w * h, iscrowd=0, segmentation=[points],
    )  # fmt: skip


def add_broken_annotations(coco: dict) -> tuple[dict, dict[str, int]]:
    """A copy with one fault of each kind; how many of each."""
    coco = copy.deepcopy(coco)
    images, annotations = coco['images'], coco['annotations']
    nan = float('nan')

    def add(box=(1, 1, 9, 9), image_id=None, **changes) -> None:
        annotations.append({**annotation(coco, image_id or images[0]['id'], list(box)), **changes})

    add(id=annotations[0]['id'])
    add(image_id=10**6)
    add(category_id=99)
    add(bbox=[1, nan, 5, 5])
    add(bbox=[1, 2, 3])
    add(bbox=[1, 2, 0.5, 9])
    add(bbox=[1000, 2, 5, 9])
    add(segmentation=[])
    add(segmentation=[[1, 1, nan, 2, 3, 3]])
    add(segmentation=[[1, 1, 2, 2]])
    add(segmentation=dict(size=[5, 5], counts=[25]))
    add(area=nan)
    add(area=0)
    add(bbox=[-9, -9, 30, 30])
    add(segmentation=[[0, 0, 9, 9, 9, 0, 0, 9]])
    images.append(dict(images[0]))
    images.append(dict(id=10**7, width=5, height=5))
    for image_id in (10**8, 10**8 + 1):
        images.append(dict(images[0], id=image_id))
    add(image_id=10**8, iscrowd=1)
    images.append({k: v for k, v in images[0].items() if k != 'id'})
    annotations.append({k: v for k, v in annotations[0].items() if k != 'id'})
    return coco, {
        'image: id missing or duplicate': 2, 'image: no file name or size': 1, 'id missing or duplicate': 2,
        'unknown image': 1, 'unknown category': 1, 'box: missing, or not four finite numbers': 2,
        'box: narrower than a pixel': 1, 'box: outside of the image': 1, 'segmentation: empty': 1,
        'segmentation: not finite': 1, 'segmentation: less than three points': 1,
        'segmentation: RLE of another size': 1, 'area: missing or not finite': 1, 'area: zero or negative': 1,
        'box: partly outside of the image': 1, 'segmentation: crosses itself': 1,
        'image: no annotations': 1, 'image: only crowds': 1,
    }  # fmt: skip
