"""The sdist and the wheel hold what the tree holds, and mim finds it in every installation."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from email.parser import Parser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import mmpaca

MIM = ('configs/', 'tools/', 'model-index.yml')
BUILD = (sys.executable, '-m', 'build', '--no-isolation')


def tree_files(root: Path) -> set[str]:
    """What belongs to the project: as git sees it, or all of an unpacked sdist."""
    if (root / '.git').exists():
        # Whoever owns the checkout, and whatever else this user ignores.
        command = ('git', '-c', 'safe.directory=*', '-c', 'core.excludesFile=/dev/null')
        command += ('ls-files', '-co', '--exclude-standard')
        names = subprocess.check_output(command, cwd=root, text=True).splitlines()
        return {name for name in names if (root / name).is_file()}
    paths = (path.relative_to(root) for path in root.rglob('*') if path.is_file())
    generated = ('.egg-info', '.mim', '__pycache__', '.pytest_cache', '.hypothesis')
    return {
        str(path)
        for path in paths
        if not any(part.endswith(generated) for part in path.parts)
        and path.name not in ('PKG-INFO', 'setup.cfg')
    }


def contents(archive: Path) -> dict[str, tuple[bytes, bool]]:
    """Content and executable bit by name."""
    if archive.suffix == '.whl':
        with zipfile.ZipFile(archive) as file:
            return {
                info.filename: (file.read(info), bool(info.external_attr >> 16 & 0o100))
                for info in file.infolist()
            }
    with tarfile.open(archive) as file:
        members = [member for member in file.getmembers() if member.isfile()]
        return {
            member.name.partition('/')[2]: (
                file.extractfile(member).read(),
                bool(member.mode & 0o100),
            )
            for member in members
        }


@pytest.fixture(scope='module')
def tree(root, tmp_path_factory) -> Path:
    """A copy of the checkout, with the litter of use in it."""
    tree = tmp_path_factory.mktemp('packaging') / 'tree'
    for name in tree_files(root):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, tree / name)
    for litter in ('configs/__pycache__/a.pyc', 'mmpaca/b.pyc', 'build/lib/mmpaca/removed.py'):
        (tree / litter).parent.mkdir(parents=True, exist_ok=True)
        (tree / litter).touch()
    (tree / 'mmpaca/.mim').mkdir()
    (tree / 'mmpaca/.mim/configs').symlink_to('../../configs')  # of an editable installation
    return tree


@pytest.fixture(scope='module')
def built(tree) -> dict[str, Path]:
    """The sdist, the wheel made from it, and the wheel made from the tree itself."""
    for args in (('-o', 'dist'), ('--wheel', '-o', 'direct')):
        done = subprocess.run((*BUILD, *args), cwd=tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (sdist,) = tree.glob('dist/*.tar.gz')
    (wheel,) = tree.glob('dist/*.whl')
    (direct,) = tree.glob('direct/*.whl')
    return dict(sdist=sdist, wheel=wheel, direct=direct)


def test_sdist_is_the_tree(built, root):
    packed = contents(built['sdist'])
    made = {n for n in packed if n in ('PKG-INFO', 'setup.cfg') or '.egg-info/' in n}
    assert set(packed) - made == tree_files(root)
    assert all(packed[n][0] == (root / n).read_bytes() for n in packed if n not in made)


def test_wheel_is_the_package_with_mim(built, root):
    names = tree_files(root)
    expected = {name: name for name in names if name.startswith('mmpaca/')}
    expected |= {f'mmpaca/.mim/{name}': name for name in names if name.startswith(MIM)}
    packed = {n: c for n, c in contents(built['wheel']).items() if '.dist-info/' not in n}
    assert packed == {
        target: ((root / name).read_bytes(), os.access(root / name, os.X_OK))
        for target, name in expected.items()
    }
    assert packed['mmpaca/.mim/tools/dist_train.sh'][1]


def test_wheels_of_sdist_and_tree_are_the_same(built):
    assert contents(built['wheel']) == contents(built['direct'])


def test_what_is_installed_with_it(built):
    (name,) = (n for n in contents(built['wheel']) if n.endswith('.dist-info/METADATA'))
    metadata = Parser().parsestr(contents(built['wheel'])[name][0].decode())
    requirements = [Requirement(line) for line in metadata.get_all('Requires-Dist')]

    def names(extra: str) -> set[str]:
        found = set()
        for requirement in requirements:
            if not requirement.marker or requirement.marker.evaluate({'extra': extra}):
                if requirement.name == 'mmpaca':  # its own extras
                    found.update(*map(names, requirement.extras))
                else:
                    found.add(requirement.name)
        return found

    base = names('')
    assert {'torch', 'mmengine', 'mmdet', 'setuptools'} <= base
    assert metadata['Version'] == mmpaca.__version__
    assert not base & {'mmcv', 'mmcv-lite', 'mmpretrain'}
    assert names('lite') - base == {'mmcv-lite'} and names('mmcv') - base == {'mmcv'}
    assert names('fast-eval') - base == {'faster-coco-eval'}
    assert names('export') - base == {'onnx', 'onnxruntime', 'onnxscript'}
    assert names('mmseg') - base == {'mmsegmentation', 'ftfy', 'regex'}
    assert names('slice') - base == {'sahi'}
    assert names('explain') - base == {'captum'}
    extras = ('lite', 'mmpretrain', 'mmseg', 'fast-eval', 'export', 'slice', 'explain')
    assert names('all') == set().union(*map(names, extras)) and 'mmcv' not in names('all')


def test_mim_finds_an_editable_installation(tree, python, tmp_path):
    command = 'from setuptools import build_meta; build_meta.build_editable("editable")'
    subprocess.run((sys.executable, '-c', command), cwd=tree, check=True, capture_output=True)
    with zipfile.ZipFile(next(tree.glob('editable/*.whl'))) as wheel:
        wheel.extractall(tmp_path / 'site')
    found = 'from mmengine.utils import get_installed_path; print(get_installed_path("mmpaca"))'
    package = Path(python(found, PYTHONPATH=str(tmp_path / 'site')).splitlines()[-1])
    assert package == tree / 'mmpaca'
    assert (package / '.mim/configs').resolve() == tree / 'configs'
    assert (package / '.mim/tools').resolve() == tree / 'tools'
    assert (package / '.mim/model-index.yml').samefile(tree / 'model-index.yml')


def test_mim_finds_a_config_by_its_name_alone(root):
    names = Counter(path.name for path in root.glob('configs/**/*.py'))
    assert [name for name, count in names.items() if count > 1] == []


def test_release_notes_are_the_section_of_the_tag(root):
    release_notes = runpy.run_path(str(root / 'tools/dev/release_notes.py'))['release_notes']
    changelog = (
        '# Changelog\n\n## 1.1 (2027-02-03)\n\n- new\n- more\n\n## 1.0 (2027-01-02)\n\n- old\n'
    )
    assert release_notes('v1.1', changelog, '1.1') == '- new\n- more'
    assert release_notes('v1.0', changelog, '1.0') == '- old'
    with pytest.raises(ValueError, match='v1.1 does not match version 1.0'):
        release_notes('v1.1', changelog, '1.0')
    with pytest.raises(ValueError, match='no section'):
        release_notes('v1.0', changelog.replace('(2027-01-02)', '(unreleased)'), '1.0')


def test_workflows_call_targets_of_the_makefile(root):
    targets = re.search(r'^\.PHONY: (.+)$', (root / 'Makefile').read_text(), re.MULTILINE)[
        1
    ].split()
    called = set()
    for path in (root / '.github/workflows').glob('*.yml'):
        workflow = yaml.safe_load(path.read_text())
        assert workflow['permissions'] == {'contents': 'read'}, path.name
        steps = [step for job in workflow['jobs'].values() for step in job.get('steps', [])]
        called |= {
            step['run'].split()[1] for step in steps if step.get('run', '').startswith('make')
        }
    assert (
        called
        == {'docs', 'fuzz', 'notebook', 'install-check', 'lint', 'test', 'wheel'}
        <= set(targets)
    )
