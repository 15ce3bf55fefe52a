"""The first files of tools/dev/fuzz_checkpoints.py."""

import importlib.util

import pytest


@pytest.mark.filterwarnings('ignore')
def test_no_mutation_of_a_checkpoint_crashes_or_is_not_named(root, tmp_path):
    path = root / 'tools/dev/fuzz_checkpoints.py'
    spec = importlib.util.spec_from_file_location('fuzz_checkpoints', path)
    fuzzer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzzer)
    suffixes = set()
    for seed in range(100):
        assert fuzzer.finding(seed, tmp_path) is None, seed
        suffixes.add(fuzzer.mutated(seed)[0])
    assert suffixes == {'.pth', '.safetensors'}
