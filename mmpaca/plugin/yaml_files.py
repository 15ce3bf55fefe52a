"""YAML files are data: reading one builds plain values only.

mmengine reads YAML, configs among it, with PyYAML's loader for trusted files, which calls any Python
function that a tag names (``!!python/object/apply:os.system``).
"""

from typing import IO, Any

import yaml  # type: ignore[import-untyped]
from mmengine.fileio import register_handler
from mmengine.fileio.handlers.yaml_handler import YamlHandler

__all__ = ['register_yaml_reader']


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader, and tuples, as mmengine writes them."""


_PlainLoader.add_constructor(
    'tag:yaml.org,2002:python/tuple',
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


class _PlainYamlHandler(YamlHandler):
    def load_from_fileobj(self, file: IO, **kwargs: Any) -> Any:
        """Read a file.

        Raises:
            yaml.YAMLError: it is no YAML, or has Python objects; the error names the line and the tag.
        """
        return super().load_from_fileobj(file, **{'Loader': _PlainLoader} | kwargs)


def register_yaml_reader() -> None:
    """Register the reader for ``.yaml`` and ``.yml`` with mmengine."""
    register_handler(['yaml', 'yml'])(_PlainYamlHandler)
