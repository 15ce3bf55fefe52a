"""mmpretrain beside a transformers package that its multi-modal models do not know."""

import importlib.metadata

import pytest
from mmengine.registry import Registry
from mmpretrain.utils import dependency

from mmpaca.plugin.multimodal import disable_multimodal


@pytest.fixture
def with_transformers(monkeypatch):
    """Pretend that a version of transformers is installed, and call."""

    def pretend(version):
        monkeypatch.setattr(dependency, 'WITH_MULTIMODAL', True)
        register = dependency.register_multimodal_placeholder
        monkeypatch.setattr(dependency, 'register_multimodal_placeholder', register)
        monkeypatch.setattr(importlib.metadata, 'version', lambda name: version)
        disable_multimodal()

    return pretend


@pytest.mark.parametrize('version', ['4.52.0', '5.24.0'])
def test_newer_versions_leave_a_name_with_a_remedy(with_transformers, version):
    with_transformers(version)
    assert dependency.WITH_MULTIMODAL is False
    registry = Registry('models')
    dependency.register_multimodal_placeholder(['BlipVQA'], registry)
    with pytest.raises(ImportError, match=f"BlipVQA.* {version}: pip install 'transformers<4.52'"):
        registry.build(dict(type='BlipVQA'))


def test_versions_that_work_are_left_alone(with_transformers):
    with_transformers('4.51.3')
    assert dependency.WITH_MULTIMODAL is True
