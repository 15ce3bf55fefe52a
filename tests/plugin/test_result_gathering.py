"""Results of several processes: those of mmengine's files, without files."""

import os
import sys
from pathlib import Path

import pytest
from mmengine import dist

sys.path.insert(0, str(Path(__file__).parent.parent / 'engine'))
import toy


@pytest.mark.parametrize('size', [5, 6, 9])
def test_as_mmengine_gathers_them(tmp_path, size):
    """Also where the last rank has less, and where ranks have samples beyond the end."""

    def body(rank: int) -> None:
        from mmengine.evaluator.metric import collect_results

        part = [{'sample': i, 'mask': bytes(10 * i)} for i in range(rank, size, 3)]
        if size == 5:
            part += [{'sample': 'padding'}] * (2 - len(part))
        expected = dist.collect_results_cpu(part, size, str(tmp_path / 'files'))
        os.chdir('/proc')
        for _ in range(2):
            assert collect_results(part, size, 'cpu') == expected
        assert expected is None if rank else len(expected) == size

    toy.in_processes(tmp_path, body, number=3)


def test_a_directory_of_the_user_is_used(tmp_path):
    def body(rank: int) -> None:
        from mmengine.evaluator.metric import collect_results

        (tmp_path / 'a file').touch()
        with pytest.raises(OSError, match='a file'):
            collect_results([rank], 2, 'cpu', str(tmp_path / 'a file'))

    toy.in_processes(tmp_path, body)
