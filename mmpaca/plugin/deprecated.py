"""Old names (0.1) in configs and scripts of users. Removed in 0.3."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from mmengine.registry import Registry

from mmpaca.registry import DATASETS, HOOKS, TRANSFORMS

_MODULES = {
    'mmpaca.checkpoint.official': 'mmpaca.models.official',
    'mmpaca.config_scope': 'mmpaca.plugin.config_scope',
    'mmpaca.datasets.cifar': 'mmpretrain.datasets',
    'mmpaca.datasets.digits': 'mmpaca.datasets.toy.digits',
    'mmpaca.datasets.shapes': 'mmpaca.datasets.toy.shapes',
    'mmpaca.datasets.tolerant': 'mmpaca.datasets.coco',
    'mmpaca.engine.bad_data_hook': 'mmpaca.engine.hooks.bad_data_hook',
    'mmpaca.engine.checkpoint_hook': 'mmpaca.engine.hooks.checkpoint_hook',
    'mmpaca.engine.cluster_record_hook': 'mmpaca.engine.hooks.cluster_record_hook',
    'mmpaca.engine.cluster_visualization_hook': 'mmpaca.engine.hooks.cluster_visualization_hook',
    'mmpaca.engine.continuing': 'mmpaca.engine.resumable_dataloader',
    'mmpaca.engine.evaluator_check_hook': 'mmpaca.engine.hooks.config_check_hook',
    'mmpaca.engine.finite_hook': 'mmpaca.engine.hooks.check_invalid_grad_hook',
    'mmpaca.engine.layer_decay': 'mmpaca.engine.optimizers.layer_decay_optimizer_constructor',
    'mmpaca.engine.neck_hook': 'mmpaca.engine.hooks.config_check_hook',
    'mmpaca.engine.resume_hook': 'mmpaca.engine.hooks.resume_hook',
    'mmpaca.engine.strict_load_hook': 'mmpaca.engine.hooks.strict_load_hook',
    'mmpaca.errors': 'mmpaca.apis.launch',
    'mmpaca.explain.inference': 'mmpaca.apis.inference',
    'mmpaca.explain.metric': 'mmpaca.evaluation.cluster_alignment_metric',
    'mmpaca.export': 'mmpaca.apis.export',
    'mmpaca.launch': 'mmpaca.apis.launch',
    'mmpaca.models.pretrained': 'mmpaca.models.fitting',
    'mmpaca.rng': 'mmpaca.engine.rng',
}
_CLASSES = {
    'BadDataHook': 'BadDataSummaryHook',
    'CheckpointHook': 'AtomicCheckpointHook',
    'CocoDataset': 'TolerantCocoDataset',
    'EvaluatorCheckHook': 'ConfigCheckHook',
    'FiniteHook': 'CheckInvalidGradHook',
    'LoadImageFromFile': 'LoadVerifiedImageFromFile',
    'LocalCIFAR100': 'CIFAR100',
    'NeckHook': 'ConfigCheckHook',
    'ResumeHook': 'ExactResumeHook',
}


def register_deprecated() -> None:
    """Make the old names of modules and registered classes work, with a DeprecationWarning."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.append(_Finder())
    for registry in (HOOKS, DATASETS, TRANSFORMS):
        for old, new in _CLASSES.items():
            if new in registry.module_dict:
                _register_alias(registry, old, registry.module_dict[new])


def _register_alias(registry: Registry, old: str, new: type) -> None:
    class Alias(new):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            _warn(f"type='mmpaca.{old}'", f"type='mmpaca.{new.__name__}'")
            super().__init__(*args, **kwargs)

    Alias.__name__ = Alias.__qualname__ = old
    registry.register_module(name=old, module=Alias)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import an old module as a proxy of the new one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _MODULES:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        new = importlib.import_module(_MODULES[module.__name__])
        _warn(f'the module {module.__name__}', new.__name__)

        def getattribute(name: str) -> object:
            return getattr(new, _CLASSES.get(name, name))

        module.__getattr__ = getattribute  # type: ignore[method-assign]


def _warn(old: str, new: str) -> None:
    warnings.warn(f'{old} is deprecated, use {new}', DeprecationWarning, stacklevel=3)
