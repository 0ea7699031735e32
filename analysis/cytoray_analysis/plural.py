"""Numbers with their nouns."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 step``, ``16 steps``, ``9 groups of slide``."""
    word, of, rest = noun.partition(" of ")
    return f"{number} {word}{'' if number == 1 else 's'}{of}{rest}"
