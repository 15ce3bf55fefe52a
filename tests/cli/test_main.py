"""The command: its help, the names of configs, completion, and errors in one line."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from commands import ROOT

import mmpaca
from mmpaca.__main__ import GROUPS, build_parser, load, main
from mmpaca.apis.configs import find_checkpoint, find_config, list_configs, read_config

NAMES = [name for names in GROUPS.values() for name in names]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')


def test_help_is_light(run):
    """It imports nothing of the stack; `doctor` runs where torch is broken."""
    code = 'import sys; sys.orig_argv = ["python", "mmpaca"]; from mmpaca.__main__ import main; '
    code += 'main([]); print(*{"torch", "mmengine", "mmdet", "yaml", "numpy"} & set(sys.modules))'
    printed = run(sys.executable, '-c', code)
    assert printed.startswith('usage: mmpaca') and printed.endswith('\n\n')


def test_help_lists_every_subcommand(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    listed = re.findall(r'^  ([a-z-]+) {2,}\S', printed.partition('options:')[0], re.M)
    assert listed == NAMES
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize('name', NAMES)
def test_help_of_a_subcommand(capsys, name):
    with pytest.raises(SystemExit) as stop:
        main([name, '-h'])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert max(map(len, printed.splitlines())) <= 88  # an example stays on its line
    assert f'example:\n  mmpaca {name}' in printed and 'None' not in printed
    # The example can be parsed.
    build_parser().parse_args(load(name).EXAMPLE.split()[1:])


def test_wrong_subcommands_end_with_the_usage(capsys):
    with pytest.raises(SystemExit) as stop:
        main(['trian'])
    assert stop.value.code == 2 and "invalid choice: 'trian'" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(['--version'])
    assert capsys.readouterr().out == f'mmpaca {mmpaca.__version__}\n'


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'tcsh'])
def test_completion(capsys, tmp_path, shell):
    pytest.importorskip('shtab')
    with pytest.raises(SystemExit):
        main(['--print-completion', shell])
    script = tmp_path / 'completion'
    script.write_text(capsys.readouterr().out)
    assert all(name in script.read_text() for name in NAMES)
    if shutil.which(shell):
        subprocess.run([shell, '-n', script], check=True)


SMALL = 'paca_vit/mask-rcnn_paca-s_1x_coco'


@pytest.mark.parametrize(
    ('text', 'path'),
    [
        ('mask_rcnn_paca', 'mask_rcnn_paca.py'),
        ('mask_rcnn_paca.py', 'mask_rcnn_paca.py'),
        ('configs/mask_rcnn_paca.py', 'mask_rcnn_paca.py'),
        ('mmpaca::mask_rcnn_paca.py', 'mask_rcnn_paca.py'),
        ('mask-rcnn_paca-s_1x_coco', f'{SMALL}.py'),
        (SMALL, f'{SMALL}.py'),
        (f'{SMALL}.py', f'{SMALL}.py'),
        ('paca-demo_digits', 'demo/paca-demo_digits.py'),
    ],
)
def test_configs_are_found_from_any_directory(monkeypatch, tmp_path, text, path):
    monkeypatch.chdir(tmp_path)
    assert os.path.samefile(find_config(text), ROOT / 'configs' / path)


def test_a_file_comes_before_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mask_rcnn_paca.py').write_text('model = dict(type="Mine")')
    assert find_config('mask_rcnn_paca.py') == 'mask_rcnn_paca.py'
    assert read_config('mask_rcnn_paca.py', ['model.depth=(1, 2)', 'a=b=c']).to_dict() == dict(
        model=dict(type='Mine', depth=(1, 2)), a='b=c'
    )


def test_configs_of_installed_packages():
    path = find_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    assert read_config(path).model.backbone.type == 'ResNet'
    with pytest.raises(FileNotFoundError, match='mmdet has no such config'):
        find_config('mmdet::nothing.py')
    with pytest.raises(FileNotFoundError, match='absent is not installed'):
        find_config('absent::a.py')


@pytest.mark.parametrize(
    ('text', 'error', 'says'),
    [
        ('mask_rcn_paca', FileNotFoundError, 'similar: mask_rcnn_paca'),
        ('zzz', FileNotFoundError, '`mmpaca configs` lists all'),
        ('picture.png', ValueError, 'picture.png is not a config'),
    ],
)
def test_what_is_no_config(monkeypatch, tmp_path, text, error, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'picture.png').write_bytes(b'')
    with pytest.raises(error, match=says):
        find_config(text)


def test_names_are_unique():
    names = [info.name for info in list_configs()]
    assert len(set(names)) == len(names)


def test_published_weights():
    for name in ('mask_rcnn_paca', 'mask-rcnn_paca-s_1x_coco'):
        url = find_checkpoint('published', find_config(name))
        assert url.startswith('https://') and 'small' in url
    assert find_checkpoint('a.pth', 'any.py') == 'a.pth'
    with pytest.raises(ValueError, match='no weights are published for retinanet_paca'):
        find_checkpoint('published', find_config('retinanet_paca'))


def test_list_of_configs(capsys):
    assert main(['configs', 'mask_rcnn', '1X']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'box AP 46.4, mask AP 41.8' in next(x for x in lines if 'paca-s_1x' in x)
    assert len(lines) > 5 and all('1x' in line for line in lines[1:])
    assert main(['configs', 'zzz']) == 1
    assert capsys.readouterr().err == 'error: no config matches zzz\n'


def test_an_error_is_one_line_or_a_traceback(capsys):
    assert main(['flops', 'nowhere.py']) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith('error: config nowhere.py is') and printed.err.count('\n') == 1
    with pytest.raises(FileNotFoundError):
        main(['--traceback', 'flops', 'nowhere.py'])


@pytest.mark.parametrize(
    'arguments',
    [
        'flops mask_rcnn_paca --shape 0',
        'flops mask_rcnn_paca --shape 1 2 3',
        'flops mask_rcnn_paca --depth x',
        'benchmark --repeats 0',
        'train mask_rcnn_paca --nproc 0',
        'train mask_rcnn_paca --cfg-options a',
        'check-data a.json folder --workers 0',
    ],
)
def test_invalid_values_are_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments.split())
    assert stop.value.code == 2
    assert re.match(
        rf'mmpaca {arguments.split()[0]}: error: ', capsys.readouterr().err.splitlines()[-1]
    )


@pytest.mark.parametrize(
    ('change', 'says'),
    [
        (dict(fix='/proc/x/f.json'), '--fix /proc/x/f.json: /proc is not writable'),
        (dict(fix='.'), '--fix . is a folder: give a file'),
        (dict(ann='nowhere.json'), 'annotation file not found: nowhere.json'),
        (dict(img_dir='nowhere'), 'image folder not found: nowhere'),
        (dict(ann=__file__), f'{__file__}: not a JSON file'),
    ],
)
def test_check_data_refuses_before_the_work(shapes, capsys, change, says):
    given = dict(ann=str(shapes / 'annotations/val.json'), img_dir=str(shapes / 'val'), **{})
    given.update(change)
    arguments = [given['ann'], given['img_dir']]
    assert main(['check-data', *arguments, '--fix', given.get('fix', 'x.json')]) == 1
    assert capsys.readouterr().err.startswith(f'error: {says}')


def test_check_data_is_quiet_without_a_terminal(shapes, capsys):
    arguments = [str(shapes / 'annotations/val.json'), str(shapes / 'val'), '--workers', '2']
    assert main(['check-data', *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.out == '0 broken, 0 to look at\n' and printed.err == ''


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        ('make_shapes.py', 'file'),
        ('make_shapes.py', 'out --num-train -1'),
        ('make_shapes.py', 'out --image-size 3'),
        ('make_shapes.py', 'out --seed -1'),
    ],
)
def test_demo_data_cannot_be_made(tool, tmp_path, script, arguments):
    (tmp_path / 'file').write_text('')
    printed = tool(f'demo/{script}', *arguments.split(), ok=False)
    assert 'Traceback' not in printed and 'error: ' in printed.splitlines()[-1]
