"""Failed launches end quickly on all ranks, with a readable error."""

import os
import re
import runpy
import signal
import socket
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from commands import ROOT, children, kill, started
from mmdet.models import DetTTAModel  # noqa: F401  (mmdet is imported before a fork)
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmpaca.apis import launch
from mmpaca.apis.launch import check_gpus, readable_errors
from mmpaca.engine import ConfigCheckHook

CONFIG = ROOT / 'configs/demo/mask-rcnn_paca-demo_shapes.py'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(arch='tinny'), r"arch='tinny' is unknown, choose one of \('tiny'"),
        (dict(out_indices=(0, 4)), r'out_indices=\(0, 4\) must name stages of 0..3'),
        (dict(num_clusters=-1), r'num_clusters=-1 must be 4 numbers >= 0'),
        (dict(num_clusters=(1, 2)), r'num_clusters=\(1, 2\) must be 4 numbers'),
        (dict(arch=dict(num_heads=(5, 4, 8, 16))), 'embed_dims=96 is not divisible by num_heads=5'),
    ],
)
def test_invalid_model_arguments(arguments, message):
    """The class's errors, through mmdet's registry."""
    if isinstance(arguments.get('arch'), dict):
        rest = dict(embed_dims=(96, 192, 320, 384), mlp_ratios=(4,) * 4, depths=(1,) * 4)
        arguments['arch'] = {**rest, **arguments['arch']}
    with pytest.raises(ValueError, match=message), DefaultScope.overwrite_default_scope('mmdet'):
        MODELS.build(dict(type='PaCaViT', **arguments))


def test_a_neck_with_other_channels_names_the_right_ones():
    cfg = Config.fromfile(CONFIG)
    cfg.model.neck.in_channels = [96, 192, 320, 384]
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        with pytest.raises(
            ValueError, match=r'\[96, .*set neck=dict\(in_channels=\[48, 96, 160, 192\]\)'
        ):
            ConfigCheckHook().before_run(SimpleNamespace(model=model, hooks=[]))
        cfg.model.neck.in_channels = [48, 96, 160, 192]
        ConfigCheckHook().before_run(SimpleNamespace(model=MODELS.build(cfg.model), hooks=[]))


@pytest.mark.parametrize(
    ('error', 'rank', 'says'),
    [
        (torch.OutOfMemoryError('CUDA out of memory. Tried to\nmore'), '0', 'out of GPU memory: lower train_dataloader.batch_size'),
        (FileNotFoundError('file "x.py" does not exist'), '0', 'rank 0: file "x.py" does not exist'),
        (FileExistsError(17, 'File exists', 'run'), '0', "rank 0: [Errno 17] File exists: 'run'"),
        (ValueError('wrong'), '1', 'rank 1: ValueError: wrong'),
    ],
)  # fmt: skip
def test_one_line_and_status_1(monkeypatch, error, rank, says):
    monkeypatch.setenv('RANK', rank)
    monkeypatch.setenv('LOCAL_RANK', rank)
    with pytest.raises(SystemExit) as stop, readable_errors():
        raise error
    assert says in stop.value.code and '\n' not in stop.value.code
    with pytest.raises(ValueError), readable_errors():
        monkeypatch.setenv('LOCAL_RANK', '0')
        raise ValueError('of the first process, with its traceback')


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    check_gpus()
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
    with pytest.raises(SystemExit, match='8 processes were started on this machine, which has 2'):
        check_gpus()


def test_trusting_is_a_flag_of_the_tools(monkeypatch):
    seen = {}
    monkeypatch.setattr(launch, 'register_loaders', lambda trust: seen.update(trust=trust))
    monkeypatch.setattr(runpy, 'run_path', lambda *a, **k: seen.update(argv=sys.argv[1:]))
    monkeypatch.setattr(sys, 'argv', ['test.py', 'config.py', '--trust-checkpoint', 'x.pth'])
    with pytest.warns(UserWarning, match='may run code'):
        launch.run_tool('test.py')
    assert seen == dict(trust=True, argv=['config.py', 'x.pth'])


@pytest.mark.parametrize(
    ('arguments', 'unused'),
    [([], None), (['--cfg-options', 'a=1', 'find_unused_parameters=True'], True)],
)
def test_cpu_processes_keep_what_the_config_asks_of_ddp(tmp_path, monkeypatch, arguments, unused):
    monkeypatch.setattr(launch.dist, 'init_process_group', lambda backend: None)
    monkeypatch.setattr(launch.dist, 'get_rank', lambda: 1)
    (tmp_path / 'own.py').write_text('model_wrapper_cfg = dict(bucket_cap_mb=5)')
    monkeypatch.setattr(sys, 'argv', ['train.py', str(tmp_path / 'own.py'), *arguments])
    launch._use_cpu_processes()
    wrapper = launch._config_of(sys.argv[1:]).model_wrapper_cfg
    assert wrapper.pop('find_unused_parameters', None) is unused
    assert wrapper == dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        bucket_cap_mb=5,
    )


def test_unknown_options_and_amp_without_a_gpu(monkeypatch):
    monkeypatch.setattr(runpy, 'run_path', lambda *a, **k: None)
    options = ['train_dataloder.batch_size=1', 'resume=True', 'model.backbone.arch=tiny']
    monkeypatch.setattr(sys, 'argv', ['train.py', str(CONFIG), '--cfg-options', *options])
    with pytest.warns(UserWarning) as caught:
        launch.run_tool('train.py')
    (said,) = [str(w.message) for w in caught if '--cfg-options' in str(w.message)]
    assert said == (
        '--cfg-options: train_dataloder is not in the config; is train_dataloader meant?'
    )
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(sys, 'argv', ['train.py', str(CONFIG), '--amp'])
    with pytest.raises(SystemExit, match='--amp: mixed precision needs a GPU'):
        launch.run_tool('train.py')


def test_a_port_in_use(run):
    with socket.socket() as listening:
        listening.bind(('127.0.0.1', 0))
        listening.listen()
        port = str(listening.getsockname()[1])
        printed = run(ROOT / 'tools/dist_train.sh', CONFIG, '1', ok=False, PORT=port)
    assert printed == f'port {port} is in use: set PORT to a free one, on all machines\n'


def test_a_config_that_is_not_there(run):
    printed = run(sys.executable, ROOT / 'tools/train.py', 'nowhere.py', ok=False)
    assert 'Traceback' not in printed and 'nowhere.py' in printed.strip().splitlines()[-1]


def test_a_base_that_is_not_there(tmp_path, monkeypatch):
    (tmp_path / 'own.py').write_text("_base_ = 'mmpaca::nowhere.py'")
    monkeypatch.setattr(sys, 'argv', ['train.py', str(tmp_path / 'own.py')])
    with pytest.raises(SystemExit, match='rank 0: .*nowhere.py'):
        launch.run_tool('train.py')


def test_a_rank_that_dies_ends_all_of_them(tmp_path, shapes):
    """SIGKILL to one of two training processes."""
    options = ['train_cfg.max_iters=100000', 'train_cfg.val_interval=100000', 'default_hooks.logger.interval=1', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']  # fmt: skip
    data = [f'{s}_dataloader.dataset.data_root={shapes}' for s in ('train', 'val', 'test')]
    data += [f'{s}_evaluator.ann_file={shapes}/annotations/val.json' for s in ('val', 'test')]
    command = [ROOT / 'tools/dist_train.sh', CONFIG, '2', '--work-dir', 'run', '--cfg-options']
    with (
        (tmp_path / 'log').open('w') as log,
        started(tmp_path, *command, *options, *data, output=log) as launcher,
    ):
        end = time.monotonic() + 300
        while 'Iter(train) [     3/' not in (tmp_path / 'log').read_text():
            assert time.monotonic() < end and launcher.poll() is None
            time.sleep(0.2)
        workers = children(launcher.pid)
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        assert launcher.wait(timeout=300) != 0
    left = [pid for pid in workers if os.path.exists(f'/proc/{pid}')]
    for pid in left:
        kill(pid)
    assert not left
    assert re.search(r'exitcode\s*: -9|Signal 9', (tmp_path / 'log').read_text())
