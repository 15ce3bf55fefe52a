"""The package in ``runtime/`` is not installed with mmpaca."""

import sys

import pytest
from commands import ROOT

sys.path.insert(0, str(ROOT / 'runtime'))


@pytest.fixture(scope='session')
def model(tmp_path_factory):
    """A file like those of `mmpaca export`, with two masks in boxes."""
    from handmade import write_model

    return write_model(tmp_path_factory.mktemp('handmade') / 'model.onnx')
