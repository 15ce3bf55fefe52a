"""The file that a run resumes from."""

import os
import random

import pytest
import torch

from mmpaca.checkpoint.resuming import newest_whole_checkpoint, read_last_checkpoint, what_is_wrong


def checkpoint(path, iteration=0):
    path.parent.mkdir(exist_ok=True)
    torch.save(dict(meta=dict(iter=iteration), state_dict={}, message_hub={}), path)
    return str(path)


def test_a_moved_work_directory_does_not_resume_another_run(tmp_path):
    other = checkpoint(tmp_path / 'old/iter_4.pth')
    mine = checkpoint(tmp_path / 'new/iter_4.pth')
    checkpoint(tmp_path / 'new/iter_9.pth')
    find = newest_whole_checkpoint
    assert find([str(tmp_path / 'new')], 'iter_{}.pth', other) == (mine, [])
    path, skipped = find([str(tmp_path / 'new')], 'iter_{}.pth', str(tmp_path / 'old/iter_5.pth'))
    assert path.endswith('new/iter_9.pth') and 'old/iter_5.pth' in skipped[0]


def test_the_newest_is_decided_by_its_number(tmp_path):
    for number in (9, 10, 100):
        path = checkpoint(tmp_path / f'run/iter_{number}.pth')
        os.utime(path, (1000 - number, 1000 - number))  # the clock was set back
    checkpoint(tmp_path / 'run/best_iter_500.pth')
    assert newest_whole_checkpoint([str(tmp_path / 'run')], 'iter_{}.pth', None)[0] == path


@pytest.mark.parametrize(
    'content', [b'\xff\xfe\x00', b'a\0b', b'', b'x' * 5000, b'/a\n/b'], ids=repr
)
def test_a_last_checkpoint_of_anything_is_ignored(tmp_path, content):
    (tmp_path / 'last_checkpoint').write_bytes(content)
    name, fault = read_last_checkpoint(tmp_path)
    assert name is None and 'last_checkpoint is ignored' in fault


@pytest.mark.parametrize(
    'last', ['s3://bucket/iter_5.pth', '/dev/zero', 'a\0b', '..', '/', 'http://x/iter_5.pth']
)
def test_a_last_checkpoint_that_names_anything_is_ignored(tmp_path, last):
    path = checkpoint(tmp_path / 'run/iter_4.pth')
    found, skipped = newest_whole_checkpoint([str(tmp_path / 'run')], 'iter_{}.pth', last)
    assert found == path and repr(last) in skipped[0]


def test_what_is_no_file_is_not_opened(tmp_path):
    assert read_last_checkpoint(tmp_path) == (None, None)
    os.mkfifo(tmp_path / 'last_checkpoint')
    assert 'not a regular file' in read_last_checkpoint(tmp_path)[1]
    path = checkpoint(tmp_path / 'run/iter_4.pth')
    os.mkfifo(tmp_path / 'run/iter_5.pth')
    (tmp_path / 'run/iter_6.pth').symlink_to('/dev/zero')
    found, skipped = newest_whole_checkpoint([str(tmp_path / 'run')], 'iter_{}.pth', None)
    assert found == path and all('not a regular file' in fault for fault in skipped)


def test_no_bytes_end_the_search(tmp_path):
    """Each mutation is whole or named; nothing else is raised."""
    path = checkpoint(tmp_path / 'run/iter_4.pth')
    whole = (tmp_path / 'run/iter_4.pth').read_bytes()
    rng = random.Random(0)
    named = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.3:
            content = content[: rng.randrange(len(content))]
        (tmp_path / 'run/iter_4.pth').write_bytes(content)
        fault = what_is_wrong(path)
        assert fault is None or path in fault
        named += fault is not None
    assert named > 250
