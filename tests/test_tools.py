"""The command-line tools as a user calls them: training, testing, resuming."""

import os
import re

import pytest
import torch
from commands import quick_options, run_tool_in
from mmengine.config import Config

from mmpaca.checkpoint import load_from_local
from mmpaca.models import PaCaViT
from mmpaca.models.official import rename_official

CONFIG = 'configs/demo/mask-rcnn_paca-demo_shapes.py'


@pytest.fixture(scope='module')
def options(shapes) -> list[str]:
    return quick_options(shapes)


@pytest.fixture(scope='module')
def trained(root, options, tmp_path_factory):
    """A work_dir of tools/train.py, with iter_2.pth and iter_4.pth, and what was printed."""
    folder = tmp_path_factory.mktemp('trained')
    train = ('train.py', root / CONFIG, '--work-dir', 'full')
    return folder / 'full', run_tool_in(folder, *train, *options)


def figures(printed: str) -> list[str]:
    """Names and values of the last evaluation."""
    return re.findall(r'coco/\w+: +-?[\d.]+', printed)[-12:]


def weights(path) -> dict:
    return load_from_local(path)['state_dict']


def test_train_test_resume(root, tool, trained, options, tmp_path):
    """Checkpoints that mmengine wrote come back, on a torch that loads weights only."""
    config = root / CONFIG
    full, printed = trained
    measured = figures(printed)
    assert len(measured) == 12 and {f.partition('_')[0] for f in measured} == {'coco/bbox', 'coco/segm'}  # fmt: skip

    printed = tool(
        'test.py', config, full / 'iter_4.pth', '--work-dir', 'test',
        '--out', 'results.pkl', '--show-dir', 'pictures', *options,
    )  # fmt: skip
    assert figures(printed) == measured and (tmp_path / 'results.pkl').is_file()
    assert len(list((tmp_path / 'test').rglob('*.png'))) == 8

    resume = ('--work-dir', 'half', '--resume', full / 'iter_2.pth')
    printed = tool('train.py', config, *resume, *options)
    assert 'resumed epoch: 0, iter: 2' in printed
    assert (tmp_path / 'half/iter_4.pth').is_file()
    # The losses of the first two iterations came back with the message hub.
    history = load_from_local(tmp_path / 'half/iter_4.pth')['message_hub']['log_scalars']
    assert len(history['train/loss'].data[0]) == 4

    printed = tool('test.py', config, 'nowhere.pth', *options, ok=False)
    assert 'checkpoint nowhere.pth does not exist' in printed


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        ('dist_train.sh', ['config.py']),
        ('dist_test.sh', ['config.py', 'checkpoint.pth']),
        ('slurm_train.sh', ['partition', 'job', 'config.py']),
        ('slurm_test.sh', ['partition', 'job', 'config.py']),
    ],
)
def test_wrong_arguments_print_the_usage(root, run, script, arguments):
    assert re.search(
        rf'usage: .*{script} [A-Z]', run(root / 'tools' / script, *arguments, ok=False)
    )


def test_gpus_must_be_a_number(root, run):
    printed = run(root / 'tools/dist_train.sh', 'config.py', 'four', ok=False)
    assert "argument --nproc: 'four' is invalid, give a whole number >= 1" in printed


@pytest.mark.parametrize(
    ('script', 'last'), [('slurm_train.sh', 'work dir'), ('slurm_test.sh', 'a b.pth')]
)
def test_slurm_command(root, run, tmp_path, script, last):
    """With an srun that prints what it is given, a line each."""
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/srun').write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    (tmp_path / 'bin/srun').chmod(0o755)
    env = dict(
        PATH=f'{tmp_path}/bin:{os.environ["PATH"]}',
        GPUS='16',
        GPUS_PER_NODE='4',
        SRUN_ARGS='--qos=a --mem=1',
    )
    lines = run(
        root / 'tools' / script,
        'part',
        'name',
        'config.py',
        last,
        '--cfg-options',
        'a="x y"',
        **env,
    ).splitlines()
    assert lines[:2] == ['-p', 'part']
    assert {
        '--job-name=name',
        '--ntasks=16',
        '--gres=gpu:4',
        '--ntasks-per-node=4',
        '--qos=a',
        '--mem=1',
    } <= set(lines)
    assert {'config.py', 'a="x y"', '--launcher', 'slurm'} <= set(lines)
    assert f'--work-dir={last}' in lines if script == 'slurm_train.sh' else last in lines


@pytest.mark.parametrize('batch', [True, False])
def test_slurm_requeues_at_the_time_limit(root, run, tmp_path, batch):
    """With an srun that meets the time limit once, then fails."""
    (tmp_path / 'bin').mkdir()
    srun = '#!/usr/bin/env bash\necho "$@"\n[ -e met ] && exit 3\ntouch met\nexit 138\n'
    for name, text in (('srun', srun), ('scontrol', '#!/usr/bin/env bash\necho scontrol "$@"\n')):
        (tmp_path / 'bin' / name).write_text(text)
        (tmp_path / 'bin' / name).chmod(0o755)
    env = dict(PATH=f'{tmp_path}/bin:{os.environ["PATH"]}')
    command = (root / 'tools/slurm_train.sh', 'part', 'name', 'config.py', 'dir')
    if batch:
        lines = run(*command, ok=False, SLURM_JOB_ID='77', **env).splitlines()
        assert lines[-1] == 'scontrol requeue 77'
        lines = [lines[0], *run(*command, ok=False, SLURM_RESTART_COUNT='1', **env).splitlines()]
    else:
        lines = run(*command, ok=False, **env).splitlines()
    started = [line for line in lines if line.startswith('-p part')]
    assert len(started) == 2 and all('--signal=USR1@120' in line for line in started)
    assert ['--resume' in line for line in started] == [False, True]


def test_an_official_detector_file_is_a_checkpoint_of_test(root, tool, trained, options, tmp_path):
    """No conversion: names of the authors' release behind ``backbone.``, neck and heads as mmdet's."""
    full, printed = trained
    ours = weights(full / 'iter_4.pth')
    cfg = Config.fromfile(root / CONFIG).model.backbone
    arch = {k: v for k, v in cfg.arch.items() if k != '_delete_'}
    names = {f'backbone.{k}' for k in PaCaViT(arch, num_clusters=cfg.num_clusters).state_dict()}
    official = {}
    for name, value in ours.items():
        official[f'backbone.{to_official(name[9:])}' if name in names else name] = value
    assert all(rename_official(k[9:]) for k in official if k.startswith('backbone.'))
    torch.save(dict(state_dict=official), tmp_path / 'official.pth')
    measured = figures(printed)  # in the training; its own file gives the same, as tested above
    assert figures(tool('test.py', root / CONFIG, 'official.pth', *options)) == measured

    del official['backbone.stage1.0.attn.q.weight']
    torch.save(dict(state_dict=official), tmp_path / 'part.pth')
    printed = tool('test.py', root / CONFIG, 'part.pth', *options, ok=False)
    assert 'missing: stages.0.blocks.0.attn.q.weight' in printed
    torch.save(
        {k[9:]: v for k, v in official.items() if k.startswith('backbone.')},
        tmp_path / 'imagenet.pth',
    )
    printed = tool('test.py', root / CONFIG, 'imagenet.pth', *options, ok=False)
    assert 'missing: neck.lateral_convs.0' in printed


def to_official(name: str) -> str:
    """The authors' name of a tensor of ours; the inverse of the project's table, for this test."""
    owner, *rest = name.split('.')
    tail = '.'.join(rest)
    if owner == 'stem':
        return 'patch_embed.' + tail.replace('convs', 'proj')
    stage, part, *rest = rest
    tail = '.'.join(rest)
    if part == 'norm':
        return f'norm{int(stage) + 1}.{tail}'
    if part == 'downsample':
        return f'transition{stage}.' + tail.replace('conv', 'proj')
    tail = re.sub(r'norm([12])\.', r'norm\1_before.', tail) if '.norm' in f'.{tail}' else tail
    tail = tail.replace('clustering', 'clustering.clustering').replace('dwconv', 'dwconv.dwconv')
    return f'stage{int(stage) + 1}.{tail}'
