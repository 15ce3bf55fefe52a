"""Load mutated checkpoints and check that each is loaded, or refused by an error that names it.

Mutates bytes, opcodes and records of checkpoints in torch's two formats, of safetensors files and
of configuration texts. Each file is loaded in a child process; a crash, a hang, another error or
too much memory is printed, the file is kept, and the script ends with status 1.

``--mode resume`` mutates the content of a training checkpoint and resumes from it, see
fuzz_resume.py.
"""

import argparse
import contextlib
import copy
import io
import json
import multiprocessing
import pickletools
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import fuzz_resume
import numpy as np
import safetensors.torch
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer

import mmpaca  # noqa: F401
from mmpaca.checkpoint import UnsafeCheckpointError, load_from_local
from mmpaca.checkpoint.standins import ALLOWED

TEXT = "model = dict(type='ResNet', sizes=[(1, -2.5), {'a': None}])\nlr = 0.1\n"
PIECES = (
    "__import__('os').abort()", 'dict(', ')', '[', '{', '**', '*', 'lambda: ', ' for x in y', '{{', '}}',
    '_base_', '=', '\n', "'", 'import os', '\\', '(' * 99, '-' * 999, "type='os.abort'", '.a' * 99,
)  # fmt: skip
OPCODES = (b'R', b'b', b'\x81', b'(', b't', b'\x85', b'\x86', b'\x87', b's', b'u', b'a', b'e', b'Q',
           b'}', b']', b')', b'N', b'\x88', b'K\x05', b'J\xff\xff\xff\xff', b'0', b'2',
           b'\x8a\x08' + b'\x7f' * 8)  # fmt: skip


def whole() -> dict:
    """A checkpoint with each kind of object that is loaded."""
    weight = torch.arange(6.0).reshape(2, 3)
    return dict(
        state_dict=torch.nn.BatchNorm1d(2).state_dict(),
        views=[weight, weight.t(), torch.nn.Parameter(weight), torch.ones(2).half()],
        message_hub=dict(
            log_scalars=dict(loss=HistoryBuffer([1, 2], [1, 1])), runtime_info=dict(cfg=TEXT)
        ),
        meta=dict(epoch=1, iter=2, cfg=TEXT, best=np.float64(0.5), ids=np.arange(4)),
        args=argparse.Namespace(lr=0.1),
        config=ConfigDict(a=[ConfigDict(b=1)]),
        plain=[b'x', {1}, 1j, bytearray(b'y'), torch.Size((2,)), torch.float16, np.dtype('f4')],
    )


def mutated(seed: int) -> tuple[str, bytes]:
    """The suffix and content of the file of a seed."""
    rng = random.Random(seed)
    content = whole()
    kind = rng.choice(('bytes', 'legacy', 'opcodes', 'opcodes', 'records', 'text', 'safetensors'))
    if kind == 'text':
        content['meta']['cfg'] = _mutated_text(rng)
        return '.pth', _saved(content)
    if kind == 'safetensors':
        meta = json.dumps(dict(cfg=_mutated_text(rng)))
        file = safetensors.torch.save(dict(content['state_dict']), dict(format='pt', meta=meta))
        return '.safetensors', _mutated_bytes(file, rng, rng.random() < 0.7)
    if kind == 'legacy':
        return '.pth', _mutated_bytes(_saved(content, zipped=False), rng)
    if kind == 'bytes':
        return '.pth', _mutated_bytes(_saved(content), rng)
    return '.pth', _repacked(_saved(content), rng, kind)


def _saved(content: dict, zipped: bool = True) -> bytes:
    with io.BytesIO() as file:
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()


def _repacked(content: bytes, rng: random.Random, kind: str) -> bytes:
    """The archive with valid checksums and a mutated pickle or other record."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(result, 'w') as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            data = old.read(name)
            if kind == 'opcodes' and name.endswith('/data.pkl'):
                data = _mutated_opcodes(data, rng)
            elif kind == 'records' and name == chosen:
                data = rng.choice((b'', data[: len(data) // 2], data * 3, bytes(10)))
            new.writestr(name, data)
            if kind == 'records' and name == chosen and rng.random() < 0.2:
                new.writestr(rng.choice((name.upper(), 'archive/constants.pkl', 'x/y')), data)
    return result.getvalue()


def _mutated_opcodes(data: bytes, rng: random.Random) -> bytes:
    positions = [place for _, _, place in pickletools.genops(data)]
    pieces = [data[a:b] for a, b in zip(positions, [*positions[1:], len(data)], strict=True)]
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(pieces))
        name = rng.choice([*ALLOWED, 'os.abort', 'builtins.eval']).rpartition('.')
        pieces[place : place + rng.randint(0, 2)] = rng.choice((
            [rng.choice(OPCODES)],
            [f'c{name[0]}\n{name[2]}\n'.encode()],
            [b'h' + bytes([rng.randrange(120)])],
            [rng.choice(pieces)],
            pieces[place : place + rng.randint(1, 12)] * 2,
        ))  # fmt: skip
    return b''.join(pieces)


def _mutated_bytes(data: bytes, rng: random.Random, keep: bool = False) -> bytes:
    changed = bytearray(data)
    for _ in range(0 if keep else rng.randint(1, 8)):
        place = rng.randrange(len(changed))
        changed[place : place + rng.choice((0, 1, 1, 1, 4))] = rng.randbytes(
            rng.choice((0, 1, 1, 4))
        )
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.1 else changed)


def _mutated_text(rng: random.Random) -> str:
    text = TEXT
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice(PIECES) + text[place + rng.randint(0, 8) :]
    return text


def finding(seed: int, folder: Path) -> str | None:
    """Load the file of a seed, and use what was loaded."""
    suffix, content = mutated(seed)
    for old in folder.iterdir():
        old.unlink()
    path = folder / f'fuzzed{suffix}'
    path.write_bytes(content)
    try:
        loaded = load_from_local(path)
    except (RuntimeError, UnsafeCheckpointError) as error:
        return None if str(path) in str(error) else f'an error without the file name: {error}'
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    with contextlib.suppress(RuntimeError, ValueError):  # e.g. too deep for repr
        repr(copy.deepcopy(loaded))
    meta = loaded.get('meta') if isinstance(loaded, dict) else None
    text = meta.get('cfg') if isinstance(meta, dict) else None
    if isinstance(text, str):
        with contextlib.suppress(Exception):  # but not os.abort
            Config.fromstring(text, '.py')
    return None


def _work(
    seeds: range, place: 'multiprocessing.sharedctypes.Synchronized', folder: Path, mode: str
) -> None:
    warnings.simplefilter('ignore')
    if mode == 'resume':
        fuzz_resume.quicken()
        fuzzer = fuzz_resume.Fuzzer(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for seed in seeds:
        place.value = seed
        signal.alarm(30)  # ends a hang
        fault = fuzzer.finding(seed) if mode == 'resume' else finding(seed, folder)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        if fault is None and grown > 300:
            fault = f'{grown:.0f} MiB of memory'
        if fault:
            print(f'seed {seed}: {fault}', flush=True)
            sys.exit(1)
    if mode == 'resume':
        print(
            ', '.join(f'{key} {count}' for key, count in sorted(fuzzer.counts.items())), flush=True
        )


def main() -> None:
    """Fuzz for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=60, help='duration (default: 60)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the first file (default: 0)')
    parser.add_argument('--batch', type=int, default=200, help='files per process (default: 200)')
    parser.add_argument(
        '--mode',
        choices=('files', 'resume'),
        default='files',
        help='load files, or resume a run from them (default: files)',
    )
    args = parser.parse_args()
    context = multiprocessing.get_context('fork')
    place = context.Value('q', 0)
    seed, failures = args.seed, 0
    end = time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            seeds = range(seed, seed + args.batch)
            process = context.Process(target=_work, args=(seeds, place, Path(folder), args.mode))
            process.start()
            process.join()
            seed = seeds.stop
            if process.exitcode:
                seed = place.value + 1
                failures += 1
                print(f'seed {place.value}: exit status {process.exitcode}', flush=True)
                for file in filter(Path.is_file, Path(folder).iterdir()):
                    kept = shutil.copy(file, f'seed{place.value}{file.suffix}')
                    print(f'see {kept}')
    print(f'{seed - args.seed} files, {failures} failures')
    sys.exit(1 if failures else 0)


if __name__ == '__main__':
    main()
