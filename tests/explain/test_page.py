"""The page in a browser: what is drawn, after what a user does."""

import base64
import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mmpaca.explain.html_page import Page, pool, scene_data
from mmpaca.explain.pictures import PALETTE

ORANGE, BLUE = PALETTE[0].tolist(), PALETTE[1].tolist()
YELLOW, DARK = [254, 232, 56], [0, 34, 78]  # the ends of cividis


def test_data_is_small_and_comes_back(scene):
    data = scene_data('a', scene, map_cells=20)
    block = data['blocks'][0]
    assert (block['rows'], block['columns'], block['cell']) == (16, 20, [0, 0, 4, 4])
    stored = np.frombuffer(base64.b64decode(block['attention']), np.uint8).reshape(2, 320, 4)
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
        page.add('Käfer.jpg', scene)
    text = (tmp_path / 'index.html').read_bytes().decode('utf-8')
    assert not re.search(r'(src|href)="(?!data:)|@import|https?://|url\(', text)
    scripts = re.findall(r'<script type="application/json".*?>(.*?)</script>', text, re.S)
    names = [json.loads(script)['name'] for script in scripts]
    assert names == ['a.jpg', '</script>.jpg', 'Käfer.jpg']
    assert '/* PALETTE */' not in text and '<!-- SCENES -->' not in text
    with pytest.raises(ValueError, match='map_cells=0'):
        Page(tmp_path / 'index.html', 0)


@pytest.fixture
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


def test_in_a_browser(scene, tmp_path, browser):
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    with Page(tmp_path / 'index.html') as page:
        page.add('first.jpg', scene)
        page.add('second.jpg', scene.only_stages([3]))
    browser.get((tmp_path / 'index.html').as_uri())
    wait = WebDriverWait(browser, 60)
    find = lambda name: browser.find_element(By.ID, name)  # noqa: E731
    ready = lambda name: wait.until(lambda b: b.execute_script('return document.body.dataset.ready') == name)  # noqa: E731 # fmt: skip
    ready('first.jpg')
    view = find('view')

    def opaque(value: float) -> None:
        browser.execute_script(
            "const o = document.getElementById('opacity'); o.value = arguments[0];"
            "o.dispatchEvent(new Event('input'))",
            value,
        )

    def pixel(x: float, y: float) -> list[int]:
        """Colour on the canvas at a pixel of the image."""
        return browser.execute_script(
            'const v = arguments[0], s = v.width / 80;'
            "return [...v.getContext('2d').getImageData(arguments[1] * s, arguments[2] * s, 1, 1).data]",
            view, x, y,
        )[:3]  # fmt: skip

    def move_to(x: float, y: float) -> ActionChains:
        size = view.size
        return ActionChains(browser).move_to_element_with_offset(
            view, (x / 80 - 0.5) * size['width'], (y / 60 - 0.5) * size['height']
        )

    def near(colour: list[int], expected: list[int]) -> bool:
        return np.abs(np.subtract(colour, expected)).max() <= 3

    def shares(count: int) -> dict[int, int]:
        """Percent by cluster, of the first clusters listed for a patch."""
        items = find('clusters').find_elements(By.TAG_NAME, 'li')
        return {
            int(cluster): int(percent)
            for cluster, percent in re.findall(
                r'cluster (\d+): (\d+) %', '\n'.join(item.text for item in items[:count])
            )
        }

    # Loaded: every patch's strongest cluster, in the order of attention received.
    opaque(1)
    order = scene.blocks[0].received()[0].argsort(descending=True).tolist()
    quarters = {0: (38, 28), 1: (42, 2), 2: (2, 58), 3: (42, 33)}
    for cluster, point in quarters.items():
        assert near(pixel(*point), PALETTE[order.index(cluster)].tolist()), cluster
    assert near(pixel(2, 59), pixel(2, 58))  # padding is not on the image
    assert 'attends to patches' in find('left-out').text and 'Stage 4' in find('left-out').text
    opaque(0)
    assert near(pixel(38, 28), [100] * 3)
    opaque(0.5)
    half = (PALETTE[order.index(0)].astype(float) + 100) / 2
    assert near(pixel(38, 28), half.tolist())

    # Hover a patch: its clusters and their extent. Mean of two heads: 0.375, 0.125 and 0.5.
    opaque(1)
    move_to(2, 28).perform()
    assert 'row 8, column 1' in find('status').text
    assert shares(3) == {4: pytest.approx(50), 1: pytest.approx(37.5, abs=1), 2: pytest.approx(12.5, abs=1)}  # fmt: skip
    assert near(pixel(42, 33), ORANGE) and near(pixel(38, 28), BLUE)
    Select(find('head')).select_by_visible_text('1')
    assert shares(2) == {1: 75, 2: 25}
    assert near(pixel(38, 28), ORANGE) and near(pixel(42, 2), BLUE)

    # Click a detection: where its patches looked, with this head mostly in their own quarter.
    move_to(20, 15).click().perform()
    assert '<b>cat</b> (0.90)' in find('status').text
    assert near(pixel(38, 28), YELLOW) and near(pixel(42, 33), DARK)
    Select(find('head')).select_by_visible_text('2')
    assert near(pixel(38, 28), DARK) and near(pixel(42, 33), YELLOW)
    buttons = find('detections').find_elements(By.TAG_NAME, 'button')
    assert [b.get_attribute('aria-pressed') for b in buttons] == ['true', 'false']

    # Change the stage: the same detection there; the cluster is one column of 8 pixels.
    Select(find('stage')).select_by_visible_text('3')
    assert near(pixel(44, 33), YELLOW) and near(pixel(52, 33), DARK) and near(pixel(38, 33), DARK)

    # With the keyboard alone.
    view.send_keys(Keys.ESCAPE)
    assert 'strongest cluster' in find('status').text
    view.send_keys(Keys.ARROW_UP, Keys.ARROW_LEFT)
    assert 'row 5, column 5' in find('status').text
    view.send_keys(*[Keys.ARROW_LEFT] * 9)  # stops at the border
    assert 'row 5, column 1' in find('status').text
    view.send_keys(*[Keys.ARROW_UP] * 2, *[Keys.ARROW_RIGHT] * 2, Keys.ENTER)
    assert 'relevant' in find('status').text
    buttons[1].send_keys(Keys.ENTER)
    assert 'dog (0.50)' in find('status').text

    # Another image; a phone's width needs no sideways scrolling.
    Select(find('image')).select_by_visible_text('second.jpg')
    ready('second.jpg')
    assert [o.text for o in Select(find('stage')).options] == ['3']
    browser.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        dict(width=360, height=740, deviceScaleFactor=2, mobile=True),
    )
    assert browser.execute_script('return document.documentElement.scrollWidth') <= 360
    # Only this test reads the canvas, which Chromium remarks upon.
    log = [entry for entry in browser.get_log('browser') if 'getImageData' not in entry['message']]
    assert log == []


def test_classes_of_a_segmentor_in_a_browser(scene, tmp_path, browser):
    """The head's clusters have the names of classes; a click keeps the patch, not a box."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select, WebDriverWait

    head = replace(scene.blocks[0], stage=4, block=0, is_head=True)
    classes = ('road', 'sky', 'car', 'tree')
    blocks = [*scene.blocks, head]
    segmented = replace(scene, blocks=blocks, classes=classes, is_segmented=True)
    with Page(tmp_path / 'index.html') as page:
        page.add('a.jpg', segmented)
    browser.get((tmp_path / 'index.html').as_uri())
    ready = 'return document.body.dataset.ready'
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(ready) == 'a.jpg')
    stage = Select(browser.find_element(By.ID, 'stage'))
    assert [option.text for option in stage.options] == ['1', '3', 'segmentation head']
    stage.select_by_visible_text('segmentation head')
    view, status = (browser.find_element(By.ID, name) for name in ('view', 'status'))
    assert status.text.startswith('Segmentation head') and 'strongest class' in status.text
    size = view.size
    at = (20 / 80 - 0.5) * size['width'], (15 / 60 - 0.5) * size['height']  # in the first region
    ActionChains(browser).move_to_element_with_offset(view, *at).click().perform()
    shares = r'attends to classes tree \(50 %\), road \(3[78] %\), sky \(1[23] %\), car \(0 %\)'
    assert re.search(shares + r'\. Predicted: <b>cat</b>\.$', status.text)
    assert browser.find_element(By.ID, 'clusters').text.startswith('tree: 50 %')
