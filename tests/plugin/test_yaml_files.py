"""YAML files are data: no tag of one calls a function."""

import mmengine
import pytest
import yaml
from mmengine.config import Config

from mmpaca.apis.configs import read_file

TAGS = ('object/apply:os.mkdir [{0}]', 'object/new:os.mkdir [{0}]', 'name:os.mkdir')


@pytest.mark.parametrize('tag', TAGS)
@pytest.mark.parametrize('suffix', ['yaml', 'yml'])
def test_tags_of_python_objects_are_refused(tmp_path, tag, suffix):
    made = tmp_path / 'made'
    path = tmp_path / f'config.{suffix}'
    path.write_text(f'model: !!python/{tag.format(made)}\n')
    for read in (mmengine.load, Config.fromfile):
        with pytest.raises(yaml.YAMLError, match=r'python/\w+.*os.mkdir'):
            read(path)
    with pytest.raises(ValueError, match=f'config .*config.{suffix} cannot be read.*os.mkdir'):
        read_file(str(path))
    assert not made.exists()


def test_what_mmengine_writes_is_read(tmp_path):
    content = dict(scale=(1333, 800), lr=1e-4, flips=[True, None], nested=[(1, (2, 'x'))])
    path = tmp_path / 'config.yaml'
    mmengine.dump(content, path)
    assert 'python/tuple' in path.read_text()
    assert mmengine.load(path) == content
    assert Config.fromfile(path).to_dict() == content
