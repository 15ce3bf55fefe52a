from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from mmpaca.datasets import write_digits


@pytest.fixture(scope='module')
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('digits')
    assert write_digits(folder) == dict(train=1347, test=450)
    return folder


def test_every_scan_is_in_one_part_with_its_label(digits):
    scans = load_digits()
    found = {int(p.stem): p for p in digits.rglob('*.png')}
    assert sorted(found) == list(range(1797)) and len(list(digits.rglob('*.png'))) == 1797
    for index, path in found.items():
        assert path.parent.name == str(scans.target[index])
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        assert np.abs(picture * (16 / 255) - scans.images[index]).max() < 0.04


def test_the_split_is_a_quarter_of_each_class_and_fixed(digits):
    for label in range(10):
        train, test = (len(list((digits / p / str(label)).iterdir())) for p in ('train', 'test'))
        assert abs(test - (train + test) / 4) < 1
    test = sorted(int(p.stem) for p in (digits / 'test').rglob('*.png'))
    assert test[:5] == [21, 24, 28, 34, 35]


def test_a_file_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / 'test/4/0024.png').mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write_digits(tmp_path)
