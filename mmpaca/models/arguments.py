"""Checks of the backbone's arguments."""

from collections.abc import Sequence


def per_stage(name: str, value: int | Sequence[int], stages: int) -> tuple[int, ...]:
    """Expand a number to one per stage; reject anything but counts per stage."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * stages
    if len(values) != stages or any(not isinstance(v, int) or v < 0 for v in values):
        raise ValueError(f'{name}={value!r} must be {stages} numbers >= 0, one per stage')
    return values


def check_indices(out_indices: Sequence[int], stages: int) -> tuple[int, ...]:
    """Reject indices that are not ascending stages: outputs come in the order of the stages."""
    indices = tuple(out_indices) if isinstance(out_indices, Sequence) else ()
    if not indices or list(indices) != [i for i in range(stages) if i in indices]:
        raise ValueError(
            f'out_indices={out_indices!r} must name stages of 0..{stages - 1}, ascending'
        )
    return indices


def check_rates(**rates: float) -> None:
    """Reject rates outside [0, 1)."""
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f'{name}={rate!r} must be at least 0 and less than 1')
