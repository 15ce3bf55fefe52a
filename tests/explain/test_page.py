"""The page in a browser: what is drawn, after what a user does."""

import base64
import io
import itertools
import json
import os
import re
import shutil
import zlib
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from mmpaca.explain import page_data
from mmpaca.explain.html_page import Page
from mmpaca.explain.page_data import followed, pool, scene_data
from mmpaca.explain.pictures import PALETTE

ORANGE, BLUE = PALETTE[0].tolist(), PALETTE[1].tolist()


def inflate(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def scripts(text: str) -> list[dict]:
    found = re.findall(r'<script type="application/json".*?>(.*?)</script>', text, re.S)
    return [json.loads(script) for script in found]


def test_data_is_small_and_comes_back(scene):
    data = scene_data('a', scene, map_cells=20)
    block = data['blocks'][0]
    assert (block['rows'], block['columns'], block['cell']) == (16, 20, [0, 0, 4, 4])
    stored = inflate(block['attention']).reshape(2, 320, 4)
    back = (stored / 255.0) ** 2
    back /= back.sum(-1, keepdims=True)
    exact = scene.blocks[0].attention[0].flatten(1, 2).numpy()
    np.testing.assert_allclose(back, exact, atol=2e-3)

    reduced = scene_data('a', scene, map_cells=7)['blocks'][0]  # three patches each way
    assert (reduced['rows'], reduced['columns'], reduced['cell']) == (6, 7, [0, 0, 12, 12])
    maps = np.arange(20.0).reshape(1, 4, 5)
    assert float(pool(maps, 3).sum()) == maps.sum()
    assert pool(maps, 3)[0, 0, 0] == maps[0, :3, :3].sum()
    assert pool(maps, 3)[0, 1, 1] == maps[0, 3:, 3:].sum()


def test_categories_that_clusters_follow(scene):
    # The cat covers 37.5 of the 80 patches of its quarter, the dog 31.5.
    assert followed(scene, scene.blocks[0]) == [('<b>cat</b>', 0.469), None, None, ('dog', 0.394)]
    # The middle column has neither much of its weight on one of them nor more than its share.
    assert followed(scene, scene.blocks[1]) == [None]
    assert followed(replace(scene, detections=[]), scene.blocks[1]) == [None]


def test_outlines_are_smooth_and_have_holes():
    mask = np.zeros((60, 80), bool)
    mask[10:50, 20:60] = True
    mask[20:40, 30:50] = False
    outer, inner = sorted(page_data._outline(mask, 0.5), key=len, reverse=True)
    for outline, (left, top, right, bottom) in (
        (outer, (10, 5, 30, 25)),
        (inner, (15, 10, 25, 20)),
    ):
        x, y = outline[::2], outline[1::2]
        found = (min(x), min(y), max(x), max(y))
        np.testing.assert_allclose(found, (left, top, right, bottom), atol=0.3)
    assert page_data._outline(np.zeros((5, 5), bool), 1) == []


def test_half_a_page_is_not_left_behind(scene, tmp_path):
    (tmp_path / 'index.html').write_text('older')
    with pytest.raises(OSError, match='broken'), Page(tmp_path / 'index.html') as page:
        page.add('a', scene)
        raise OSError('broken')
    assert [p.name for p in tmp_path.iterdir()] == ['index.html']
    assert (tmp_path / 'index.html').read_text() == 'older'


def test_page_is_one_file_that_needs_nothing(scene, tmp_path):
    with Page(tmp_path / 'index.html') as page:
        page.add('a.jpg', scene)
        page.add('</script>.jpg', scene)
        page.add('Käfer.jpg', {'<b>1</b>.pth': scene, '2.pth': scene})
    assert [p.name for p in tmp_path.iterdir()] == ['index.html']
    content = (tmp_path / 'index.html').read_bytes()
    text = content.decode('utf-8')
    assert page.size == len(content)
    assert not re.search(r'(src|href)="(?!data:)|@import|https?://|url\(', text)
    names = [(data['name'], data['model']) for data in scripts(text)]
    assert names == [('a.jpg', ''), ('</script>.jpg', ''), ('Käfer.jpg', '<b>1</b>.pth'), ('Käfer.jpg', '2.pth')]  # fmt: skip
    assert '/* COLOURS */' not in text and '<!-- SCENES -->' not in text
    with pytest.raises(ValueError, match='map_cells=0'):
        Page(tmp_path / 'index.html', 0)


def test_gallery_of_many_images(scene, tmp_path):
    with Page(tmp_path / 'index.html', max_bytes=1000) as page:
        page.add('a.jpg', scene)
        page.add('<i>"b".jpg', scene)
    files = sorted(tmp_path.rglob('*.*'))
    assert [str(p.relative_to(tmp_path)) for p in files] == ['index.html', 'pages/001.html', 'pages/002.html']  # fmt: skip
    assert page.size == sum(p.stat().st_size for p in files)
    gallery = files[0].read_text()
    assert re.findall('href="(pages.*?)"', gallery) == ['pages/001.html', 'pages/002.html']
    assert '&lt;i&gt;&quot;b&quot;.jpg' in gallery and '<i>' not in gallery
    assert gallery.count('2 detections, 0.1 MB') == 2
    (data,) = scripts(files[2].read_text())
    assert data['name'] == '<i>"b".jpg' and 'href="../index.html"' in files[2].read_text()


def test_an_image_has_a_limit(scene, tmp_path, monkeypatch):
    """Maps are reduced until it is kept."""
    size = len(json.dumps(scene_data('a.jpg', scene, 48)))
    monkeypatch.setattr('mmpaca.explain.html_page._MAX_IMAGE', size - 1)
    with Page(tmp_path / 'index.html') as page:
        page.add('a.jpg', scene)
    (data,) = scripts((tmp_path / 'index.html').read_text())
    assert data['blocks'][0]['rows'] < 16


@pytest.fixture(scope='module')
def browser():
    """Headless Chromium; where CI demands it (MMPACA_REQUIRE_BROWSER) its lack is a failure."""
    paths = [shutil.which(name) for name in ('chromium', 'chromedriver')]
    if None in paths:
        message = 'no chromium and chromedriver: apt-get install chromium chromium-driver'
        if os.environ.get('MMPACA_REQUIRE_BROWSER'):
            pytest.fail(message)
        pytest.skip(message)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    # In containers /dev/shm may be too small for a browser.
    arguments = ['--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage']
    for argument in (*arguments, '--window-size=1200,900'):
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(paths[1]))
    yield driver
    driver.quit()


class User:
    """What a user sees and does on a page of an image of 80 x 60 pixels."""

    def __init__(self, browser, path) -> None:
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        self.browser = browser
        self.wait = WebDriverWait(browser, 60)
        self.css = By.CSS_SELECTOR
        browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
        browser.get(path.as_uri())

    def run(self, script: str, *arguments: object) -> object:
        return self.browser.execute_script(script, *arguments)

    def ready(self, name: str) -> None:
        self.wait.until(lambda b: self.run('return document.body.dataset.ready') == name)

    def find(self, selector: str):
        return self.browser.find_element(self.css, selector)

    def all(self, selector: str) -> list:
        return self.browser.find_elements(self.css, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def select(self, selector: str, text: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.find(selector)).select_by_visible_text(text)

    def mode(self, name: str) -> None:
        self.find(f'#modes input[value={name}] + span').click()

    def set(self, name: str, value: object) -> None:
        """Set a box or a slider."""
        self.run(
            'const e = document.getElementById(arguments[0]), v = arguments[1];'
            "if (typeof v === 'boolean') e.checked = v; else e.value = v;"
            "e.dispatchEvent(new Event(e.type === 'range' ? 'input' : 'change', {bubbles: true}))",
            name, value,
        )  # fmt: skip

    def at(self, x: float, y: float):
        """Move the pointer to a pixel of the image."""
        from selenium.webdriver import ActionChains

        view = self.find('.stage canvas')
        size = view.size
        return ActionChains(self.browser).move_to_element_with_offset(
            view, (x / 80 - 0.5) * size['width'], (y / 60 - 0.5) * size['height']
        )

    def picture(self) -> np.ndarray:
        """The canvas, reduced to the pixels of the image."""
        uri = self.run("return document.querySelector('.stage canvas').toDataURL()")
        image = Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2]))).convert('RGB')
        image = np.asarray(image, float)
        scale = image.shape[1] // 80
        return image[scale // 2 :: scale, scale // 2 :: scale]

    def shares(self) -> dict[str, float]:
        """Percent by name, of the clusters in the list."""
        return {
            item.find_element(self.css, 'b').text: float(item.find_element(self.css, 'small').text.partition(' ')[0])
            for item in self.all('.clusters li')
        }  # fmt: skip


def heated(scene, density: np.ndarray, top: float) -> np.ndarray:
    """What the page draws of a map over the grey image, at the image's pixels."""
    root = np.sqrt(scene.geometry.to_image(density, scene.blocks[0].stride))
    colour = 255 * mpl.colormaps['inferno'](0.15 + 0.85 * root / np.sqrt(top))[..., :3]
    opacity = np.clip((root - 0.8) / 0.8, 0, 1)[..., None]
    return colour * opacity + scene.image * (1 - opacity)


def test_in_a_browser(scene, tmp_path, browser):
    from selenium.webdriver import Keys

    with Page(tmp_path / 'index.html') as page:
        page.add('first.jpg', scene)
        page.add('second.jpg', scene.only_stages([3]))
    user = User(browser, tmp_path / 'index.html')
    user.ready('first.jpg')
    view = user.find('.stage canvas')
    block, cat = scene.blocks[0], scene.detections[0]

    # At first the surest detection is chosen; no attribution, so the last stage's attention.
    assert user.text('h1') == 'Click an object: this is where it attends.'
    assert user.text('.title') == '<b>cat</b> 0.90' and 'stage 3' in user.text('.answer')
    assert 'Stage 4' in user.text('.left-out')
    user.select('#layer', 'attention of stage 1, block 2')
    assert '18 % of the map is inside its box, which is 13 % of the image' in user.text('.answer')
    assert '50 % of the map differs from the mean of the others' in user.text('.note')
    user.set('outlines', False)
    user.set('opacity', 1)
    # Colours end at four times an even spread over the 15 x 20 patches that show the image.
    density = 300 * scene.relevance(block, cat)
    assert np.abs(user.picture() - heated(scene, density, 4)).mean() < 2
    ticks = [tick.text for tick in user.all('.ticks span')]
    assert ticks == ['0', '1× even', '4×']
    # Against the dog's: more in the upper left quarter (yellow), less in the lower right (blue).
    user.set('contrast', True)
    picture = user.picture()
    assert picture[10, 10, 0] > 150 > picture[10, 10, 2] and picture[50, 70, 2] > picture[50, 70, 0] + 20  # fmt: skip
    user.set('contrast', False)
    user.select('#head', '2')  # attends to the lower right quarter for every patch
    assert 'Not specific' in user.text('.note') and 'warn' in user.find('.note').get_attribute('class')  # fmt: skip
    user.set('opacity', 0)
    assert (user.picture() == 100).all()
    user.set('opacity', 1)

    # Labels cover neither each other nor leave the picture; a click chooses.
    user.set('outlines', True)
    labels = [label.rect for label in user.all('.labels button')]
    assert len(labels) == 2
    for one, other in itertools.combinations(labels, 2):
        apart = [abs(one[a] - other[a]) >= min(one[s], other[s]) for a, s in (('x', 'width'), ('y', 'height'))]  # fmt: skip
        assert any(apart)
    user.at(64, 50).click().perform()
    assert user.text('.title') == 'dog 0.50'
    pressed = [b.get_attribute('aria-pressed') for b in user.all('.objects button')]
    assert pressed == ['false', 'true']
    view.send_keys(Keys.ARROW_RIGHT)
    assert user.text('.title') == '<b>cat</b> 0.90'
    view.send_keys(Keys.ESCAPE)
    assert user.text('.title') == 'No object chosen'

    # Clusters: every patch's strongest, in the order of attention received; then one of them.
    user.mode('clusters')
    user.set('outlines', False)
    user.select('#layer', 'Stage 1, block 2')
    order = block.received()[0].argsort(descending=True).tolist()
    picture = user.picture()
    for cluster, (x, y) in {0: (38, 28), 1: (42, 2), 2: (2, 58), 3: (42, 33)}.items():
        expected = 0.75 * PALETTE[order.index(cluster)].astype(float) + 25
        np.testing.assert_allclose(picture[y, x], expected, atol=3)
    assert user.text('.clusters li:first-child') == 'cluster 4\n63 %, follows dog'
    user.all('.clusters button')[0].click()
    assert 'It follows dog: 39 % of it is there' in user.text('.note')
    assert np.abs(user.picture() - heated(scene, 300 * block.assignment[0, 3].numpy(), 4)).mean() < 2  # fmt: skip

    # Patches: the mean of two heads attends to 0.375, 0.125 and 0.5.
    user.mode('patches')
    user.select('#head', 'mean of all')
    user.at(2, 28).perform()
    assert 'row 8, column 1' in user.text('.answer')
    assert user.shares() == pytest.approx({'cluster 4': 50, 'cluster 1': 37.5, 'cluster 2': 12.5, 'cluster 3': 0}, abs=1)  # fmt: skip
    picture = user.picture()
    np.testing.assert_allclose([picture[33, 42], picture[28, 38]], [ORANGE, BLUE], atol=3)
    view.send_keys(Keys.ESCAPE, Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert 'row 9, column 10' in user.text('.answer')
    view.send_keys(*[Keys.ARROW_LEFT] * 12, *[Keys.ARROW_UP] * 5, *[Keys.ARROW_RIGHT] * 3)
    assert 'row 4, column 4' in user.text('.answer')  # it stopped at the border
    view.send_keys(Keys.ENTER)
    assert user.text('.title') == '<b>cat</b> 0.90'

    # Another image, then both side by side.
    user.all('#film button')[1].click()
    user.ready('second.jpg')
    assert [o.text for o in user.all('#layer option')] == ['attention of stage 3, block 1']
    user.select('#compare', 'first.jpg')
    user.ready('second.jpg | first.jpg')
    assert [m.text for m in user.all('.model')] == ['second.jpg', 'first.jpg']
    # Only this test reads the canvas, which Chromium remarks upon.
    log = [entry for entry in browser.get_log('browser') if 'Canvas2D' not in entry['message']]
    assert log == []


def test_what_decided_and_two_models(scene, tmp_path, browser):
    """A map through the entire network comes first; the other model's same object is chosen."""
    maps = np.full((2, 60, 80), 0.01, np.float32)
    maps[0, :30, :40] = 1
    maps[1, 30:, 40:] = 1
    scene.detections[0].curves = ([0.9, 0.1, 0.0], [0.0, 0.7, 0.9])
    other = replace(scene, detections=scene.detections[::-1])
    with Page(tmp_path / 'index.html') as page:
        page.add('a.jpg', {'<i>1</i>.pth': replace(scene, attribution=maps), '2.pth': other})
    user = User(browser, tmp_path / 'index.html')
    user.ready('a.jpg | a.jpg')
    assert user.text('h1') == 'Click an object: this is what decided.'
    assert [m.text for m in user.all('.model')] == ['<i>1</i>.pth', '2.pth']
    # 600 of the map's 1236 are in the box.
    assert re.match('This is what decided: 4[89] % of the map is inside', user.text('.answer'))
    assert re.search(r'area 0\.28, .* 0\.5[78], more', user.text('.curves'))
    assert [title.text for title in user.all('.title')] == ['<b>cat</b> 0.90'] * 2
    user.set('outlines', False)
    picture = user.picture()
    assert picture[15, 20].max() > 180 and np.abs(picture[50, 70] - 100).max() < 12
    for width, height in ((360, 740), (1280, 757), (2560, 1300)):
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
        assert user.run('return document.documentElement.scrollWidth') <= width


def test_layout(scene, tmp_path, browser):
    """Nothing overflows; the answer to a click is visible beside the image."""
    large = np.kron(scene.image, np.ones((10, 10, 1), np.uint8))
    geometry = replace(scene.geometry, image_shape=(600, 800))
    masks = [np.kron(d.mask, np.ones((10, 10), bool)) for d in scene.detections]
    found = [
        replace(d, box=tuple(10 * v for v in d.box), mask=mask)
        for d, mask in zip(scene.detections, masks, strict=True)
    ]
    with Page(tmp_path / 'index.html') as page:
        page.add('a.jpg', replace(scene, image=large, geometry=geometry, detections=found))
    user = User(browser, tmp_path / 'index.html')
    user.ready('a.jpg')
    for width, height in ((360, 740), (1280, 757), (2560, 1300)):
        size = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
        user.wait.until(lambda _, w=width: user.run('return innerWidth') == w)
        assert user.run('return document.documentElement.scrollWidth') <= width
        view, answer = user.find('.stage canvas').rect, user.find('.answer').rect
        assert answer['y'] + answer['height'] <= height
        assert (answer['x'] >= view['x'] + view['width']) == (width > 1000)
        assert view['width'] >= 0.6 * min(width, 1.2 * height)


def test_classes_of_a_segmentor_in_a_browser(scene, tmp_path, browser):
    """The head's clusters have the names of classes; regions are clicked by their masks."""
    head = replace(scene.blocks[0], stage=4, block=0, is_head=True)
    classes = ('road', 'sky', 'car', 'tree')
    blocks = [*scene.blocks, head]
    segmented = replace(scene, blocks=blocks, classes=classes, is_segmented=True)
    with Page(tmp_path / 'index.html') as page:
        page.add('a.jpg', segmented)
    user = User(browser, tmp_path / 'index.html')
    user.ready('a.jpg')
    assert user.text('h1').startswith('Click a region')
    user.mode('patches')
    titles = [option.text for option in user.all('#layer option')]
    assert titles == ['Stage 1, block 2', 'Stage 3, block 1', 'Segmentation head']
    user.select('#layer', 'Segmentation head')
    user.at(20, 15).click().perform()  # in the first region
    shares = r'attends to classes tree \(50 %\), road \(3[78] %\), sky \(1[23] %\), car \(0 %\)'
    assert re.search(shares + r'\. Predicted: <b>cat</b>\.$', user.text('.answer'))
    assert user.text('.clusters').startswith('tree\n50 %')
