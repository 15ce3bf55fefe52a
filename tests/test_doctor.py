"""``mmpaca doctor`` in environments that are broken, each in its own way."""

import importlib.machinery
import os
import signal
import sys
import warnings
from pathlib import Path

import mmcv
import pytest
import torch
from commands import ROOT
from torch import nn

import mmpaca
from mmpaca import compat, plugin
from mmpaca.doctor import installed, live
from mmpaca.doctor.report import NOTE, OK, WRONG, Finding
from mmpaca.doctor.symptoms import explain, last_error

CPU = torch.device('cpu')


def install(folder: Path, package: str, version: str, *requires: str) -> None:
    """Record a package as pip would, before all others on a path that begins with folder."""
    record = folder / f'{package.replace("-", "_")}-{version}.dist-info/METADATA'
    record.parent.mkdir(parents=True)
    lines = [f'Name: {package}', f'Version: {version}', *(f'Requires-Dist: {r}' for r in requires)]
    record.write_text('Metadata-Version: 2.1\n' + '\n'.join(lines) + '\n')


def module(folder: Path, name: str, code: str) -> None:
    """Put a module before all others of its name."""
    (folder / name).mkdir()
    (folder / name / '__init__.py').write_text(code)


@pytest.fixture(autouse=True)
def no_driver(monkeypatch, tmp_path):
    """A GPU of this machine that its torch cannot use is none of the faults tested here."""
    (tmp_path / 'no_driver').mkdir()
    (tmp_path / 'no_driver/nvidia-smi').write_text('#!/bin/sh\nexit 9\n')
    (tmp_path / 'no_driver/nvidia-smi').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path / 'no_driver'), prepend=os.pathsep)


@pytest.fixture
def doctor(run, tmp_path):
    """Run it with tmp_path first on the path of modules; output without the table, by line."""

    def run_doctor(*command, ok: bool) -> list[str]:
        command = command or ('-m', 'mmpaca', 'doctor')
        path = os.pathsep.join((str(tmp_path), str(ROOT)))
        printed = run(sys.executable, *command, ok=ok, PYTHONPATH=path)
        table, _, findings = printed.partition('\n\n')
        assert f'mmpaca: {mmpaca.__version__}' in table.splitlines()
        assert 'Traceback' not in printed
        return findings.splitlines()

    return run_doctor


def test_all_is_well(doctor):
    findings = doctor(ok=True)
    assert findings[-1] == 'all is well'
    assert not [line for line in findings if line.startswith(WRONG)]
    names = [line.split(':')[0].split(maxsplit=1)[-1] for line in findings[:-2]]
    looked_at = ['import mmpaca', 'torchvision', 'operators', 'configs', 'CUDA', 'cpu NMS']
    looked_at += ['cpu RoIAlign', 'cpu backbone, float32', 'cpu backbone, bfloat16']
    assert [name for name in names if name in looked_at] == looked_at


# Faults are made by adding to the installation that is there.
on_reference_stack = pytest.mark.skipif(
    not {'mmengine', 'mmcv-lite'}
    <= {*installed.installed('mmengine'), *installed.installed('mmcv')},
    reason='a fault of mmengine with mmcv-lite',
)


@on_reference_stack
@pytest.mark.parametrize('command', [['-m', 'mmpaca', 'doctor'], ['bin/mmpaca', 'doctor']])
def test_wrong_versions(doctor, tmp_path, command):
    """All of them are named, however it is called; nothing is imported."""
    (tmp_path / 'bin').mkdir()  # what pip makes of the entry point
    script = 'import sys\nfrom mmpaca.__main__ import main\nsys.exit(main())\n'
    (tmp_path / 'bin/mmpaca').write_text(script)
    install(tmp_path, 'mmcv-lite', '1.7.2')
    install(tmp_path, 'mmdet', '2.28.2')
    module(tmp_path, 'torch', 'raise SystemExit("torch was imported")')
    findings = doctor(*command, ok=False)
    assert [line for line in findings if line.startswith(WRONG)] == [
        'WRONG  mmcv: mmpaca needs mmcv >=2.0.0,<2.4.0 and found 1.7.2; '
        'run: pip install mmcv-lite==2.1.0',
        'WRONG  mmdet: mmpaca needs mmdet >=3.3.0,<4.0 and found 2.28.2; '
        'run: pip install mmdet==3.3.0',
    ]
    assert findings[-1] == '2 wrong'


@pytest.mark.parametrize(
    ('torch_code', 'sentence'),
    [
        (
            'raise ImportError("libcudart.so.13: cannot open shared object file")',
            'WRONG  import mmpaca: torch and its CUDA libraries do not match (ImportError: '
            'libcudart.so.13: cannot open shared object file); '
            'run: pip install --force-reinstall torch torchvision',
        ),
        (
            'import a_missing_package',
            'WRONG  import mmpaca: a_missing_package is missing (ModuleNotFoundError: No module '
            "named 'a_missing_package'); run: pip install a_missing_package",
        ),
        (
            f'import os; os.kill(os.getpid(), {signal.SIGSEGV})',
            'WRONG  import mmpaca: Python died of SIGSEGV: compiled packages are incompatible; '
            'run: pip install --force-reinstall torch torchvision',
        ),
        (
            '__version__ = "2.1.0"',  # not what its record says
            'WRONG  import mmpaca: mmpaca needs torch >=2.6 and found 2.1.0; '
            'run: pip install torch torchvision',
        ),
    ],
)
def test_mmpaca_cannot_be_imported(doctor, tmp_path, torch_code, sentence):
    module(tmp_path, 'torch', torch_code)
    findings = doctor(ok=False)
    assert findings[-3:] == [sentence, '', '1 wrong']


def test_an_ordinary_import_still_refuses(run, tmp_path):
    module(tmp_path, 'torch', '__version__ = "2.1.0"')
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    printed = run(sys.executable, '-c', 'import mmpaca', 'doctor', ok=False, PYTHONPATH=path)
    assert printed.splitlines()[-1].startswith('ImportError: mmpaca needs torch >=2.6')


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(sys, 'version_info', (3, 9, 18))
    with pytest.raises(ImportError, match=r'needs Python >=3.10 and this is 3.9; run: python3.11'):
        compat.check_versions()


@pytest.mark.parametrize(
    ('called', 'is_command'),
    [
        ('python -m mmpaca doctor', True),
        ('/env/bin/python /env/bin/mmpaca doctor', True),
        (r'python mmpaca.exe doctor', True),
        ('python tools/train.py doctor', False),
        ('python -m pytest mmpaca', False),
        ('python', False),
    ],
)
def test_the_command_is_told_from_an_import(monkeypatch, called, is_command):
    monkeypatch.setattr(sys, 'orig_argv', called.split())
    assert plugin.is_command() is is_command


@on_reference_stack
@pytest.mark.parametrize(
    ('packages', 'finding'),
    [
        (
            {'mmcv': '2.1.0', 'mmcv-lite': '2.1.0'},
            Finding(
                'mmcv', WRONG, "mmcv 2.1.0 and mmcv-lite 2.1.0 overwrite each other's files; "
                'run: pip uninstall -y mmcv mmcv-lite && pip install mmcv-lite==2.1.0'
            ),
        ),
        (
            {'opencv-python': '5.0', 'opencv-python-headless': '4.9'},
            Finding(
                'cv2', NOTE, 'opencv-python 5.0 and opencv-python-headless 4.9 overwrite each '
                "other's files; run: pip uninstall -y opencv-python opencv-python-headless && "
                'pip install opencv-python'
            ),
        ),
        (
            {'onedl-mmdetection': '3.5.1'},
            Finding(
                'onedl-mmdetection', NOTE, '3.5.1 is a fork that is tested less; run: '
                'pip uninstall -y onedl-mmdetection && pip install mmdet==3.3.0'
            ),
        ),
        (
            {'torch': '2.6.0', 'torchvision': '0.20.1'},
            Finding(
                'torchvision', WRONG, '0.20.1 needs torch ==2.5.1 and found 2.6.0; '
                'run: pip install torch==2.6.0 torchvision'
            ),
        ),
    ],
)  # fmt: skip
def test_conflicts(monkeypatch, tmp_path, packages, finding):
    assert finding not in list(installed.check_conflicts())
    for name, version in packages.items():
        install(tmp_path, name, version, *(['torch ==2.5.1'] if name == 'torchvision' else []))
    monkeypatch.syspath_prepend(tmp_path)
    assert finding in list(installed.check_conflicts())


class Hide:
    """Finds nothing by some names, as if it was not installed."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)


@on_reference_stack
def test_without_pkg_resources(monkeypatch):
    assert live.check_configs().endswith('a MaskRCNN on PaCaViT')
    real = installed.importlib.util.find_spec
    monkeypatch.delitem(sys.modules, 'pkg_resources', raising=False)
    monkeypatch.setattr(sys, 'meta_path', [Hide('pkg_resources'), *sys.meta_path])
    monkeypatch.setattr(
        installed.importlib.util, 'find_spec', lambda n: None if n == 'pkg_resources' else real(n)
    )
    remedy = "; run: pip install 'setuptools<80.9'"
    found = [one for one in installed.check_conflicts() if one.name == 'setuptools']
    assert [one.level for one in found] == [WRONG] and found[0].text.endswith(remedy)
    running = live._run('configs', live.check_configs)
    assert running.level == WRONG and running.text.endswith(remedy)

    # The fork of mmengine needs none.
    monkeypatch.setattr(installed, 'PROVIDERS', {**installed.PROVIDERS, 'mmengine': ()})
    assert 'setuptools' not in [one.name for one in installed.check_conflicts()]


@on_reference_stack
def test_mmcv_without_or_with_broken_operators(monkeypatch, tmp_path):
    install(tmp_path, 'mmcv', '2.1.0')
    monkeypatch.setattr(installed, 'PROVIDERS', {**installed.PROVIDERS, 'mmcv': ('mmcv',)})
    monkeypatch.syspath_prepend(tmp_path)
    (note,) = (one for one in installed.check_conflicts() if one.name == 'mmcv')
    assert note.level == NOTE and 'built without operators' in note.text
    assert 'from torchvision' in live.operator_sources()

    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (tmp_path / f'_ext{suffix}').write_bytes(b'not a shared object')
    monkeypatch.setattr(mmcv, '__path__', [*mmcv.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    finding = live._run('operators', live.operator_sources)
    assert finding.level == WRONG
    assert finding.text.startswith("mmcv's compiled operators do not load")
    assert 'run: pip uninstall -y mmcv && pip install mmcv-lite==2.1.0' in finding.text
    assert 'tools/dev/build_mmcv.sh' in finding.text
    assert 'mmcv' not in [one.name for one in installed.check_conflicts()]


def test_torchvision_of_another_torch(monkeypatch, tmp_path):
    module(
        tmp_path, 'torchvision', 'raise RuntimeError("operator torchvision::nms does not exist")'
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'torchvision')
    finding = live._run('torchvision', live.check_torchvision)
    assert finding == Finding(
        'torchvision', WRONG, 'torchvision was built for another torch (RuntimeError: operator '
        'torchvision::nms does not exist); run: pip install --force-reinstall torch torchvision'
    )  # fmt: skip


@pytest.mark.parametrize(
    ('built_for', 'error', 'level', 'text'),
    [
        (None, '', WRONG, 'is built without CUDA and cannot use A100 (driver 450.1); run: pip'),
        ('13.0', 'The NVIDIA driver on your system is too old', WRONG, 'run: sudo ubuntu-drivers'),
        ('13.0', 'No CUDA GPUs are available', WRONG, 'run: unset CUDA_VISIBLE_DEVICES'),
    ],
)
def test_a_gpu_that_torch_cannot_use(monkeypatch, tmp_path, built_for, error, level, text):
    (tmp_path / 'nvidia-smi').write_text('#!/bin/sh\necho "A100, 450.1"\n')
    (tmp_path / 'nvidia-smi').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)

    def init():
        raise RuntimeError(error)

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.cuda, 'init', init)
    monkeypatch.setattr(torch.version, 'cuda', built_for)
    finding = live.check_cuda()
    assert finding.level == level and text in finding.text


def test_no_gpu_is_no_fault(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert live.check_cuda().level == NOTE


def test_a_wrong_nms(monkeypatch):
    assert live.check_nms(CPU)
    monkeypatch.setattr(
        mmcv.ops, 'nms', lambda boxes, scores, iou_threshold: (boxes, scores.argsort())
    )
    with pytest.raises(
        live.WrongNumbersError, match=r'keeps boxes \[2, 3, 1, 0\] instead of \[0, 3, 2\]'
    ):
        live.check_nms(CPU)


@pytest.mark.parametrize('what', ['forward', 'backward'])
def test_a_wrong_roi_align(monkeypatch, what):
    assert live.check_roi_align(CPU)
    right = mmcv.ops.roi_align

    def wrong(plane, *args):
        if what == 'forward':
            return right(plane, *args[:-1], False)  # half a pixel aside
        return right(plane, *args).detach() + 0 * plane.sum()

    monkeypatch.setattr(mmcv.ops, 'roi_align', wrong)
    with pytest.raises(live.WrongNumbersError, match='is off by'):
        live.check_roi_align(CPU)


@pytest.mark.parametrize('fault', [0.2, float('nan')])
def test_a_wrong_backbone(monkeypatch, fault):
    """A layer that errs in float32, but not in the float64 of the reference."""
    assert 'off by' in live.check_backbone(CPU, torch.float32)
    right = nn.functional.linear
    monkeypatch.setattr(
        nn.functional,
        'linear',
        lambda x, *a: right(x, *a) + (fault if x.dtype == torch.float32 else 0),
    )
    with pytest.raises(live.WrongNumbersError, match='outputs and gradients are off by'):
        live.check_backbone(CPU, torch.float32)


@pytest.mark.parametrize(
    ('said', 'remedy'),
    [
        (
            'ImportError: libGL.so.1: cannot open shared object',
            'pip install opencv-python-headless',
        ),
        ('ValueError: numpy.dtype size changed, may indicate', "'numpy<2'"),
        ('RuntimeError: CUDA error: no kernel image is available', 'torch torchvision'),
        ("ModuleNotFoundError: No module named 'cv2'", 'run: pip install opencv-python'),
        ('ValueError: nobody knows', 'please report it'),
    ],
)
def test_symptoms(said, remedy):
    assert said in explain(said) and remedy in explain(said)


def test_the_error_of_a_traceback():
    printed = 'Traceback:\n  File\nRuntimeError: first\nTraceback:\nImportError: a\nnumpy\n  b\n'
    assert last_error(printed) == 'ImportError: a numpy   b'
    assert last_error('Killed\n') == 'Killed'


def test_collect_env(monkeypatch):
    monkeypatch.setattr(live, 'precisions', lambda device: [])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        env = mmpaca.collect_env()
    assert env['mmpaca'] == mmpaca.__version__
    assert {'sys.platform', 'PyTorch', 'MMEngine', 'MMDetection'} <= env.keys()
    assert env['MMCV'] == ', '.join(f'{n} {v}' for n, v in installed.installed('mmcv').items())
    assert env['MMCV operators'] == live.operator_sources()
    assert WRONG not in env['mmpaca doctor'] and OK not in env['mmpaca doctor'].split()
