"""Findings: one line for each check."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

OK, NOTE, WRONG = 'ok', 'note', 'WRONG'


@dataclass(frozen=True)
class Finding:
    """Result of a check.

    Attributes:
        name: what was checked.
        level: ``'ok'``, ``'note'`` (works, but worth knowing) or ``'WRONG'``.
        text: one sentence; the command that fixes a fault comes after ``run:``.
    """

    name: str
    level: str
    text: str

    def __str__(self) -> str:
        return f'{self.level:6} {self.name}: {self.text}'

    def to_json(self) -> str:
        """Return one line for :meth:`from_json` in another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Finding:
        """Invert :meth:`to_json`."""
        return cls(**json.loads(line))
