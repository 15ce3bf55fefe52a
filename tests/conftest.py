"""Shared by all tests: mmpaca comes first, and nothing reaches the network."""

import functools
import gc
import os
import sys
from pathlib import Path

# Tests fork processes, which fails once CUDA is up in this one: no test may see a GPU.
os.environ['CUDA_VISIBLE_DEVICES'] = ''

import pytest
import torch

import mmpaca  # noqa: F401  (before anything imports mmcv.ops)

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).parent))  # for `import official` and `import commands`

import shortcuts  # noqa: E402, F401

os.environ['no_proxy'] = '127.0.0.1,localhost'  # for servers that tests start

# The first backward pass of a process starts threads if torch knows of another device by then (its
# exporter registers one), and a process with such threads cannot be forked and train.
torch.ones(1, requires_grad=True).sum().backward()


# Files that take long: begun first, none of them keeps one process busy when the others have ended.
LONG = (
    'test_configs.py',
    'test_export.py',
    'test_export_command.py',
    'test_several_processes.py',
    'test_classification_tools.py',
    'test_model_index.py',
    'test_tools.py',
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files that take long to the front."""
    items.sort(key=lambda item: item.path.name not in LONG)


def pytest_collection_finish() -> None:
    """Keep what is imported by now: looking through it for garbage takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope='session')
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture
def run(tmp_path):
    """Run a command in a folder of its own."""
    from commands import run_in

    return functools.partial(run_in, tmp_path)


@pytest.fixture
def tool(tmp_path):
    """Run a script of ``tools/`` in that folder, without waiting for imports."""
    from commands import run_tool_in

    return functools.partial(run_tool_in, tmp_path)


@pytest.fixture
def python(run):
    """Run Python code in a fresh interpreter."""
    return lambda code, **kwargs: run(sys.executable, '-c', code, **kwargs)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory) -> Path:
    """A small generated dataset: 16 + 8 images of 64 pixels."""
    from mmpaca.datasets import write_shapes

    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes', 16, 8, image_size=64)


@pytest.fixture(scope='session')
def demo_weights(tmp_path_factory) -> Path:
    """A checkpoint of the demo's detector that finds something everywhere."""
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    cfg = Config.fromfile(ROOT / 'configs/demo/mask-rcnn_paca-demo_shapes.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    with torch.no_grad():
        model.roi_head.bbox_head.fc_cls.bias += torch.tensor([3.0, 0, 0, 0, 0])
    path = tmp_path_factory.mktemp('demo') / 'model.pth'
    meta = dict(dataset_meta=dict(classes=cfg.classes))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path
