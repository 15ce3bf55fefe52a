"""``mmpaca doctor``: check an installation and name the commands that fix it.

Versions are read from the packages' metadata, without importing anything. Then a separate process
imports mmpaca and runs it on every device, so a crash there does not hide the other findings.
"""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from .installed import check_conflicts, check_versions, versions
from .report import NOTE, WRONG, Finding
from .symptoms import REINSTALL_TORCH, explain, last_error

__all__ = ['Finding', 'diagnose', 'run']

# The packages print to stderr, so that stdout holds findings only.
_LIVE = """
import json, sys
report, sys.stdout = sys.stdout, sys.stderr
sys.path[:] = json.loads(sys.argv[1])
from mmpaca.doctor.live import main
main(report)
"""


def run() -> int:
    """Print versions and findings.

    Returns:
        The exit status, 1 if anything is wrong, else 0.
    """
    for name, value in versions().items():
        print(f'{name}: {value}')
    print(flush=True)
    wrong = 0
    for finding in diagnose():
        print(finding, flush=True)
        wrong += finding.level == WRONG
    print(f'\n{wrong} wrong' if wrong else '\nall is well')
    return 1 if wrong else 0


def diagnose() -> Iterator[Finding]:
    """Yield all findings: first what is installed, then what runs."""
    found = list(check_versions())
    yield from found
    yield from check_conflicts()
    if any(finding.level == WRONG for finding in found):
        yield Finding('mmpaca', NOTE, 'not run: fix the versions first')
    else:
        yield from _diagnose_running()


def _diagnose_running() -> Iterator[Finding]:
    """Yield the findings of :mod:`mmpaca.doctor.live`, from a process that may crash."""
    command = [sys.executable, '-c', _LIVE, json.dumps(sys.path)]
    last = 'import mmpaca'
    with (
        tempfile.TemporaryFile('w+') as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        for line in process.stdout or ():  # a pipe: never None
            if not line.startswith('{'):  # printed by a library that bypasses sys.stdout
                continue
            finding = Finding.from_json(line)
            last = f'after {finding.name}'
            yield finding
        status = process.wait()
        errors.seek(0)
        said = last_error(errors.read()) or f'exit status {status}'
    if status < 0:
        text = f'Python died of {signal.Signals(-status).name}: compiled packages are incompatible'
        yield Finding(last, WRONG, f'{text}; run: {REINSTALL_TORCH}')
    elif status:
        yield Finding(last, WRONG, explain(said))
