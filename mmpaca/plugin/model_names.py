"""Models by name: ``DetInferencer('mask-rcnn_paca-s_1x_coco')`` after ``import mmpaca``."""

import importlib.util
from collections.abc import Iterator

from mmpaca.apis.configs import config_dir


def register_detectors() -> None:
    """Make the names in mmpaca's metafiles known to mmdet's inferencers.

    An inferencer reads the model index of one package and resolves types in that package's
    registry, so an index of mmpaca's own would not do. There is no hook to extend mmdet's index:
    the function that reads it is wrapped, for mmdet only.
    """
    from mmengine.infer import BaseInferencer

    lookup = BaseInferencer._get_models_from_metafile
    if lookup.__module__ == __name__:  # wrapped already
        return

    def with_ours(folder: str) -> Iterator[dict]:
        yield from lookup(folder)
        if folder != BaseInferencer._get_repo_or_mim_dir('mmdet'):
            return
        root = config_dir().parent
        for model in lookup(str(root)):
            if not model['Config'].startswith('configs/classification/'):
                # Without weights in the metafile the caller gives them, as for a config's path.
                yield {'Weights': None, **model, 'Config': str(root / model['Config'])}

    BaseInferencer._get_models_from_metafile = staticmethod(with_ours)


def register_classifiers() -> None:
    """Make mmpaca's classifiers known to ``mmpretrain.get_model`` and mmpretrain's inferencers."""
    if importlib.util.find_spec('mmpretrain') is None:
        return
    from mmpretrain.apis.model import ModelHub

    configs = config_dir()
    if 'paca-s_8xb128_in1k' not in ModelHub._models_dict:
        ModelHub.register_model_index(configs / 'classification/metafile.yml', configs.parent)
