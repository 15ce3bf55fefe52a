"""Image files that are damaged, endless or too large are found before they do harm."""

import os

import cv2
import numpy as np
import pytest

from mmpaca.datasets.images import check_file, decode, is_outside, read_image

PICTURE = cv2.resize(
    np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8), (320, 240)
)


def jpeg(**options):
    flags = [
        v for name, value in options.items() for v in (getattr(cv2, f'IMWRITE_JPEG_{name}'), value)
    ]
    return cv2.imencode('.jpg', PICTURE, flags)[1].tobytes()


@pytest.mark.parametrize('progressive', [0, 1])
@pytest.mark.parametrize('optimized', [0, 1])
def test_damaged_jpegs_that_have_an_end(capfd, progressive, optimized):
    whole = jpeg(PROGRESSIVE=progressive, OPTIMIZE=optimized)
    half, end = len(whole) // 2, b'\xff\xd9'
    assert decode(whole).shape == (240, 320, 3)
    assert decode(whole + bytes(9000)).shape == (240, 320, 3)  # appended data is no damage
    damaged = dict(
        half=whole[:half] + end,
        gap=whole[:half] + whole[half + half // 2 :],
        zeros=whole[:half] + bytes(half) + end,
    )
    for content in damaged.values():
        with pytest.raises(ValueError, match='is a damaged JPEG file: Corrupt JPEG data: '):
            decode(content)
    assert not capfd.readouterr().err


def test_other_messages_still_reach_stderr(capfd, monkeypatch):
    def noisy(*args, **kwargs):
        os.write(2, b'somebody else\nCorrupt JPEG data: 3 extraneous bytes before marker 0xd9\n')
        return PICTURE

    monkeypatch.setattr('mmpaca.datasets.images.mmcv.imfrombytes', noisy)
    assert decode(jpeg()) is PICTURE
    assert capfd.readouterr().err == 'somebody else\n'


def test_files_that_never_end(tmp_path):
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'device.png').symlink_to('/dev/zero')
    (tmp_path / 'folder.png').mkdir()
    (tmp_path / 'loop.png').symlink_to('loop.png')
    with (tmp_path / 'sparse.png').open('wb') as file:
        file.truncate(2**40)
    for name in ('pipe', 'device', 'folder'):
        with pytest.raises(ValueError, match=f'{name}.png is not a file but a folder, a pipe or a'):
            read_image(tmp_path / f'{name}.png')
    with pytest.raises(OSError, match=r'loop\.png'):
        check_file(tmp_path / 'loop.png')
    with pytest.raises(ValueError, match='has 1099511627776 bytes, more than 1073741824'):
        check_file(tmp_path / 'sparse.png')


@pytest.mark.parametrize(
    ('name', 'outside'),
    [('a.png', 0), ('a/../b.png', 0), ('..a.png', 0), ('/etc/passwd', 1), ('../a', 1), ('a/../../b', 1)],
)  # fmt: skip
def test_names_that_lead_out_of_a_folder(name, outside):
    assert is_outside(name) == bool(outside)
