"""The configuration text in a checkpoint is parsed, never run."""

import json

import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.config import Config
from safetensors.torch import save_file

from mmpaca.checkpoint import UnsafeCheckpointError, load_from_local
from mmpaca.checkpoint.config_text import CodeInConfigError, foreign_names, parse_config


def in_checkpoint(path, text, place):
    """A checkpoint with that text, in a .pth or, with place 'safetensors', in its metadata."""
    if place == 'safetensors':
        path = path.with_suffix('.safetensors')
        save_file({'a': torch.ones(1)}, path, dict(format='pt', meta=json.dumps(dict(cfg=text))))
        return path
    content = dict(state_dict={}, meta=dict(epoch=0, iter=0))
    if place == 'message_hub':
        content['message_hub'] = dict(runtime_info=dict(cfg=text))
    else:
        content['meta'][place] = text
    torch.save(content, path)
    return path


def text_in(path, place):
    loaded = load_from_local(path)
    if place == 'message_hub':
        return loaded['message_hub']['runtime_info'].get('cfg')
    return loaded['meta'].get('cfg' if place == 'safetensors' else place)


PLACES = ('message_hub', 'cfg', 'config', 'safetensors')
CODE = (
    "__import__('os').system('touch {marker}')",
    "model = __import__('os').system('touch {marker}')",
    'import os\nos.system("touch {marker}")',
    'from os import system as dict\nmodel = dict("touch {marker}")',
    "model = dict(a=[dict(b=open('{marker}', 'w'))])",
    "model = [open('{marker}', 'w') for _ in 'x']",
    "model = f\"{{open('{marker}', 'w')}}\"",
    "def dict():\n    open('{marker}', 'w')\nmodel = dict()",
    'class A(open("{marker}", "w")): pass',
    "model = dict(**dict(a=open('{marker}', 'w')))",
    "model = {{**dict(a=open('{marker}', 'w'))}}",
    "if open('{marker}', 'w'): model = 1",
    'lr = (lambda: 1)()',
    "model: open('{marker}', 'w') = 1",
    "lr += open('{marker}', 'w')",
)


@pytest.mark.parametrize('place', PLACES)
def test_code_is_refused_by_every_door(tmp_path, place):
    for code in CODE:
        path = in_checkpoint(tmp_path / 'evil.pth', code.format(marker=tmp_path / 'ran'), place)
        with pytest.raises(UnsafeCheckpointError, match=r'evil.*(cfg|config) contains code \(line'):
            load_from_local(path)
        with pytest.raises(UnsafeCheckpointError):
            DetInferencer(weights=str(path), device='cpu')
        assert not (tmp_path / 'ran').exists()


FOREIGN = (
    "model = dict(type='os.system', command='touch {marker}')",
    "model = dict(type='subprocess.Popen', args=['touch', '{marker}'])",
    "model = dict(a=[dict(type='antigravity')])",
    "model = dict(type='mmengine.utils.package_utils.call_command', cmd=['touch', '{marker}'])",
    "model = dict(type='mmengine.mkdir_or_exist', dir_name='{marker}')",
    "model = dict(type='torch.save', obj=1, f='{marker}')",
    "model = dict(type='X', _scope_='antigravity')",
    "default_scope = 'antigravity'",
    "custom_imports = dict(imports=['antigravity'], allow_failed_imports=True)",
    "custom_imports = dict(imports='antigravity')",
    "_base_ = '{marker}.py'",
    "a = '{{{{$HOME:x}}}}'",
    'model = dict(__array_interface__=dict(data=(1, True)))',
    'work_dir = runs/x',
    'dtype = torch.float32',
    'a = inf',
    'dict = 3',
    '{{{{ fileDirname }}}}',
    '\0',
    '((((' * 100,
    '-' * 100000 + '1',
    'x' + '.a' * 100000,
    'a = ' + '+'.join(['1'] * 20000),
)


@pytest.mark.filterwarnings('ignore:checkpoint')
@pytest.mark.parametrize('place', PLACES)
def test_what_would_import_or_be_changed_is_ignored(tmp_path, place):
    """The weights still load."""
    for text in FOREIGN:
        path = in_checkpoint(tmp_path / 'odd.pth', text.format(marker=tmp_path / 'ran'), place)
        assert text_in(path, place) is None, text[:50]
        with pytest.raises((ValueError, AssertionError)):
            DetInferencer(weights=str(path), device='cpu')
        assert not (tmp_path / 'ran').exists()


def test_the_warning_names_what_is_ignored(tmp_path):
    path = in_checkpoint(tmp_path / 'odd.pth', FOREIGN[0], 'cfg')
    with pytest.warns(UserWarning, match=rf"{path}: .* meta.cfg is ignored, .*type='os.system'"):
        load_from_local(path)


@pytest.mark.parametrize(
    'name',
    ['demo/mask-rcnn_paca-demo_shapes.py', 'paca_vit/mask-rcnn_paca-s_1x_coco.py'],
)
def test_mmengines_own_text_is_kept(tmp_path, root, name):
    config = Config.fromfile(root / 'configs' / name)
    text = config.pretty_text
    path = in_checkpoint(tmp_path / 'own.pth', text, 'message_hub')
    assert text_in(path, 'message_hub') == text
    assert parse_config(text) == Config.fromstring(text, '.py').to_dict()


def test_types_by_their_full_name():
    known = dict(
        a=dict(type='mmdet.models.detectors.mask_rcnn.MaskRCNN'),
        b=dict(type='torch.optim.adamw.AdamW'),
        c=dict(type='mmdet.CocoDataset'),
        d=dict(type='NotRegisteredAnywhere'),
        default_scope='mmdet',
        custom_imports=dict(imports=['mmpaca'], allow_failed_imports=False),
    )
    assert list(foreign_names(known)) == []
    assert list(foreign_names(dict(a=dict(type='torch.utils.data.DataLoader')))) != []


def test_errors_name_the_line():
    with pytest.raises(CodeInConfigError, match=r'line 2, print\(1\)'):
        parse_config('a = 1\nb = print(1)')


def test_trust_is_the_way_round(tmp_path):
    path = in_checkpoint(tmp_path / 'evil.pth', 'a = print(1)', 'cfg')
    assert load_from_local(path, trust=True)['meta']['cfg'] == 'a = print(1)'
