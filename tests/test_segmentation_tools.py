"""The tools serve mmseg's configs: flags, one and two processes, the comparison on CamVid."""

import json
import re
import runpy
import sys

import numpy as np
import pytest
from commands import ROOT
from PIL import Image
from segmentation import CONFIG, tiny_config, write_camvid

from mmpaca.__main__ import main
from mmpaca.apis import launch
from mmpaca.apis.launch import codebase_of
from mmpaca.checkpoint import load_from_local

pytest.importorskip('mmseg')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A config file for two iterations, with synchronised norms."""
    folder = tmp_path_factory.mktemp('tools')
    cfg = tiny_config(write_camvid(folder / 'data'), folder / 'run')
    cfg.model.decode_head.norm_cfg.type = 'SyncBN'
    cfg.pop('work_dir')
    cfg.log_level = 'INFO'
    cfg.dump(folder / 'tiny.py')
    return folder / 'tiny.py'


def test_two_cpu_processes_and_one(tool, config, tmp_path):
    """As torchrun starts them; the script around it is tested with detectors."""
    two = ('--launcher', 'pytorch', '--work-dir', 'two')
    printed = tool('train.py', config, *two, ranks=2)
    assert 'no CUDA: 2 CPU processes with the gloo backend' in printed
    measured = re.search(r'aAcc: [\d.]+  mIoU: [\d.]+', printed)[0]
    weights = load_from_local(tmp_path / 'two/iter_2.pth')['state_dict']
    assert weights['decode_head.k.2.num_batches_tracked'] == 2
    # One process measures the same, and writes the classes of each pixel.
    tested = ('two/iter_2.pth', '--work-dir', 'tested', '--out', 'maps')
    assert measured in tool('test.py', config, *tested)
    maps = sorted((tmp_path / 'maps').iterdir())
    assert [path.name for path in maps] == ['0.png', '1.png', '2.png']
    labels = np.array(Image.open(maps[0]))
    assert labels.shape == (48, 64) and labels.max() <= 10


def test_the_config_decides_whose_tool_runs(config):
    assert codebase_of([str(CONFIG)]) == codebase_of([str(config), '--tta']) == 'mmseg'


def test_one_name_in_two_folders_is_two_configs(monkeypatch, tmp_path):
    for scope in ('mmdet', 'mmseg'):
        folder = tmp_path / scope
        folder.mkdir()
        (folder / 'same.py').write_text(f"default_scope = '{scope}'")
        monkeypatch.chdir(folder)
        assert codebase_of(['same.py']) == scope


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ('train CONFIG --amp', '--amp: mixed precision needs a GPU'),
        ('test CONFIG x.pth --out out.pkl', '--out out.pkl: mmseg writes a PNG with class indices'),
        (
            'test CONFIG x.pth --out out --cfg-options test_evaluator=[]',
            '--out: mmseg needs a single test_evaluator',
        ),
        ('test plain.py x.pth --tta', '--tta: the config has no tta_model and tta_pipeline'),
    ],
)
def test_wrong_arguments(monkeypatch, tmp_path, capsys, config, arguments, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    (tmp_path / 'plain.py').write_text("default_scope = 'mmseg'\nmodel = dict()")
    assert main(arguments.replace('CONFIG', str(config)).split()) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f'error: {says}') and printed.count('\n') == 1


@pytest.mark.parametrize(
    ('given', 'passed'),
    [
        (['--resume'], ['--resume']),
        (['--resume=a.pth'], ['--resume', '--cfg-options', 'load_from=a.pth']),
        (['--work-dir=w'], ['--work-dir=w']),
    ],
)
def test_resuming_from_a_file(monkeypatch, config, given, passed):
    """mmseg's own flag takes none."""
    seen = []
    monkeypatch.setattr(sys, 'argv', ['mmpaca'])
    monkeypatch.setattr(runpy, 'run_path', lambda *a, **k: seen.extend(sys.argv[1:]))
    assert main(['train', str(config), *given]) == 0
    assert seen == [str(config), *passed]


def test_comparison_on_camvid(config, monkeypatch, tmp_path, capsys):
    """Both the time and the data are cut short; called again, it keeps what is finished."""
    script = runpy.run_path(str(ROOT / 'tools/analysis/compare_camvid.py'))
    options = [
        'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False', 'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
    ]  # fmt: skip
    for name, value in (('TIMED', 2), ('SHAPE', (72, 96))):
        monkeypatch.setitem(script['main'].__globals__, name, value)
    arguments = ['--data-root', str(config.parent / 'data'), '--out', str(tmp_path)]
    arguments += ['--runs', 'paca-head_paca-nano', '--cfg-options', *options]
    monkeypatch.setattr(sys, 'argv', ['compare_camvid.py', '--minutes', '0.01', *arguments])
    script['main']()
    (result,) = json.loads((tmp_path / 'camvid.json').read_text())
    assert result['params'] == 1089302 and 0 <= result['mIoU'] <= 100
    assert 0 <= result['clusters_mIoU'] <= 100
    assert result['train_seconds'] >= 0.6 and result['iterations'] >= 1
    # Proportional to the pixels but for the few products of the clusters: 1.64 G at 360x480.
    assert result['macs'] == pytest.approx(1.64e9 / 25, rel=0.1)
    assert result['seconds_per_image'] > 0
    table = (tmp_path / 'camvid.md').read_text()
    assert '| paca-head_paca-nano | ' in table and '| its cluster logits | ' in table
    capsys.readouterr()
    script['main']()
    assert 'paca-head_paca-nano: finished before, kept' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', ['compare_camvid.py', '--minutes', '2', *arguments])
    with pytest.raises(FileExistsError, match='is the result of 0.01 minutes with seed 0'):
        script['main']()
