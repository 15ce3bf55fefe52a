"""Make the pictures of the documentation from a trained detector, e.g. the one of `make demo`.

Writes clusters.jpg, attention.jpg, page_patch.png and page_detection.png; the last two are
screenshots and need chromium and chromedriver. With --large writes only that picture: the detections
in the first image beside three of its clusters.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import matplotlib
import mmcv
import numpy as np
import torch

import mmpaca
from mmpaca.apis.inference import Predictor
from mmpaca.explain import BlockRecord, pictures
from mmpaca.explain.html_page import Page
from mmpaca.explain.scene import Detection, Scene

matplotlib.use('Agg')  # files only, no display needed
import matplotlib.pyplot as plt

_VIEWPORT = dict(width=1280, height=757, deviceScaleFactor=1, mobile=False)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='detector with a PaCaViT')
    parser.add_argument('checkpoint', help='weights of the detector')
    parser.add_argument('images', nargs='+', help='files; the first one is explained in detail')
    parser.add_argument('--out-dir', type=Path, default=Path('docs/images'))
    parser.add_argument('--score-thr', type=float, default=0.5, help='lowest score shown')
    parser.add_argument('--large', type=Path, metavar='FILE', help='write only this picture')
    return parser.parse_args()


def load_scenes(args: argparse.Namespace) -> list[Scene]:
    """The images with the last block of every stage and what was detected."""
    predictor = Predictor(args.config, args.checkpoint, 'cpu')
    scenes = []
    with mmpaca.explain.record(predictor.model, 'last') as recording:
        for path in args.images:
            image, sample = predictor(path)
            scene = Scene.from_sample(
                image, sample, recording, 0, predictor.classes, args.score_thr
            )
            if not scene.detections:
                raise SystemExit(f'nothing is detected in {path} above {args.score_thr}')
            scene.attribution = mmpaca.explain.attribute(predictor.model, image, scene.detections)
            scenes.append(scene)
    return scenes


def cluster_row(scene: Scene) -> np.ndarray:
    """An image, its strongest clusters, and the two that the first detection attends to most."""
    block, detection = scene.blocks[0], scene.detections[0]
    order = block.received()[0].argsort(descending=True).tolist()
    labels = scene.geometry.to_image(block.labels()[0].numpy(), block.stride, fill=-1)
    shares = attended(block, scene.coverage(block, detection))
    strongest = shares.argsort()[::-1][:2]
    looked_at = _heat(scene, block, scene.relevance(block, detection))
    return pictures.tile_row(
        [
            scene.image,
            pictures.segmentation(scene.image, labels, order),
            *(_heat(scene, block, block.assignment[0, m].numpy()) for m in strongest),
            pictures.outline_mask(looked_at, detection.mask),
        ],
        [
            'image',
            f'stage {block.stage + 1}: strongest cluster',
            *(f'cluster {m + 1}: {shares[m]:.0%} of its attention' for m in strongest),
            f'{detection.name} {detection.score:.2f} looked at',
        ],
    )


def attended(block: BlockRecord, weights: np.ndarray) -> np.ndarray:
    """What share of their attention weighted patches, (H, W), give each cluster: (M,), sums to one."""
    attention = block.attention[0].mean(0)  # (heads, H, W, M) -> (H, W, M)
    weights = torch.from_numpy(weights / weights.sum()).to(attention)
    return torch.einsum('hw,hwm->m', weights, attention).numpy()


def large_picture(scene: Scene) -> np.ndarray:
    """Outlined detections beside the strongest cluster and two that differ most from it."""
    block = scene.blocks[0]
    found = scene.image
    for k, detection in enumerate(scene.detections):
        contours, _ = cv2.findContours(
            detection.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        colour = pictures.PALETTE[k % len(pictures.PALETTE)].tolist()
        found = cv2.drawContours(found.copy(), contours, -1, colour, 2, cv2.LINE_AA)
    tiles = [found, *(_glow(scene, block, m) for m in unlike(block))]
    gap = [(0, 4), (0, 4), (0, 0)]
    tiles = [np.pad(tile, gap, constant_values=255) for tile in tiles]
    rows = [np.hstack(tiles[:2]), np.hstack(tiles[2:])]
    return np.vstack(rows)[:-4, :-4]


def _glow(scene: Scene, block: BlockRecord, cluster: int) -> np.ndarray:
    """Where a cluster takes its content from, over the entire image; shows dark images, too."""
    heat = scene.geometry.to_image(block.assignment[0, cluster].numpy(), block.stride)
    scaled = np.sqrt(np.clip(heat / np.percentile(heat, 99.5), 0, 1))
    colours = cv2.applyColorMap((255 * scaled).astype(np.uint8), cv2.COLORMAP_CIVIDIS)[..., ::-1]
    return cv2.addWeighted(scene.image, 0.35, np.ascontiguousarray(colours), 0.65, 0)


def unlike(block: BlockRecord, count: int = 3) -> list[int]:
    """The cluster that receives most attention, then each time the one least like those before."""
    maps = torch.nn.functional.normalize(block.assignment[0].flatten(1).sqrt(), dim=1)  # (M, N)
    chosen = [int(block.received()[0].argmax())]
    while len(chosen) < count:
        chosen.append(int((maps @ maps[chosen].T).amax(1).argmin()))
    return chosen


def middle_patch(scene: Scene, block: BlockRecord, detection: Detection) -> tuple[int, int]:
    """Row and column of the patch in the middle of a detection."""
    rows, columns = np.nonzero(scene.coverage(block, detection) > 0.5)
    nearest = np.hypot(rows - rows.mean(), columns - columns.mean()).argmin()
    return int(rows[nearest]), int(columns[nearest])


def _heat(scene: Scene, block: BlockRecord, heat: np.ndarray) -> np.ndarray:
    return pictures.heat_map(scene.image, scene.geometry.to_image(heat, block.stride))


def attention_figure(scene: Scene) -> plt.Figure:
    """One patch of the surest detection on its way through patch-to-cluster attention."""
    block = scene.blocks[0]
    row, column = middle_patch(scene, block, scene.detections[0])
    query = np.zeros(block.assignment.shape[-2:], np.float32)
    query[row, column] = 1
    shares = attended(block, query)
    strongest = shares.argsort()[::-1][:3]
    colours = pictures.PALETTE / 255
    left, top, width, height = scene.geometry.cell_box(block.stride)

    figure, axes = plt.subplots(2, 6, figsize=(12, 5.4), height_ratios=(1, 1.15))
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.93, wspace=0.08, hspace=0.2)
    shown, bars, *maps, looked = axes[0]
    patches, clusters = query.size, len(shares)
    shown.imshow(scene.image)
    shown.set_title(f'one of N = {patches} patches', fontsize=10)
    bars.bar(range(1, clusters + 1), shares, color='0.7')
    for colour, m in zip(colours, strongest, strict=False):
        bars.bar(m + 1, shares[m], width=1.6, color=colour)
    bars.axhline(1 / clusters, color='black', linestyle='dashed', linewidth=1)
    bars.set_title(f'attends to M = {clusters} clusters', fontsize=10)
    for axis, colour, m in zip(maps, colours, strongest, strict=False):
        axis.imshow(_heat(scene, block, block.assignment[0, m].numpy()))
        axis.set_title(f'{shares[m]:.0%} to cluster {m + 1}', fontsize=10)
        axis.spines[:].set(visible=True, color=colour, linewidth=4)
    relevance = block.relevance(torch.from_numpy(query)[None, None])[0, 0].numpy()
    looked.imshow(_heat(scene, block, relevance))
    looked.set_title('and so sees this', fontsize=10)
    for axis in (shown, looked):
        for colour, line in (('black', 3.5), ('white', 1.5)):
            corner = (left + column * width - 0.5, top + row * height - 0.5)
            axis.add_patch(plt.Rectangle(corner, width, height, fill=False, ec=colour, lw=line))
    for axis in axes[0]:
        axis.set(xticks=[], yticks=[])
    bars.set_box_aspect(1)
    _draw_matrices(figure, axes[1], block, row * query.shape[1] + column)
    return figure


def _draw_matrices(figure: plt.Figure, axes: np.ndarray, block: BlockRecord, patch: int) -> None:
    """A, Z and A Z of the first head with their values, in proportion; the patch's rows marked."""
    a = block.attention[0, 0].flatten(0, 1).numpy()  # (H, W, M) -> (N, M)
    z = block.assignment[0].flatten(1).numpy()  # (M, H, W) -> (M, N)
    for axis in axes:
        axis.remove()
    patches, clusters = a.shape
    side = 2.45  # inches, of N patches
    thin = side * clusters / patches
    products = [
        (a, 3.0, 0.1, thin, side, f'A\n{patches} x {clusters}'),
        (z, 4.1, 0.1 + side - thin, side, thin, f'Z\n{clusters} x {patches}'),
        (a @ z, 7.4, 0.1, side, side, f'A Z, never computed\n{patches} x {patches}'),
    ]
    size = figure.get_size_inches()
    for values, x, y, width, height, name in products:
        axis = figure.add_axes((x / size[0], y / size[1], width / size[0], height / size[1]))
        axis.imshow(np.sqrt(values), aspect='auto', cmap='cividis')
        axis.set(xticks=[], yticks=[])
        if values is not z:
            axis.annotate(
                '',
                (0, patch),
                (-10, 0),
                textcoords='offset points',
                arrowprops=dict(arrowstyle='-|>'),
            )
        figure.text(
            (x + width / 2) / size[0], (y + height + 0.06) / size[1], name, ha='center', fontsize=10
        )
    for x, sign in ((3.65, '·'), (6.95, '=')):
        figure.text(x / size[0], 2.28 / size[1], sign, ha='center', fontsize=18)


@contextmanager
def open_browser():
    """Headless Chromium with a viewport of one size everywhere."""
    paths = [shutil.which(name) for name in ('chromium', 'chromedriver')]
    if None in paths:
        raise SystemExit('no chromium and chromedriver: apt-get install chromium chromium-driver')
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for argument in ('--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars'):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(paths[1]))
    try:
        driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', _VIEWPORT)
        yield driver
    finally:
        driver.quit()


def page_screenshots(name: str, scene: Scene) -> Iterator[tuple[str, bytes]]:
    """The page as it opens, and with a patch pointed at: name and PNG."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    block = scene.blocks[0]
    row, column = middle_patch(scene, block, scene.detections[0])
    left, top, width, height = scene.geometry.cell_box(block.stride)
    x, y = left + (column + 0.5) * width, top + (row + 0.5) * height
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        with Page(Path(folder) / 'index.html') as page:
            page.add(name, scene)
        browser.get((Path(folder) / 'index.html').as_uri())
        WebDriverWait(browser, 60).until(
            lambda b: b.execute_script('return document.body.dataset.ready')
        )
        yield 'page_detection.png', browser.get_screenshot_as_png()
        browser.find_element(By.CSS_SELECTOR, '#modes input[value=patches] + span').click()
        Select(browser.find_element(By.ID, 'layer')).select_by_index(0)
        browser.execute_script('document.activeElement.blur()')  # no frame around it
        view = browser.find_element(By.CSS_SELECTOR, '.stage canvas')
        scale = view.size['width'] / scene.image.shape[1]
        ActionChains(browser).move_to_element_with_offset(
            view, x * scale - view.size['width'] / 2, y * scale - view.size['height'] / 2
        ).perform()
        yield 'page_patch.png', browser.get_screenshot_as_png()


def main() -> None:
    args = parse_args()
    scenes = load_scenes(args)
    if args.large:
        picture = large_picture(scenes[0])
        mmcv.imwrite(picture[..., ::-1], str(args.large), [cv2.IMWRITE_JPEG_QUALITY, 88])
        return
    args.out_dir.mkdir(parents=True, exist_ok=True)
    rows = pictures.stack_rows([cluster_row(scene) for scene in scenes])
    shrunk = cv2.resize(rows, None, fx=0.85, fy=0.85, interpolation=cv2.INTER_AREA)
    mmcv.imwrite(
        shrunk[..., ::-1], str(args.out_dir / 'clusters.jpg'), [cv2.IMWRITE_JPEG_QUALITY, 85]
    )
    attention_figure(scenes[0]).savefig(
        args.out_dir / 'attention.jpg', dpi=100, pil_kwargs=dict(quality=88)
    )
    for name, png in page_screenshots(Path(args.images[0]).name, scenes[0]):
        (args.out_dir / name).write_bytes(png)
    for path in sorted(args.out_dir.glob('*.*')):
        print(f'{path}: {path.stat().st_size // 1024} KiB')


if __name__ == '__main__':
    main()
