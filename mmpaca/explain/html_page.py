"""Interactive page: one self-contained HTML file that shows what decided each detection.

The data of each image is a separate JSON script, read when the image is selected. Many images get a
page each, and a gallery that links to them.
"""

import functools
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import matplotlib as mpl
import numpy as np

from .page_data import scene_data, thumbnail
from .pictures import PALETTE
from .scene import Scene

_WEB = Path(__file__).with_name('web')
# Each script uses what those before it define.
_SCRIPTS = ('data', 'maps', 'drawing', 'labels', 'modes', 'viewer', 'main')
_PLACE = '<!-- SCENES -->'
_MAX_IMAGE = 3_000_000  # bytes of an image on the page
_MAX_PAGE = 24_000_000  # bytes up to which all images are in one file
_MIN_CELLS = 8


class Page:
    """Writer of the page; images are added one by one, so that memory does not grow.

    Up to 24 MB all images are in one file. Above that each has its own, ``pages/NNN.html`` beside
    the file, which then is a gallery of thumbnails.
    The page appears when it is complete; after an error an older one stays as it is.

    Args:
        path: the HTML file.
        map_cells: maximum number of cells on a map's longer side; larger maps are reduced. All maps
            of an image are reduced further where it would have more than 3 MB.
        max_bytes: size up to which all images are in one file.

    Raises:
        ValueError: ``map_cells`` is less than 1.

    Attributes:
        size: bytes written, known at the end.
    """

    def __init__(self, path: str | Path, map_cells: int = 48, max_bytes: int = _MAX_PAGE) -> None:
        if map_cells < 1:
            raise ValueError(f'map_cells={map_cells} must be at least 1')
        self.path = Path(path)
        self.map_cells = map_cells
        self.max_bytes = max_bytes
        self.size = 0
        self._images: list[_Image] = []

    def __enter__(self) -> 'Page':
        return self

    def add(self, name: str, scene: Scene | Mapping[str, Scene]) -> None:
        """Add an image.

        Args:
            name: its name on the page.
            scene: the image with its clusters and detections; to compare several models, a scene
                of each by the model's name.
        """
        scenes = scene if isinstance(scene, Mapping) else {'': scene}
        first = next(iter(scenes.values()))
        image = _Image(
            name,
            self.path.with_name(f'{self.path.name}.{len(self._images) + 1}.part'),
            thumbnail(first.image),
            len(first.detections),
        )
        self._images.append(image)  # first, so that an unfinished part is removed, too
        with image.part.open('w', encoding='utf-8') as file:
            for model, one in scenes.items():
                file.write(_script(name, model, image.thumbnail, one, self.map_cells))

    def __exit__(
        self,
        error: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._write()
        finally:
            for image in self._images:
                image.part.unlink(missing_ok=True)

    def _write(self) -> None:
        parts = [image.part for image in self._images]
        if len(parts) < 2 or sum(part.stat().st_size for part in parts) <= self.max_bytes:
            self.size = _assemble(self.path, _bundle(), parts)
            return
        folder = self.path.with_name('pages')
        folder.mkdir(exist_ok=True)
        links = []
        for number, image in enumerate(self._images, start=1):
            page = folder / f'{number:03d}.html'
            bundle = _bundle().replace('<!-- BACK -->', f'<a href="../{html.escape(self.path.name)}">All images</a>')  # fmt: skip
            self.size += _assemble(page, bundle, [image.part])
            links.append(
                f'<li><a href="pages/{page.name}"><img src="{image.thumbnail}" alt="" loading="lazy">'
                f'<b>{html.escape(image.name)}</b>'
                f'<small>{image.detections} detections, {_megabytes(page.stat().st_size)}</small></a></li>'
            )
        gallery = (_WEB / 'gallery.html').read_text(encoding='utf-8')
        gallery = gallery.replace('/* STYLE */', _read('style.css'))
        gallery = gallery.replace('<!-- COUNT -->', str(len(links)))
        before, after = gallery.split('<!-- IMAGES -->')
        self.size += _replace(self.path, [before, *links, after])


class _Image:
    """An added image: its name, the file with its data, a data URI and what is known of it."""

    def __init__(self, name: str, part: Path, thumbnail: str, detections: int) -> None:
        self.name = name
        self.part = part
        self.thumbnail = thumbnail
        self.detections = detections


def _script(name: str, model: str, small: str, scene: Scene, map_cells: int) -> str:
    """Write the data of an image as a script element, within the size that one may have."""
    while True:
        data = json.dumps(scene_data(name, scene, map_cells, model))
        if len(data) <= _MAX_IMAGE or map_cells <= _MIN_CELLS:
            break
        map_cells = max(_MIN_CELLS, int(0.85 * map_cells))
    # In a script element nothing but "</" and "<!--" could end the data.
    data = data.replace('<', '\\u003c')
    return (
        f'<script type="application/json" class="scene" data-name="{html.escape(name)}" '
        f'data-model="{html.escape(model)}" data-thumbnail="{small}">{data}</script>\n'
    )


def _assemble(path: Path, bundle: str, parts: list[Path]) -> int:
    """Write a page with the data in some files; return its size."""
    before, after = bundle.split(_PLACE)
    return _replace(path, [before, *parts, after])


def _replace(path: Path, pieces: list[str | Path]) -> int:
    """Write texts and contents of files to a file that appears when it is complete."""
    unfinished = path.with_name(f'{path.name}.part')
    try:
        with unfinished.open('w', encoding='utf-8') as file:
            for piece in pieces:
                file.write(piece.read_text(encoding='utf-8') if isinstance(piece, Path) else piece)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path.stat().st_size


@functools.cache
def _bundle() -> str:
    """Put style, scripts and colours into the page."""
    scripts = '\n'.join(_read(f'{name}.js') for name in _SCRIPTS)
    colours = dict(palette=PALETTE.tolist(), heat=_table('inferno'))
    scripts = scripts.replace('/* COLOURS */null', json.dumps(colours))
    page = _read('page.html')
    return page.replace('/* STYLE */', _read('style.css')).replace('/* SCRIPTS */', scripts)


def _table(name: str, steps: int = 64) -> list[list[int]]:
    """Sample one of matplotlib's perceptually uniform colour maps: RGB in 0..255."""
    colours = mpl.colormaps[name](np.linspace(0, 1, steps))[:, :3]
    return np.round(255 * colours).astype(int).tolist()


def _read(name: str) -> str:
    return (_WEB / name).read_text(encoding='utf-8')


def _megabytes(size: int) -> str:
    return f'{size / 1e6:.1f} MB'
