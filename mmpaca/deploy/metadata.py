"""What a runtime has to know about a file besides the graph, as strings in the file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpaca.version import __version__

from .images import model_reads_rgb
from .pipeline import Resize, Step

#: Version of the inputs, outputs and metadata of the files.
FORMAT = '1'
PREFIX = 'mmpaca.'


def describe_model(
    model: Any, config: str, classes: Sequence[str], task: str, steps: Sequence[Step]
) -> dict[str, str]:
    """Return the metadata of a file; every name gets the prefix ``mmpaca.``.

    Args:
        model: detector, classifier or segmentor.
        config: path of its config.
        classes: names of the labels.
        task: ``'detection'``, ``'instance'``, ``'classification'`` or ``'segmentation'``.
        steps: what the file does to an image before normalisation.
    """
    preprocessor = model.data_preprocessor
    entries = dict(
        format=FORMAT,
        version=__version__,
        config=Path(config).name,
        task=task,
        classes=json.dumps(list(classes)),
        scale=json.dumps(next((step.scale for step in steps if isinstance(step, Resize)), None)),
        channels='RGB' if model_reads_rgb(preprocessor) else 'BGR',
    )
    if preprocessor._enable_normalize:
        for name in ('mean', 'std'):
            values = getattr(preprocessor, name).flatten().tolist()
            entries[name] = json.dumps([float(f'{value:.6g}') for value in values])
    cfg = detection_cfg(model)
    if cfg is not None:
        entries['score_thr'] = str(cfg.get('score_thr', 0.0))
    if task == 'instance':
        entries['mask_thr'] = str(cfg.mask_thr_binary)
        entries['mask_type'] = 'box' if hasattr(model, 'roi_head') else 'image'
    return {PREFIX + name: value for name, value in entries.items()}


def detection_cfg(model: Any) -> Any:
    """Return the test config that has ``score_thr`` and ``max_per_img``; None for others."""
    if hasattr(model, 'roi_head'):
        return model.roi_head.test_cfg
    return getattr(model, 'test_cfg', None) if hasattr(model, 'bbox_head') else None
