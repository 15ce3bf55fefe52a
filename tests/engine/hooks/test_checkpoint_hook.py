"""No moment of a save is a bad one to die; resuming finds what is whole."""

import functools
import os
import re
import signal
from pathlib import Path

import faults  # noqa: F401  (registers the hook)
import pytest
import torch
import toy

from mmpaca.checkpoint import load_from_local
from mmpaca.checkpoint.resuming import newest_whole_checkpoint
from mmpaca.checkpoint.saving import write_atomically

# By epoch with a best checkpoint at each, and by iteration; one file is kept. Faults come from
# the given save on, for as many changes to the disk: those of one epoch, and of one save.
CASES = {
    'best': dict(epochs=True, checkpoint=dict(max_keep_ckpts=1, save_best='mAP')),
    'iter': dict(epochs=False, checkpoint=dict(max_keep_ckpts=1)),
}
WINDOW = {'best': (2, 44), 'iter': (2, 19)}
NAMES = {'best': ('epoch_1.pth', 'epoch_2.pth'), 'iter': ('iter_4.pth', 'iter_6.pth')}
LEFT = {'best': {'epoch_3.pth', 'best_mAP_epoch_3.pth'}, 'iter': {'iter_18.pth'}}


def run(case: str, work_dir: Path, **fault):
    """A call that trains, with a fault or resuming."""
    kwargs = dict(CASES[case], end=3)
    if fault:
        fault = dict(type='Faults', save=WINDOW[case][0], log=str(work_dir) + '.txt', **fault)
        return functools.partial(toy.train, work_dir, hooks=(fault,), **kwargs)
    return functools.partial(toy.train, work_dir, resume=True, **kwargs)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if '.pth' in path.name}


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory) -> Path:
    """A finished run per case, and the changes that the save in question makes to the disk."""
    folder = tmp_path_factory.mktemp('undisturbed')
    calls = [run(case, folder / case, at=None, kind='') for case in CASES]
    assert toy.forked(*calls) == [0, 0]
    return folder


@pytest.mark.parametrize('case', CASES)
def test_what_a_save_does(undisturbed, case):
    """First the new file, its digest and the name of it, then the old file goes."""
    assert files(undisturbed / case) == LEFT[case]
    lines = (undisturbed / f'{case}.txt').read_text().splitlines()[: WINDOW[case][1]]
    changes = [line.split()[0] for line in lines]
    whole = ['open', 'write', 'fsync', 'replace', 'open', 'fsync']
    if case == 'iter':
        assert changes == [*whole * 3, 'remove']
    else:
        assert changes == [*whole * 3, 'remove', *whole * 4, 'remove']
    assert lines[-1].endswith('best_mAP_epoch_1.pth' if case == 'best' else NAMES[case][0])


@pytest.mark.parametrize(
    ('case', 'at'), [(case, at) for case, (_, count) in WINDOW.items() for at in range(count)]
)
def test_dying_or_a_full_disk_at_each_change(undisturbed, tmp_path, case, at):
    """What was saved last is there, and everything that is there is whole.

    After every eighth change the run also goes on, to the end of one that was not disturbed.
    """
    kinds = ('kill', 'full')
    statuses = toy.forked(*(run(case, tmp_path / kind, at=at, kind=kind) for kind in kinds))
    assert statuses == [-signal.SIGKILL, 1]
    lines = (undisturbed / f'{case}.txt').read_text().splitlines()
    named = next(
        i for i, line in enumerate(lines) if re.match(r'replace.*last_checkpoint(?!\.sha256)', line)
    )
    for kind in kinds:
        work_dir = tmp_path / kind
        for name in files(work_dir):
            if name.endswith('.pth'):
                load_from_local(work_dir / name)
        best = {
            name for name in files(work_dir) if name.startswith('best') and name.endswith('.pth')
        }
        assert best or case == 'iter'
        last = Path((work_dir / 'last_checkpoint').read_text())
        assert last.name == NAMES[case][at > named] and last.is_file()
    if at % 8 == 0:
        assert toy.forked(*(run(case, tmp_path / kind) for kind in kinds)) == [0, 0]
        for kind in kinds:
            assert toy.equal(
                toy.last(tmp_path / kind)['state_dict'], toy.last(undisturbed / case)['state_dict']
            )
            assert files(tmp_path / kind) == LEFT[case]


def test_an_atomic_write_keeps_links_and_modes(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'real/file')
    for content in (b'first', b'second'):
        write_atomically(tmp_path / 'link', content)
        assert (tmp_path / 'real/file').read_bytes() == content and (tmp_path / 'link').is_symlink()
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / 'real/file').stat().st_mode & 0o777 == 0o666 & ~umask
    assert os.listdir(tmp_path / 'real') == ['file']


def test_an_atomic_write_replaces_no_device(tmp_path):
    """A link to a device named as a checkpoint, and a process that may replace it, e.g. root's."""
    os.mkfifo(tmp_path / 'device')
    (tmp_path / 'iter_2.pth').symlink_to('device')
    (tmp_path / 'folder').mkdir()
    for name in ('iter_2.pth', 'device', 'folder'):
        with pytest.raises(OSError, match='not a regular file, nothing is written'):
            write_atomically(tmp_path / name, b'content')
    assert (tmp_path / 'device').is_fifo() and (tmp_path / 'iter_2.pth').is_symlink()


@pytest.mark.parametrize('kind', ['link', 'fifo'])
def test_last_checkpoint_is_not_written_through(tmp_path, kind):
    """A link in its place may name any file of the user."""
    (tmp_path / 'run').mkdir()
    (tmp_path / 'precious').write_text('unchanged')
    last = tmp_path / 'run/last_checkpoint'
    last.symlink_to(tmp_path / 'precious') if kind == 'link' else os.mkfifo(last)
    assert toy.forked(functools.partial(toy.train, tmp_path / 'run', end=1)) == [0]
    assert (tmp_path / 'precious').read_text() == 'unchanged'
    assert last.read_text() == str(tmp_path / 'run/epoch_1.pth') and not last.is_symlink()


def broken(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    weight = load_from_local(path)['state_dict']['layers.0.weight'].numpy().tobytes()
    if kind == 'cut':
        content = content[: len(content) // 2]
    elif kind == 'empty':
        content = b''
    elif kind == 'flipped':  # one bit of a tensor
        content[content.index(weight) + 1] ^= 4
    path.write_bytes(content)


def test_resuming_falls_back_to_the_newest_whole_file(tmp_path):
    train = functools.partial(toy.train, tmp_path / 'run', end=2)
    kill = dict(type='Killer', train=11)
    assert toy.forked(functools.partial(train, epochs=False, hooks=(kill,))) == [-signal.SIGKILL]
    paths = {i: tmp_path / f'run/iter_{i}.pth' for i in (2, 4, 6, 8, 10)}
    find = functools.partial(newest_whole_checkpoint, [str(tmp_path / 'run')], 'iter_{}.pth')
    assert find(str(paths[10])) == (str(paths[10]), [])
    assert find(None) == (str(paths[10]), [])
    assert find(str(paths[4]))[0] == str(paths[4])  # what last_checkpoint says comes first
    assert find('moved/iter_10.pth') == (str(paths[10]), [])

    for i, kind in ((10, 'cut'), (8, 'empty'), (6, 'flipped')):
        broken(paths[i], kind)
    torch.save(dict(state_dict={}), paths[4])  # whole, but of no run
    path, skipped = find(str(paths[10]))
    assert path == str(paths[2]) and len(skipped) == 4
    assert 'iter_10.pth' in skipped[0] and 'iter_6.pth is damaged' in str(skipped)
    assert toy.forked(functools.partial(train, epochs=False, resume=True)) == [0]
    log = max((tmp_path / 'run').glob('*/*.log'), key=os.path.getmtime).read_text()
    for i in (10, 8, 6, 4):
        assert re.search(rf'WARNING - skipped broken checkpoint: checkpoint \S+iter_{i}.pth', log)
    assert toy.last(tmp_path / 'run')['meta']['iter'] == 12


def test_no_fresh_start_where_all_files_are_broken(tmp_path, capfd):
    run = functools.partial(toy.train, tmp_path / 'run', end=1)
    # Nothing there at all is a start, as ever with --resume.
    assert toy.forked(functools.partial(run, resume=True)) == [0]
    (log,) = (tmp_path / 'run').glob('*/*.log')
    says = f'no checkpoint to resume from in {tmp_path}/run'
    assert says in log.read_text()
    broken(tmp_path / 'run/epoch_1.pth', 'cut')
    assert toy.forked(functools.partial(run, resume=True)) == [1]
    printed = capfd.readouterr().err
    assert re.search('cannot resume, all checkpoints are broken: .*epoch_1.pth.*truncated', printed)
    (tmp_path / 'run/epoch_1.pth').unlink()
    assert toy.forked(functools.partial(run, resume=True)) == [1]
    assert 'epoch_1.pth does not exist' in capfd.readouterr().err


def test_arguments_of_mmengines_hook_still_mean_the_same(tmp_path):
    """Several best ones, published keys, another folder."""
    hook = dict(
        max_keep_ckpts=2,
        save_best=['mAP', 'loss'],
        published_keys=['meta', 'state_dict'],
        out_dir=str(tmp_path / 'out'),
    )
    call = functools.partial(toy.train, tmp_path / 'run', end=3, checkpoint=hook)
    assert toy.forked(call) == [0]
    names = files(tmp_path / 'out/run')
    assert {'epoch_2.pth', 'epoch_3.pth', 'best_mAP_epoch_3.pth', 'best_loss_epoch_1.pth'} < names
    published = {name for name in names if re.search(r'-[0-9a-f]{8}\.pth$', name)}
    assert {name[:-13] for name in published} == {
        'epoch_3', 'best_mAP_epoch_3', 'best_loss_epoch_1'
    }  # fmt: skip
    assert len(names) == 7
    for name in published:
        assert load_from_local(tmp_path / 'out/run' / name).keys() == {'meta', 'state_dict'}
    assert (tmp_path / 'run/last_checkpoint').read_text() == f'{tmp_path}/out/run/epoch_3.pth'
    assert toy.forked(functools.partial(call, end=4, resume=True)) == [0]
    assert toy.last(tmp_path / 'run')['meta']['epoch'] == 4
    assert {'epoch_3.pth', 'epoch_4.pth'} < files(tmp_path / 'out/run') - {'epoch_2.pth'}
