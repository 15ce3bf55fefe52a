"""The module at ``mmcv._ext``: when it is ours, what it answers, what it refuses."""

import importlib
import importlib.machinery
import pkgutil
import re
import sys
import types
import warnings

import mmcv
import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from torch import nn

from mmpaca.ops import SERVED
from mmpaca.plugin import operators


def test_install_is_idempotent():
    module = sys.modules['mmcv._ext']
    assert isinstance(module, operators.TorchvisionExt)
    assert operators.install() is True
    assert sys.modules['mmcv._ext'] is module


def test_import_and_spec():
    assert importlib.import_module('mmcv._ext') is sys.modules['mmcv._ext']
    spec = importlib.util.find_spec('mmcv._ext')
    assert (spec.name, spec.origin) == ('mmcv._ext', 'mmpaca.plugin.operators')
    # what mmengine asks; deprecated in Python 3.12
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)
        assert pkgutil.find_loader('mmcv._ext') is spec.loader
    # our module is not taken for a compiled one
    assert operators.compiled_ext() is None


def test_attribute_of_mmcv_is_set(monkeypatch):
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    monkeypatch.setattr(mmcv, '_ext', None, raising=False)
    assert operators.install() is True
    assert mmcv._ext is sys.modules['mmcv._ext']


def test_every_served_name_exists():
    for name, home in SERVED.items():
        kernel = getattr(importlib.import_module(f'mmpaca.ops.{home}'), name)
        assert callable(kernel) and kernel.__doc__, name


def test_unserved_operator_raises_when_called():
    ext = sys.modules['mmcv._ext']
    assert hasattr(ext, 'border_align_forward')
    remedy = 'tools/dev/build_mmcv.sh'
    with pytest.raises(NotImplementedError, match=rf"'border_align_forward'.*{re.escape(remedy)}"):
        ext.border_align_forward(torch.zeros(1))


def test_unserved_operator_through_mmcv():
    from mmcv.ops import nms_rotated

    with pytest.raises(NotImplementedError, match="'nms_rotated'"):
        nms_rotated(torch.zeros(1, 5), torch.zeros(1), 0.5)


@pytest.mark.parametrize('name', ['__path__', '__wrapped__', '__all__', '_repr_html_'])
def test_underscore_names_are_absent(name):
    with pytest.raises(AttributeError, match=name):
        getattr(sys.modules['mmcv._ext'], name)


def test_kernel_replaces_its_placeholder():
    module = operators.TorchvisionExt('probe')
    placeholder = module.nms
    assert placeholder.__name__ == 'nms'
    assert placeholder(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).shape == (0,)
    from mmpaca.ops.nms import nms

    assert module.nms is nms


def test_somebody_elses_module_stays(monkeypatch):
    other = types.ModuleType('mmcv._ext')
    monkeypatch.setitem(sys.modules, 'mmcv._ext', other)
    assert operators.install() is False
    assert sys.modules['mmcv._ext'] is other


def test_namespace_folder_is_not_an_extension(monkeypatch, tmp_path):
    (tmp_path / '_ext').mkdir()
    monkeypatch.setattr(mmcv, '__path__', [*mmcv.__path__, str(tmp_path)])
    monkeypatch.setattr(mmcv, '_ext', None, raising=False)
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    assert operators.install() is True


def test_compiled_extension_found_by_any_finder(monkeypatch):
    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == 'mmcv._ext':
                return importlib.machinery.ModuleSpec(name, object())
            return None

    monkeypatch.setattr(sys, 'meta_path', [*sys.meta_path, Finder])
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    assert operators.install() is False
    assert 'mmcv._ext' not in sys.modules


def test_without_mmcv(run_python):
    out = run_python("""
from importlib.machinery import PathFinder
sys.meta_path.remove(PathFinder)  # it searches sys.path
print(shim.install(), 'mmcv._ext' in sys.modules)
""")
    assert out.split() == ['False', 'False']


def test_real_extension_is_left_alone(run_python, tmp_path):
    (tmp_path / '_ext.py').write_text('def nms(): return "compiled"\n')
    out = run_python(
        """
import mmcv
mmcv.__path__.append(sys.argv[1])
print(shim.install())
import mmcv._ext
print(mmcv._ext.nms())
""",
        str(tmp_path),
    )
    assert out.split() == ['False', 'compiled']


def test_broken_extension_raises_its_own_error(run_python, tmp_path):
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (tmp_path / f'_ext{suffix}').write_bytes(b'not a shared object')
    out = run_python(
        """
import mmcv
mmcv.__path__.append(sys.argv[1])
print(shim.install())
try:
    import mmcv.ops
except ImportError as error:
    print(type(error).__name__, error)
""",
        str(tmp_path),
    )
    first, second = out.splitlines()
    assert first == 'False'
    assert second.startswith('ImportError') and f'_ext{suffix}' in second


def test_install_imports_nothing(run_python):
    out = run_python("""
print(shim.install(), 'torchvision' in sys.modules, 'torch' in sys.modules, 'mmcv' in sys.modules)
""")
    assert out.split() == ['True', 'False', 'False', 'False']


def test_mmcv_ops_and_mmdet_models_import(run_python):
    out = run_python("""
assert shim.install()
import mmcv.ops
print('torchvision' in sys.modules)
import mmdet.models
import torch
boxes = torch.tensor([[0., 0., 10., 10.], [1., 1., 10., 10.], [20., 20., 30., 30.]])
print(mmcv.ops.nms(boxes, torch.tensor([.5, .9, .1]), 0.5)[1].tolist())
""")
    # mmcv.ops alone loads no kernel
    assert out.splitlines() == ['False', '[1, 2]']


def test_environment_report():
    import torchvision
    from mmcv.utils.env import collect_env

    report = collect_env()
    assert report['MMCV Compiler'].startswith('not compiled')
    assert f'torchvision {torchvision.__version__}' in report['MMCV Compiler']
    cuda = report['MMCV CUDA Compiler']
    expected = torch.version.cuda if torchvision.version.cuda else 'not available'
    assert cuda.startswith(expected) and 'torchvision' in cuda


@pytest.mark.parametrize(
    ('recorded', 'reported'),
    [
        (13000, '13.0 (of torchvision)'),
        (12060, '12.6 (of torchvision)'),
        ('12.8', '12.8 (of torchvision)'),
        (None, 'not available: torchvision is built without CUDA'),
    ],
)
def test_cuda_version(monkeypatch, recorded, reported):
    import torchvision

    from mmpaca.ops.info import get_compiling_cuda_version

    monkeypatch.setattr(torchvision.version, 'cuda', recorded)
    assert get_compiling_cuda_version() == reported


def test_revert_sync_batchnorm(monkeypatch):
    from mmcv.ops import SyncBatchNorm

    # mmcv's layer asks for the size of the process group when it is built
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda group=None: 1)

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4), nn.Sequential(SyncBatchNorm(4), nn.ReLU())
    )
    for norm in (model[1], model[2][0]):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 5, 5)
    expected = model[0](x)
    for norm in (model[1], model[2][0]):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        shift = norm.bias - norm.running_mean * scale
        expected = expected * scale[:, None, None] + shift[:, None, None]
    reverted = revert_sync_batchnorm(model).eval()
    kinds = {type(module).__name__ for module in reverted.modules()}
    assert kinds == {'Sequential', 'Conv2d', '_BatchNormXd', 'ReLU'}
    torch.testing.assert_close(reverted(x), expected.relu())
