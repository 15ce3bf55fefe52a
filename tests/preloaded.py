"""Imported by the server that forks the processes of tools: what would take each of them seconds."""

import gc
import importlib
import importlib.util
from pathlib import Path

import shortcuts  # noqa: F401
from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parent.parent / 'configs/demo'

for name in (
    'mmpaca.apis.launch',
    'mmpaca.engine',
    'mmpaca.datasets.coco',
    'mmdet.apis',
    'mmdet.engine',
    'mmdet.evaluation',
    'mmdet.models',
    'mmpretrain.apis',
    'mmpretrain.models',
    'matplotlib.pyplot',
    'torch._dynamo',
):
    importlib.import_module(name)
if importlib.util.find_spec('mmseg'):
    importlib.import_module('mmseg.apis')
for name in ('mask-rcnn_paca-demo_shapes', 'paca-demo_digits'):
    Config.fromfile(CONFIGS / f'{name}.py')  # the metafiles of their bases are read once
gc.collect()
gc.freeze()  # no process looks through all this for garbage
