"""One line per thing that was looked at."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

OK, NOTE, WRONG = 'ok', 'note', 'WRONG'


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        name: what was looked at.
        level: ``'ok'``, ``'note'`` (works, but good to know) or ``'WRONG'``.
        text: one sentence; of what is wrong, with the command that mends it after ``run:``.
    """

    name: str
    level: str
    text: str

    def __str__(self) -> str:
        return f'{self.level:6} {self.name}: {self.text}'

    def to_json(self) -> str:
        """One line, for :meth:`from_json` in another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Finding:
        """The inverse of :meth:`to_json`."""
        return cls(**json.loads(line))
