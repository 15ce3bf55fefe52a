"""The tools serve mmpretrain's configs: dispatch, flags, resuming, several processes, ablation."""

import json
import re
import runpy
import sys

import cv2
import mmengine.config.config
import numpy as np
import pytest
import torch
from commands import run_tool_in
from mmengine.config import Config

from mmpaca.apis.launch import codebase_of
from mmpaca.checkpoint import load_from_local
from mmpaca.models import PaCaViT

CONFIG = 'configs/demo/paca-demo_digits.py'
DETECTOR = 'configs/demo/mask-rcnn_paca-demo_shapes.py'


@pytest.fixture(scope='module')
def options(tmp_path_factory) -> list[str]:
    """The digits config on few pictures: two epochs of two iterations."""
    folder, rng = tmp_path_factory.mktemp('digits'), np.random.RandomState(0)
    for part, count in (('train', 2), ('test', 1)):
        for label in range(10):
            (folder / part / str(label)).mkdir(parents=True)
            for i in range(count):
                picture = rng.randint(0, 256, (8, 8), dtype=np.uint8)
                cv2.imwrite(str(folder / part / str(label) / f'{i}.png'), picture)
    loaders = [f'{s}_dataloader' for s in ('train', 'val', 'test')]
    return [
        *(f'{loader}.dataset.data_root={folder}' for loader in loaders),
        *(f'{loader}.num_workers=0' for loader in loaders),
        *(f'{loader}.persistent_workers=False' for loader in loaders),
        'train_dataloader.batch_size=10',
        'train_cfg.max_epochs=2',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.max_keep_ckpts=5',
    ]


@pytest.fixture(scope='module')
def trained(root, options, tmp_path_factory):
    """A work_dir of tools/train.py, with epoch_1.pth and epoch_2.pth, and what was printed."""
    folder = tmp_path_factory.mktemp('trained')
    # --no-pin-memory is a flag of mmpretrain's tool only.
    train = ('train.py', '--no-pin-memory', root / CONFIG, '--work-dir', 'full')
    printed = run_tool_in(folder, *train, '--cfg-options', *options)
    return folder / 'full', printed


def test_train_test_resume(root, tool, trained, options, tmp_path):
    full, printed = trained
    assert re.search(r'Epoch\(val\) \[2\]\[1/1\] +accuracy/top1: \d', printed)
    half = tmp_path / 'half'
    half.mkdir()
    (half / 'epoch_1.pth').symlink_to(full / 'epoch_1.pth')
    (half / 'last_checkpoint').write_text(str(half / 'epoch_1.pth'))
    resume = ('--work-dir', half, '--resume')
    printed = tool('train.py', root / CONFIG, *resume, '--cfg-options', *options)
    assert 'resumed epoch: 1, iter: 2' in printed and (half / 'epoch_2.pth').is_file()

    out = ('--out', 'metrics.json', '--out-item', 'metrics')
    tool('test.py', root / CONFIG, full / 'epoch_2.pth', *out, '--cfg-options', *options)
    logged = [json.loads(line) for line in next(full.glob('*/vis_data/scalars.json')).open()]
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    assert metrics['accuracy/top1'] == pytest.approx(logged[-1]['accuracy/top1'])


def test_two_cpu_processes(root, tool, options, tmp_path):
    """As torchrun starts them; the script around it is tested with detectors."""
    printed = tool(
        'train.py', root / CONFIG, '--launcher', 'pytorch', '--work-dir', 'two',
        '--cfg-options', *options, 'train_dataloader.batch_size=5', 'train_cfg.max_epochs=1',
        ranks=2,
    )  # fmt: skip
    assert 'no CUDA: 2 CPU processes with the gloo backend' in printed
    assert re.search(r'Epoch\(train\) +\[1\]\[2/2\]', printed)  # 20 images, 2 processes of 5
    top1 = re.search(r'accuracy/top1: [\d.]+', printed)[0]
    weights = load_from_local(tmp_path / 'two/epoch_1.pth')['state_dict']
    assert weights['head.fc.weight'].shape == (10, 192)
    # One process gives the same accuracy.
    tested = ('two/epoch_1.pth', '--work-dir', 'tested', '--cfg-options', *options)
    assert top1 in tool('test.py', root / CONFIG, *tested)


@pytest.mark.parametrize(
    ('argv', 'codebase'),
    [
        ([], 'mmdet'),
        (['--help'], 'mmdet'),
        (['nowhere.py', '--amp'], 'mmdet'),
        ([DETECTOR, 'checkpoint.pth'], 'mmdet'),
        ([CONFIG, '--launcher', 'pytorch'], 'mmpretrain'),
        (['--work-dir', 'tests', CONFIG], 'mmpretrain'),
        (['configs/classification/paca-t_8xb128_in1k.py'], 'mmpretrain'),
    ],
)
def test_the_config_decides_whose_tool_runs(root, monkeypatch, argv, codebase):
    monkeypatch.chdir(root)
    assert codebase_of(argv) == codebase


# The tool with a config, then with --help.
HIDE = """
import runpy, sys
sys.modules['mmpretrain'] = None  # as if it was not there
tool, config = sys.argv[1:]
for argument in (config, '--help'):
    sys.argv = [tool, argument]
    try:
        runpy.run_path(tool, run_name='__main__')
    except SystemExit as exit:
        print('status', exit.code, flush=True)
"""


def test_a_config_without_mmpretrain_gets_one_sentence(root, run, monkeypatch, tmp_path):
    monkeypatch.setattr(mmengine.config.config, 'is_installed', lambda name: name != 'mmpretrain')
    assert codebase_of([str(root / CONFIG)]) == 'mmpretrain'  # though its base cannot be read
    (tmp_path / 'hide.py').write_text(HIDE)
    printed = run(sys.executable, 'hide.py', root / 'tools/train.py', root / CONFIG)
    assert (
        'mmpaca needs mmpretrain >=1.2.0,<2.0 and found none; run: pip install mmpretrain==1.2.0'
        in printed
    )
    assert 'status 1' in printed and 'Train a detector' in printed.partition('status 1')[2]


@pytest.fixture(scope='module')
def ablation(root) -> dict:
    return runpy.run_path(str(root / 'tools/analysis/ablation.py'))


@pytest.mark.parametrize('dataset', ['digits', 'cifar100'])
def test_the_variants_are_different_models(root, ablation, dataset):
    built = {}
    for name in ablation['NAMES']:
        backbone = Config.fromfile(root / 'configs' / ablation['CONFIGS'][dataset]).model.backbone
        backbone.update(ablation['variant'](name, backbone))
        backbone.pop('type')
        with torch.device('meta'):
            built[name] = PaCaViT(**backbone)
    assert [built[f'clusters-{m}'].num_clusters for m in (2, 49, 100)] == [
        (m, m, 0, 0) for m in (2, 49, 100)
    ]
    clusterings = {
        name: sum('clustering.0.weight' in k for k in model.state_dict())
        for name, model in built.items()
    }
    assert [clusterings[n] for n in ('mlp', 'every-second', 'block-wise')] == [2, 4, 6]
    assert clusterings['teacher'] == 0 and built['teacher'].teacher is not None
    shapes = [str({k: v.shape for k, v in model.state_dict().items()}) for model in built.values()]
    assert len(set(shapes)) == len(shapes)


def test_digits_of_an_ablation_are_whole_or_not_there(ablation, monkeypatch, tmp_path):
    def fail(folder) -> None:
        folder.mkdir()
        raise OSError('No space left on device')

    make_digits = ablation['make_digits']
    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space left'):
        patch.setitem(make_digits.__globals__, 'write_digits', fail)
        make_digits(tmp_path / 'data/digits')
    assert list((tmp_path / 'data').iterdir()) == []
    make_digits(tmp_path / 'data/digits')
    assert len(list((tmp_path / 'data/digits').rglob('*.png'))) == 1797


def test_ablation_goes_on_where_it_was_broken_off(tool, options, tmp_path):
    command = ['analysis/ablation.py', '--dataset', 'digits', '--epochs', '1', '--out', 'out']
    command += ['--cfg-options']
    kept = [o for o in options if 'max_epochs' not in o and 'val_' not in o]
    printed = tool(*command, *kept, '--runs', 'clusters-2')
    assert re.search(r'clusters-2 .* 2, 2, 0, 0', printed) and 'linear' not in printed
    before = (tmp_path / 'out/clusters-2/result.json').read_bytes()
    printed = tool(*command, *kept, '--runs', 'clusters-2', 'linear')
    assert 'clusters-2: finished before, kept' in printed
    assert (tmp_path / 'out/clusters-2/result.json').read_bytes() == before
    results = json.loads((tmp_path / 'out/ablation.json').read_text())
    assert [r['name'] for r in results] == ['clusters-2', 'linear']
    for result in results:
        assert result['epochs'] == 1 and result['test_images'] == 10 and result['step_seconds'] > 0
        p = result['top1'] / 100
        assert result['std_error'] == pytest.approx(100 * (p * (1 - p) / 10) ** 0.5)
    assert cv2.imread(str(tmp_path / 'out/ablation.png')).std() > 5
    printed = tool(*command, *kept, '--runs', 'linear', '--seed', '1', ok=False)
    assert 'out/linear holds a run with' in printed and 'choose another --out' in printed
