"""Training and testing with tools/dist_*.sh on CPU processes and on two "machines"."""

import os
import re
from contextlib import ExitStack

import pytest
from commands import ROOT, free_port, quick_options, started

from mmpaca.checkpoint import load_from_local

CONFIG = ROOT / 'configs/demo/mask-rcnn_paca-demo_shapes.py'


@pytest.fixture(scope='module')
def options(shapes) -> list[str]:
    return quick_options(shapes)


def losses(folder) -> list[str]:
    """The total loss of each logged iteration, as printed."""
    logs = list(folder.rglob('*.log'))
    assert logs
    return re.findall(
        r'Iter\(train\).*?\bloss: ([\d.]+)', max(logs, key=os.path.getmtime).read_text()
    )


def test_two_nodes_on_loopback(options, run, tool, tmp_path):
    """Two torchrun agents of one process each train one model; two processes of one test it.

    The latter are started as torchrun does: here it is dist_test.sh and its command that are new.
    """
    train = (ROOT / 'tools/dist_train.sh', CONFIG, '1', '--work-dir')
    env = dict(NNODES='2', MASTER_ADDR='127.0.0.1', PORT=free_port())
    logs = [tmp_path / f'printed{rank}' for rank in (0, 1)]
    with ExitStack() as stack:
        nodes = []
        for rank, log in enumerate(logs):
            command = (*train, f'node {rank}', *options, 'randomness.seed=1')
            output = stack.enter_context(log.open('w'))
            node = started(tmp_path, *command, output=output, NODE_RANK=str(rank), **env)
            nodes.append(stack.enter_context(node))
        statuses = [node.wait(timeout=300) for node in nodes]
    printed = [log.read_text() for log in logs]
    assert statuses == [0, 0], '\n'.join(text[-5000:] for text in printed)
    assert 'no CUDA: 2 CPU processes' in printed[0] and 'no CUDA' not in printed[1]
    measured = re.findall(r'coco/\w+_mAP\w*: +-?[\d.]+', printed[0])
    assert len(measured) == 12
    assert len(losses(tmp_path / 'node 0')) == 4
    checkpoint = tmp_path / 'node 0/iter_4.pth'
    assert 'backbone.stem.norm.weight' in load_from_local(checkpoint)['state_dict']
    assert not (tmp_path / 'node 1/iter_4.pth').exists()
    test = ('node 0/iter_4.pth', '--work-dir', 'tested', *options)
    printed = tool('test.py', CONFIG, *test, '--launcher', 'pytorch', ranks=2)
    assert 'no CUDA: 2 CPU processes' in printed
    assert re.findall(r'coco/\w+_mAP\w*: +-?[\d.]+', printed) == measured
    (tmp_path / 'echo').write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / 'echo').chmod(0o755)
    script = (ROOT / 'tools/dist_test.sh', CONFIG, 'node 0/iter_4.pth', '2', '--out', 'a b.pkl')
    command = run(*script, PYTHON=str(tmp_path / 'echo')).splitlines()
    assert command == [
        '-m', 'mmpaca', 'test', str(CONFIG), 'node 0/iter_4.pth', '--nproc', '2', '--out', 'a b.pkl'
    ]  # fmt: skip
