"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 step``, ``16 steps``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
