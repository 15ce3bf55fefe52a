"""Environment for bug reports."""

from .installed import check_conflicts, check_versions, installed
from .live import check_running
from .report import OK


def collect_env() -> dict[str, str]:
    """Describe this installation for a bug report.

    Extends mmdet's ``collect_env`` with mmpaca's version, the source of mmcv's operators, and the
    notes and errors of ``mmpaca doctor``.

    Returns:
        Values by name, one per line of the report.
    """
    from mmdet.utils import collect_env as collect_mmdet_env

    from mmpaca import __version__

    running = list(check_running())
    complaints = [
        str(one) for one in (*check_versions(), *check_conflicts(), *running) if one.level != OK
    ]
    return {
        **collect_mmdet_env(),
        'MMCV': ', '.join(f'{name} {version}' for name, version in installed('mmcv').items()),
        'MMCV operators': next(one.text for one in running if one.name == 'operators'),
        'mmpaca': __version__,
        'mmpaca doctor': '; '.join(complaints) or 'all is well',
    }
