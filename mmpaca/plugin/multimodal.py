"""mmpretrain beside a transformers package that is newer than its multi-modal models."""

import importlib.metadata
import importlib.util
from collections.abc import Callable

from mmengine.registry import Registry
from mmengine.utils import digit_version

# mmpretrain 1.2 takes GenerationMixin from transformers.modeling_utils, where it was until 4.51.
_FIRST_WITHOUT = '4.52'


def disable_multimodal() -> None:
    """Keep mmpretrain from importing its multi-modal models where that would fail.

    It imports them wherever transformers is installed, and if they fail so does all of mmpretrain.
    Their names stay in the registry: building one is an error that names the remedy.
    """
    if importlib.util.find_spec('mmpretrain') is None:
        return
    try:
        version = importlib.metadata.version('transformers')
    except importlib.metadata.PackageNotFoundError:
        return
    if digit_version(version) < digit_version(_FIRST_WITHOUT):
        return
    from mmpretrain.utils import dependency

    def register_placeholders(names: list[str], registry: Registry) -> None:
        for name in names:
            registry.register_module(name=name, module=_placeholder(name, version))

    dependency.WITH_MULTIMODAL = False
    dependency.register_multimodal_placeholder = register_placeholders


def _placeholder(name: str, version: str) -> Callable:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ImportError(
            f'{name} of mmpretrain does not run with transformers {version}: '
            f"pip install 'transformers<{_FIRST_WITHOUT}'"
        )

    return refuse
