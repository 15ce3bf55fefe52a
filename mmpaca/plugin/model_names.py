"""Models by name: ``DetInferencer('mask-rcnn_paca-s_1x_coco')`` after ``import mmpaca``."""

import importlib.util
from collections.abc import Iterator

from mmpaca.apis.configs import config_dir

# Folder of the configs that a codebase's inferencers list; mmpretrain's index can be extended.
_FOLDERS = {'mmdet': 'configs/paca_vit/', 'mmseg': 'configs/segmentation/'}


def register_inferencer_names() -> None:
    """Make the names in mmpaca's metafiles known to mmdet's and mmseg's inferencers.

    An inferencer reads the model index of one package and resolves types in that package's
    registry, so an index of mmpaca's own would not do. There is no hook to extend their indexes:
    the function that reads them is wrapped, for these two only.
    """
    from mmengine.infer import BaseInferencer

    lookup = BaseInferencer._get_models_from_metafile
    if lookup.__module__ == __name__:  # wrapped already
        return

    def with_ours(folder: str) -> Iterator[dict]:
        yield from lookup(folder)
        ours = [
            prefix
            for scope, prefix in _FOLDERS.items()
            if importlib.util.find_spec(scope)
            and folder == BaseInferencer._get_repo_or_mim_dir(scope)
        ]
        root = config_dir().parent
        for model in lookup(str(root)):
            if model['Config'].startswith(tuple(ours)):
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
