"""A checkpoint that does not match the run is refused, and the entry is named."""

import copy
import functools
import math
import os
import re
import signal

import pytest
import torch
import toy
from mmengine.optim import OptimWrapper
from torch import nn

from mmpaca.checkpoint import load_from_local
from mmpaca.checkpoint.optimizer_schema import check_optimizer
from mmpaca.checkpoint.schema import ResumeError, SchemaError
from mmpaca.engine import ResumeCheckHook
from mmpaca.engine.run_state import check_run_state

NAN = float('nan')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run of three epochs after two of them, and its checkpoint."""
    work_dir = tmp_path_factory.mktemp('trained')
    killer = dict(type='Killer', train=13)
    dead = toy.forked(functools.partial(toy.train, work_dir, end=3, hooks=(killer,)))
    assert dead == [-signal.SIGKILL]
    return work_dir, load_from_local(work_dir / 'epoch_2.pth')


@pytest.fixture(scope='module')
def resuming(trained):
    """A run that is about to resume: everything is built and nothing loaded."""
    runner = toy.runner(trained[0], end=3, resume=True)
    runner.load_or_resume = lambda: None
    runner.train_loop.run = lambda: None
    runner.train()
    return runner


def change(path: str, value=None) -> functools.partial:
    """A function that sets an entry, given by names and numbers; without a value, deletes it."""
    *parents, last = (int(part) if part.isdigit() else part for part in path.split('/'))

    def apply(checkpoint: dict) -> None:
        for part in parents:
            checkpoint = checkpoint[part]
        if value is None:
            del checkpoint[last]
        else:
            checkpoint[last] = value(checkpoint[last]) if callable(value) else value

    return apply


def filled(value: float):
    return lambda tensor: torch.full_like(tensor, value)


GROUP, STATE = 'optimizer/param_groups/0', 'optimizer/state/0'
WRONG = {
    'optimizer is missing': change('optimizer'),
    'param_schedulers is missing': change('param_schedulers'),
    'run_state is missing': change('run_state'),
    'ema_state_dict is missing': change('ema_state_dict'),
    r'meta.epoch is 99, after the end of this run: .*max_epochs=3': change('meta/epoch', 99),
    'meta.epoch is 2.0 .float.': change('meta/epoch', 2.0),
    'meta.iter is -1': change('meta/iter', -1),
    'meta.iter is nan': change('meta/iter', NAN),
    'meta.iter is True': change('meta/iter', True),
    'epoch beside meta.epoch is 1': change('meta/epoch', 0),
    'sampler_seed is 4, but meta.seed 3': change('run_state/sampler_seed', 4),
    'sampler_seed is None': change('run_state/sampler_seed', lambda seed: None),
    r'rng\[0\].torch is not a state': change('run_state/rng/0/torch', lambda t: t[:-1]),
    r'rng\[0\].python is not a state': change('run_state/rng/0/python', (3, (1, 2), None)),
    r'optimizer.state is empty|has 0 parameters, 6 were saved': change(
        'optimizer/state', lambda state: {}
    ),
    r'optimizer.state has 5 parameters, 6 were saved': change(STATE),
    r'optimizer.state\[0\].exp_avg has shape \(3,\), the parameter has \(8, 4\)': change(
        f'{STATE}/exp_avg', torch.ones(3)
    ),
    r'exp_avg has 100.0% NaN': change(f'{STATE}/exp_avg', filled(NAN)),
    r'exp_avg_sq has negative': change(f'{STATE}/exp_avg_sq', filled(-1)),
    r'state\[0\].step has 100.0% NaN': change(f'{STATE}/step', filled(NAN)),
    r'state\[0\].step is 13': change(f'{STATE}/step', filled(13)),
    r'lr is nan': change(f'{GROUP}/lr', NAN),
    r'lr is -1': change(f'{GROUP}/lr', -1),
    r'lr is 1e\+30, in param_schedulers': change(f'{GROUP}/lr', 1e30),
    r'eps is 1180591620717411303424': change(f'{GROUP}/eps', 2**70),  # larger than torch's numbers
    r'betas\[1\] is 1.5': change(f'{GROUP}/betas', (0.9, 1.5)),
    r'differs in weight_decay': change(f'{GROUP}/weight_decay'),
    r'params are not those': change(f'{GROUP}/params', [0, 1, 2, 3, 4, 4]),
    r'param_schedulers has 0 schedulers, the config 1': change(
        'param_schedulers', lambda states: []
    ),
    r'last_step is 5, expected 12': change('param_schedulers/0/last_step', 5),
    r'is not of a CosineAnnealingLR': change('param_schedulers/0/T_max'),
    r'cannot be continued: ZeroDivisionError': change('param_schedulers/0/T_max', 0),
    r'layers.0.weight has 100.0% NaN': change('state_dict/layers.0.weight', filled(math.inf)),
    r'layers.0.weight is of torch.bool': change(
        'state_dict/layers.0.weight', lambda tensor: tensor.bool()
    ),
    r'state_dict lacks layers.3.bias': change('state_dict/layers.3.bias'),
    r'ema_state_dict.steps has shape': change('ema_state_dict/steps', torch.ones(2)),
    r'ema_state_dict.steps is 11, expected 12 for meta.iter=12 and begin_iter=0': change(
        'ema_state_dict/steps', torch.tensor(11)
    ),
    r'keep_ckpt_ids is .\.\./x': change('message_hub/runtime_info/keep_ckpt_ids', '../x'),
    r'log_scalars.train/loss is 5': lambda c: c['message_hub']['log_scalars'].update(
        {'train/loss': 5}
    ),
}


@pytest.mark.parametrize('says', WRONG)
def test_what_is_wrong_is_named(trained, resuming, says):
    work_dir, checkpoint = trained
    before = copy.deepcopy(resuming.model.state_dict())
    changed = copy.deepcopy(checkpoint)
    WRONG[says](changed)
    with pytest.raises(ResumeError, match=says) as error:
        ResumeCheckHook().after_load_checkpoint(resuming, changed)
    assert f'cannot resume {work_dir}/epoch_2.pth: ' in str(error.value)
    assert '\n' not in str(error.value) and error.value.__cause__ is None
    assert toy.equal(before, resuming.model.state_dict())


def test_what_is_right_says_nothing(trained, resuming):
    assert ResumeCheckHook()._check(resuming, copy.deepcopy(trained[1])) == []


def test_what_the_config_changes_is_listed(trained, tmp_path):
    """The values of the checkpoint go on; another optimizer is an error."""

    def resume(**options) -> list[str]:
        cfg = toy.runner(trained[0], end=3, resume=True).cfg
        cfg.merge_from_dict(options)
        cfg.experiment_name = f'changed {tmp_path} {options}'
        runner = toy.Runner.from_cfg(cfg)
        said = []
        runner.logger.warning = said.append
        runner.train_loop.run = lambda: None
        runner.train()
        assert runner.optim_wrapper.optimizer.param_groups[0]['initial_lr'] == 0.05
        return [line for line in said if 'differs from the config' in line]

    assert resume() == []
    (line,) = resume(
        **{
            'optim_wrapper.optimizer.lr': 0.1,
            'optim_wrapper.optimizer.weight_decay': 0.3,
            'param_scheduler.T_max': 20,
        }
    )
    for part in (
        'param_groups[0].initial_lr: 0.1 in the config, 0.05 in the checkpoint',
        'param_groups[0].weight_decay: 0.3 in the config, 0.01 in the checkpoint',
        'param_schedulers[0].T_max: 20 in the config, 30 in the checkpoint',
        "schedulers continue with the checkpoint's values; to use the config's, start a new run",
    ):
        assert part in line
    with pytest.raises(
        ResumeError, match='optimizer is of AdamW, the optimizer of the config is SGD'
    ):
        resume(optim_wrapper=dict(_delete_=True, optimizer=dict(type='SGD', lr=0.05)))
    with pytest.raises(ResumeError, match='has 1 schedulers, the config 2'):
        resume(
            param_scheduler=[dict(type='LinearLR', end=5), dict(type='MultiStepLR', milestones=[3])]
        )


@pytest.mark.parametrize(
    ('kind', 'options'),
    [
        (torch.optim.SGD, dict(lr=0.1)),
        (torch.optim.SGD, dict(lr=0.1, momentum=0.9, nesterov=True)),
        (torch.optim.Adam, dict(lr=0.1, amsgrad=True)),
        (torch.optim.AdamW, dict(lr=0.1)),
        (torch.optim.RMSprop, dict(lr=0.1, centered=True)),
        (torch.optim.Adagrad, dict(lr=0.1)),
        (torch.optim.Adafactor, dict(lr=0.1)),
        (torch.optim.NAdam, dict(lr=0.1)),
    ],
    ids=lambda value: getattr(value, '__name__', str(value)),
)
def test_states_of_all_kinds_of_optimizers(kind, options):
    """With groups of their own, a frozen and an unused layer: accepted; cut: refused."""
    layers = nn.ModuleList([nn.Linear(3, 2), nn.Conv2d(3, 2, 1), nn.Linear(2, 2)])
    layers[2].requires_grad_(False)
    groups = [
        dict(params=list(layer.parameters()), weight_decay=0.01 * i)
        for i, layer in enumerate(layers)
    ]
    wrapper = OptimWrapper(kind(groups, **options))
    for _ in range(3):
        wrapper.update_params(layers[0](torch.ones(1, 3)).square().sum())
    saved = dict(optimizer=wrapper.state_dict())
    new = OptimWrapper(kind(groups, **options))
    assert check_optimizer(copy.deepcopy(saved), new, iterations=3) == []
    tensors = [
        k
        for k, v in saved['optimizer']['state'].get(0, {}).items()
        if torch.is_tensor(v) and v.numel() > 1
    ]
    for key in tensors:
        broken = copy.deepcopy(saved)
        broken['optimizer']['state'][0][key].view(-1)[0] = NAN
        with pytest.raises(SchemaError, match=rf'optimizer.state\[0\].{key} has .*NaN'):
            check_optimizer(broken, new, iterations=3)
    saved['optimizer']['param_groups'].pop()
    with pytest.raises(SchemaError, match='has 2 groups, the optimizer of this run 3'):
        check_optimizer(saved, new, iterations=3)


def test_a_loss_scaler(monkeypatch):
    """Mixed precision switched on or off is said; a scale of NaN is refused."""
    layer = nn.Linear(2, 2)
    wrapper = OptimWrapper(torch.optim.AdamW(layer.parameters()))
    plain = dict(optimizer=wrapper.state_dict())
    state = OptimWrapper.state_dict
    scaler = torch.amp.GradScaler('cpu').state_dict()
    assert scaler['scale'] == 65536
    monkeypatch.setattr(
        OptimWrapper, 'state_dict', lambda self: dict(state(self), loss_scaler=scaler)
    )
    scaled = dict(optimizer=copy.deepcopy(wrapper.state_dict()))
    assert check_optimizer(scaled, wrapper, 0) == []
    (said,) = check_optimizer(plain, wrapper, 0)
    assert said == 'mixed precision (--amp): with it now, without it in the checkpoint'
    scaled['optimizer']['loss_scaler']['scale'] = NAN
    with pytest.raises(SchemaError, match='loss_scaler.scale is nan'):
        check_optimizer(scaled, wrapper, 0)


def test_the_hook_without_exact_resume(trained, resuming, monkeypatch):
    """Files saved by mmengine's hooks have no run_state."""
    checkpoint = copy.deepcopy(trained[1])
    del checkpoint['run_state']
    exact = next(hook for hook in resuming.hooks if type(hook).__name__ == 'ExactResumeHook')
    monkeypatch.setattr(exact, 'enabled', False)
    assert ResumeCheckHook()._check(resuming, checkpoint) == []


def test_checkpoints_of_the_last_version(trained, resuming):
    """They have neither the beginning of the epoch nor a description of the optimizer."""
    checkpoint = copy.deepcopy(trained[1])
    for key in ('epoch_start', 'optimizers'):
        del checkpoint['run_state'][key]
    assert check_run_state(checkpoint, resuming) == []
    checkpoint['meta']['iter'] += 7
    with pytest.raises(SchemaError, match='epoch 2 and iter 19'):
        check_run_state(checkpoint, resuming)


def test_a_changed_file_is_refused(tmp_path, capfd):
    """Whole, with its checksums, but not the file that was saved."""
    run = functools.partial(toy.train, tmp_path / 'run', end=1)
    assert toy.forked(run) == [0]
    path = tmp_path / 'run/epoch_1.pth'
    line = (tmp_path / 'run/last_checkpoint.sha256').read_text()
    assert re.fullmatch(r'[0-9a-f]{64}  epoch_1.pth\n', line)
    assert os.system(f'cd {tmp_path}/run && sha256sum --status -c last_checkpoint.sha256') == 0
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['state_dict']['layers.0.weight'] *= 2
    torch.save(checkpoint, path)
    resume = functools.partial(run, end=2, resume=True)
    given = functools.partial(resume, load_from=str(path))
    assert [*toy.forked(resume), *toy.forked(given)] == [1, 1]  # one run at a time holds the lock
    error = rf'ResumeError: cannot resume {path}: its SHA-256 is [0-9a-f]{{64}}, .* has {line[:64]}'
    assert len(re.findall(error, capfd.readouterr().err)) == 2
    (tmp_path / 'run/last_checkpoint.sha256').write_bytes(b'\0')
    assert toy.forked(resume) == [0]  # with a warning
    log = max((tmp_path / 'run').glob('*/*.log'), key=os.path.getmtime).read_text()
    assert 'is not checked: ' in log and 'not in the format of sha256sum' in log


def test_no_file_of_others_is_deleted(tmp_path):
    """A checkpoint names the best one, which is deleted when there is a better one."""
    run = functools.partial(toy.train, tmp_path / 'run', checkpoint=dict(save_best='mAP'))
    assert toy.forked(functools.partial(run, end=1)) == [0]
    (tmp_path / 'home').mkdir()
    (tmp_path / 'home/file.txt').write_text('x')
    path = tmp_path / 'run/epoch_1.pth'
    checkpoint = torch.load(path, weights_only=False)
    info = checkpoint['message_hub']['runtime_info']
    info['best_ckpt'] = str(tmp_path / 'home')
    info['replaced_ckpts'] = ['../home/file.txt']
    torch.save(checkpoint, path)
    (tmp_path / 'run/last_checkpoint.sha256').unlink()
    assert toy.forked(functools.partial(run, end=2, resume=True)) == [0]
    assert (tmp_path / 'home/file.txt').exists() and (
        tmp_path / 'run/best_mAP_epoch_2.pth'
    ).exists()


def test_the_best_checkpoint_of_a_moved_run(tmp_path):
    """Its successor replaces it where it is now."""
    run = functools.partial(toy.train, checkpoint=dict(save_best='mAP'))
    assert toy.forked(functools.partial(run, tmp_path / 'run', end=1)) == [0]
    (tmp_path / 'run').rename(tmp_path / 'moved')
    assert toy.forked(functools.partial(run, tmp_path / 'moved', end=2, resume=True)) == [0]
    assert [path.name for path in (tmp_path / 'moved').glob('best*')] == ['best_mAP_epoch_2.pth']


def test_what_is_not_finite_is_not_saved(tmp_path, capfd):
    """Training stops, and the last checkpoint stays."""

    def train() -> None:
        original = toy.Model.forward

        def forward(self, inputs, *args, **kwargs):
            if self.training and self.layers[1].num_batches_tracked == 8:
                self.layers[1].running_var.fill_(math.inf)
            return original(self, inputs, *args, **kwargs)

        toy.Model.forward = forward
        toy.train(tmp_path / 'run', end=2)

    assert toy.forked(train) == [1]
    last = tmp_path / 'run/epoch_1.pth'
    error = f'FloatingPointError: not saved at iteration 12: NaN or infinite values in layers.1.running_var. The last checkpoint is {last}.'
    assert error in capfd.readouterr().err
    assert toy.last(tmp_path / 'run')['meta']['epoch'] == 1
    assert not (tmp_path / 'run/epoch_2.pth').exists()
