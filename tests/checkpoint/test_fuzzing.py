"""The first files of tools/dev/fuzz_checkpoints.py, in both modes."""

import importlib
import multiprocessing

import pytest


@pytest.fixture(autouse=True)
def scripts(root, monkeypatch):
    monkeypatch.syspath_prepend(root / 'tools/dev')


@pytest.mark.filterwarnings('ignore')
def test_no_mutation_of_a_checkpoint_crashes_or_is_not_named(tmp_path):
    fuzzer = importlib.import_module('fuzz_checkpoints')
    suffixes = set()
    for seed in range(100):
        assert fuzzer.finding(seed, tmp_path) is None, seed
        suffixes.add(fuzzer.mutated(seed)[0])
    assert suffixes == {'.pth', '.safetensors'}


def resume(folder, queue) -> None:
    """Runs in a process of its own, for it changes modules."""
    fuzz_resume = importlib.import_module('fuzz_resume')
    fuzz_resume.quicken()
    fuzzer = fuzz_resume.Fuzzer(folder)
    findings = [fault for seed in range(25) if (fault := fuzzer.finding(seed))]
    queue.put((findings, fuzzer.counts))


@pytest.mark.filterwarnings('ignore')
def test_no_mutation_of_contents_resumes_another_run(tmp_path):
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    process = context.Process(target=resume, args=(tmp_path, queue))
    process.start()
    findings, counts = queue.get(timeout=200)
    process.join()
    assert findings == [] and counts['refused'] > 15 and counts['same run'] > 0, counts
