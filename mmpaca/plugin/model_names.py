"""Models by name: ``DetInferencer('mask-rcnn_paca-s_1x_coco')`` after ``import mmpaca``."""

import importlib.util
from collections.abc import Iterator

from mmpaca.apis.configs import config_dir


def register_detectors() -> None:
    """Let mmdet's inferencers find the names in mmpaca's metafiles beside mmdet's own.

    They look into one package's model index, mmdet's unless told otherwise, and resolve the types
    in the config they find in that package's registry, so that another package's index is of no
    use. There is no hook to extend it: the reading of mmdet's index is wrapped, and of no other's.
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
                # Without weights in the metafile they are the caller's, as with a config's path.
                yield {'Weights': None, **model, 'Config': str(root / model['Config'])}

    BaseInferencer._get_models_from_metafile = staticmethod(with_ours)


def register_classifiers() -> None:
    """Make mmpaca's classifiers known to ``mmpretrain.get_model`` and its inferencers."""
    if importlib.util.find_spec('mmpretrain') is None:
        return
    from mmpretrain.apis.model import ModelHub

    configs = config_dir()
    if 'paca-s_8xb128_in1k' not in ModelHub._models_dict:
        ModelHub.register_model_index(configs / 'classification/metafile.yml', configs.parent)
