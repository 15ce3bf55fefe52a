"""Launching mmdet's and mmpretrain's tools: what is refused, how, and what several processes do."""

import os
import runpy
import signal
import socket
import sys

import pytest
import torch
import torch.distributed.run
from commands import ROOT
from torch.distributed import HashStore
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from mmpaca.__main__ import main
from mmpaca.apis import launch
from mmpaca.apis.launch import readable_errors
from mmpaca.apis.torchrun import check_gpus, torchrun_arguments
from mmpaca.datasets import SegFileError

CONFIG = ROOT / 'configs/demo/mask-rcnn_paca-demo_shapes.py'


@pytest.mark.parametrize(
    ('error', 'rank', 'says'),
    [
        (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`'), '0', 'out of GPU memory: lower train_dataloader.batch_size'),
        (torch.OutOfMemoryError('CUDA out of memory. Tried to\nmore'), '0', 'out of GPU memory: lower train_dataloader.batch_size'),
        (FileNotFoundError('file "x.py" does not exist'), '0', 'error: rank 0: file "x.py" does not exist'),
        (FileExistsError(17, 'File exists', 'run'), '0', "error: rank 0: [Errno 17] File exists: 'run'"),
        (SegFileError('Caught SegFileError in worker\nx.SegFileError: map a.png is broken\n'), '0', 'error: rank 0: map a.png is broken'),
        (OSError(28, 'No space left on device', 'a.pth'), '0', "No space left on device: 'a.pth'"),
        (PermissionError(13, 'Permission denied', 'run'), '0', "Permission denied: 'run'"),
        (ValueError('wrong'), '1', 'error: rank 1: ValueError: wrong'),
    ],
)  # fmt: skip
def test_one_line_and_status_1(monkeypatch, error, rank, says):
    monkeypatch.setenv('RANK', rank)
    monkeypatch.setenv('LOCAL_RANK', rank)
    with pytest.raises(SystemExit) as stop, readable_errors():
        raise error
    assert says in stop.value.code and '\n' not in stop.value.code


def test_a_bug_keeps_its_traceback(capsys):
    with pytest.raises(SystemExit) as stop, readable_errors():
        raise ValueError('unexpected')
    printed = capsys.readouterr().err
    assert stop.value.code == 1
    assert printed.startswith('Traceback') and printed.endswith('ValueError: unexpected\n')


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    check_gpus(2)
    with pytest.raises(ValueError, match='8 processes on this machine, which has 2 GPUs'):
        check_gpus(8)


def test_torchrun_arguments(monkeypatch):
    for name in ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT'):
        monkeypatch.delenv(name, raising=False)
    tool = ['--nproc-per-node=8', '-m', 'mmpaca', 'train', 'a.py']
    assert torchrun_arguments(8, ['train', 'a.py']) == ['--standalone', *tool]
    for name, value in dict(NNODES=4, NODE_RANK=3, MASTER_ADDR='10.0.0.1', PORT=2345).items():
        monkeypatch.setenv(name, str(value))
    rendezvous = ['--nnodes=4', '--node-rank=3', '--master-addr=10.0.0.1', '--master-port=2345']
    assert torchrun_arguments(8, ['train', 'a.py']) == [*rendezvous, *tool]


@pytest.mark.parametrize(
    ('name', 'value', 'says'),
    [
        ('NNODES', 'x', 'NNODES=x is invalid: give a number from 1'),
        ('NODE_RANK', '1', 'NODE_RANK=1 is invalid: give a number from 0 to 0'),
        ('PORT', '99999', 'PORT=99999 is invalid: give a number from 1 to 65535'),
    ],
)
def test_invalid_variables_of_a_launch(monkeypatch, capsys, name, value, says):
    monkeypatch.setenv(name, value)
    assert main(['train', str(CONFIG), '--nproc', '1']) == 1
    assert capsys.readouterr().err.startswith(f'error: {says}')


def test_a_port_in_use(monkeypatch):
    with socket.socket() as s:
        s.bind(('', 0))
        s.listen()
        monkeypatch.setenv('PORT', str(s.getsockname()[1]))
        with pytest.raises(ValueError, match='Address already in use.*set PORT to a free port'):
            torchrun_arguments(1, [])


@pytest.fixture
def torchrun(monkeypatch):
    """Return a function that sets what torchrun does, and puts SIGUSR1's handler back."""
    monkeypatch.delenv('NNODES', raising=False)
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda main: monkeypatch.setattr(torch.distributed.run, 'main', main)
    signal.signal(signal.SIGUSR1, before)


def test_nproc_runs_torchrun(torchrun):
    called = []
    torchrun(called.append)
    flags = ['--cfg-options', 'a=1', 'b=2', '--work-dir', 'w', '--trust-checkpoint']
    assert main(['train', str(CONFIG), '--nproc', '2', '--resume', *flags]) == 0
    (command,) = called
    after = command[command.index('mmpaca') + 1 :]
    assert after[:4] == ['train', str(CONFIG), '--launcher', 'pytorch']
    passed = ['--resume', '--cfg-options', 'a=1', 'b=2', '--work-dir=w', '--trust-checkpoint']
    assert after[4:] == passed
    assert main(['test', str(CONFIG), 'x.pth', '--nproc', '3', '--out', 'a.pkl']) == 0
    assert called[1][:3] == ['--standalone', '--nproc-per-node=3', '-m']
    passed = [str(CONFIG), 'x.pth', '--launcher', 'pytorch', '--out=a.pkl']
    assert called[1][3:] == ['mmpaca', 'test', *passed]


def test_elastic_is_an_option_of_the_hook(torchrun):
    called = []
    torchrun(called.append)
    assert main(['train', str(CONFIG), '--nproc', '2', '--elastic', '--resume']) == 0
    option = ['--resume', '--cfg-options', 'default_hooks.exact_resume.elastic=True']
    assert called[0][-3:] == option


@pytest.mark.parametrize('saved', [True, False])
def test_a_restarted_process_resumes(monkeypatch, tmp_path, capsys, saved):
    """From its own last checkpoint, whatever the run started from."""
    seen = {}
    monkeypatch.setattr(sys, 'argv', ['mmpaca'])
    monkeypatch.setattr(runpy, 'run_path', lambda *a, **k: seen.update(argv=sys.argv[1:]))
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'none')
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setattr(launch, '_use_cpu_processes', lambda argv: [])
    monkeypatch.setattr(launch, '_end_cpu_process', lambda status: None)
    (tmp_path / '.lock').write_text('{"before": null}')
    if saved:
        (tmp_path / 'last_checkpoint').write_text('x.pth')
    arguments = [f'--work-dir={tmp_path}', '--resume=x.pth']
    assert main(['train', str(CONFIG), *arguments]) == 0
    assert seen['argv'] == [str(CONFIG), *arguments, *(['--resume'] if saved else [])]
    assert ('restarted by torchrun: resuming' in capsys.readouterr().out) == saved


def failed(status: int) -> ChildFailedError:
    return ChildFailedError('mmpaca', {0: ProcessFailure(0, 5, status, '<N/A>')})


@pytest.mark.parametrize(
    ('error', 'status'),
    [
        (SignalException('', signal.SIGTERM), 143),
        (failed(138), 138),  # a signal to one rank only
        (failed(-9), 1),
        (failed(7), 1),
    ],
)
def test_status_of_a_launch(torchrun, error, status):
    def main(arguments) -> None:
        raise error

    torchrun(main)
    assert main_status() == status


def test_a_signal_ahead_of_a_time_limit_is_forwarded(torchrun):
    torchrun(lambda arguments: os.kill(os.getpid(), signal.SIGUSR1))
    assert main_status() == 138


def main_status() -> int:
    return main(['train', str(CONFIG), '--nproc', '2'])


def test_trusting_is_a_flag(monkeypatch):
    seen = {}
    monkeypatch.setattr(sys, 'argv', ['mmpaca'])  # put back afterwards
    monkeypatch.setattr(launch, 'register_loaders', lambda trust: seen.update(trust=trust))
    monkeypatch.setattr(runpy, 'run_path', lambda *a, **k: seen.update(argv=sys.argv[1:]))
    with pytest.warns(UserWarning, match='may run code'):
        assert main(['test', '--trust-checkpoint', str(CONFIG), 'x.pth', '--show-dir', 'd']) == 0
    assert seen == dict(trust=True, argv=[str(CONFIG), 'x.pth', '--show-dir=d'])


@pytest.mark.parametrize(
    ('arguments', 'unused'),
    [([], None), (['--cfg-options', 'a=1', 'find_unused_parameters=True'], True)],
)
def test_cpu_processes_keep_what_the_config_asks_of_ddp(tmp_path, monkeypatch, arguments, unused):
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '0')
    monkeypatch.setattr(launch.dist, 'rendezvous', lambda url: iter([(HashStore(), 1, 2)]))
    monkeypatch.setattr(launch.dist, 'init_process_group', lambda backend, **kwargs: None)
    monkeypatch.setattr(launch.dist, 'get_rank', lambda: 1)
    (tmp_path / 'own.py').write_text('model_wrapper_cfg = dict(bucket_cap_mb=5)')
    argv = [str(tmp_path / 'own.py'), *arguments]
    argv += launch._use_cpu_processes(argv)
    wrapper = launch._config_of(argv).model_wrapper_cfg
    assert wrapper.pop('find_unused_parameters', None) is unused
    assert wrapper == dict(
        type='mmpaca.CPUDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        bucket_cap_mb=5,
    )


def test_options_that_nothing_reads(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['mmpaca'])
    monkeypatch.setattr(runpy, 'run_path', lambda *a, **k: None)
    options = ['train_dataloder.batch_size=1', 'resume=True', 'model.backbone.arch=tiny']
    with pytest.warns(UserWarning) as caught:
        assert main(['train', str(CONFIG), '--cfg-options', *options]) == 0
    (said,) = [str(w.message) for w in caught if '--cfg-options' in str(w.message)]
    assert said.endswith('train_dataloder is not in the config; is train_dataloader meant?')


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        ('train CONFIG --amp', '--amp: mixed precision needs a GPU'),
        ('train CONFIG --cfg-options train_cfg.max_iters=-5', 'train_cfg.max_iters=-5 is invalid'),
        ('train CONFIG --cfg-options train_dataloader.batch_size=0', 'train_dataloader.batch_size=0 is inv'),
        ('train CONFIG --cfg-options val_dataloader.num_workers=-1', 'val_dataloader.num_workers=-1 is invalid: give a whole number >= 0'),
        ('train CONFIG --cfg-options optim_wrapper.accumulative_counts=0', 'optim_wrapper.accumulative_counts=0 is'),
        ('train CONFIG --cfg-options default_hooks.logger.interval=a', "default_hooks.logger.interval='a' is"),
        ('train CONFIG --cfg-options randomness.seed=-1', 'randomness.seed=-1 is invalid'),
        ('train CONFIG --cfg-options train_cfg.max_iters=1.5', 'train_cfg.max_iters=1.5 is inv'),
        ('train plain.py --elastic', '--elastic: the config has no mmpaca.ExactResumeHook'),
        ('train nowhere.py', 'config nowhere.py is neither a file nor a config of mmpaca'),
        ('train own.py', 'mmpaca::nowhere.py does not exist'),
        ('train open.py', 'config open.py cannot be read: SyntaxError'),
        ('train empty.py', 'config empty.py has no `model`'),
        ('test x.pth CONFIG', 'x.pth is not a config'),
        ('test CONFIG x.pth --out foo.txt', '--out foo.txt: predictions are pickled'),
        ('test CONFIG x.pth --out=foo.txt', '--out foo.txt: predictions are pickled'),
        ('test CONFIG x.pth --tta', '--tta: mmdet has no test-time augmentation for instance'),
        ('test CONFIG published', 'no weights are published for mask-rcnn_paca-demo_shapes'),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_in_a_line(monkeypatch, tmp_path, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    (tmp_path / 'own.py').write_text("_base_ = 'mmpaca::nowhere.py'")
    (tmp_path / 'open.py').write_text('model = dict(')
    (tmp_path / 'plain.py').write_text("model = dict(type='PaCaViT')")
    (tmp_path / 'empty.py').write_text('a = 1')
    (tmp_path / 'x.pth').write_bytes(b'')
    assert main(arguments.replace('CONFIG', str(CONFIG)).split()) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f'error: {says}') and printed.count('\n') == 1
