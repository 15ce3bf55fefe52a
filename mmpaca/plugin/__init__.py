"""All that ``import mmpaca`` changes in other packages, and nothing else.

- mmcv's operators, where it has no compiled ones (:mod:`.operators`);
- mmpretrain's multi-modal models, where transformers is too new for them (:mod:`.multimodal`);
- the loaders of checkpoints in mmengine (:mod:`mmpaca.checkpoint.loading`);
- the scope ``mmpaca::`` of mmengine's configs (:mod:`.config_scope`);
- the reader of YAML files in mmengine (:mod:`.yaml_files`);
- how the results of an evaluation by several processes are gathered (:mod:`.result_gathering`);
- mmdet's DetInferencer, which goes on at a broken image (:mod:`.inferencers`);
- the names of models in the inferencers of mmdet, mmpretrain and mmseg (:mod:`.model_names`);
- entries in mmengine's registries (:mod:`mmpaca.registry`).
"""

import sys
from pathlib import Path

__all__ = ['install', 'is_command']


def install() -> None:
    """Register everything; a second call changes nothing.

    Raises:
        ImportError: see :func:`mmpaca.compat.check_versions`.
    """
    from mmpaca.compat import check_versions

    check_versions()  # a readable error before anything fails
    from . import operators

    operators.install()  # before mmcv.ops is imported
    from .multimodal import disable_multimodal

    disable_multimodal()  # before mmpretrain.models is
    from mmpaca import datasets, engine, evaluation, models  # noqa: F401  (they register)
    from mmpaca.checkpoint import loading  # noqa: F401  (registers, too)

    from .config_scope import register_config_scope
    from .deprecated import register_deprecated
    from .inferencers import register_tolerance
    from .model_names import register_classifiers, register_inferencer_names
    from .result_gathering import register_gathering
    from .yaml_files import register_yaml_reader

    register_config_scope()
    register_yaml_reader()
    register_gathering()
    register_tolerance()
    register_inferencer_names()
    register_classifiers()
    register_deprecated()


def is_command() -> bool:
    """Tell if this process is the command ``mmpaca`` or ``python -m mmpaca``.

    Read from the interpreter's own command line: workers that it spawns have another one.
    """
    program, *rest = sys.orig_argv[1:] or ['']
    return Path(program).stem == 'mmpaca' or [program, *rest[:1]] == ['-m', 'mmpaca']
