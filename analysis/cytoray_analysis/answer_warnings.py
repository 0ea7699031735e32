"""Warnings about an answer: what was assumed, left out or unknown on the way from a file to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerWarning:
    """One thing that a person should know before using an answer.

    Attributes
    ----------
    code
        A short name in lower case with hyphens, the same for the same kind of thing, such as ``pixel-size-unknown``.
    sentence
        What was found and what was done about it, with the names and numbers that matter.
    """

    code: str
    sentence: str

    def __str__(self) -> str:
        """Return the sentence with its code, as a terminal shows it."""
        return f"{self.sentence} [{self.code}]"


Warnings = tuple[AnswerWarning, ...]


def join_warnings(*lists: Iterable[AnswerWarning]) -> Warnings:
    """Return all warnings in order, each once."""
    return tuple(dict.fromkeys(warning for one in lists for warning in one))


@dataclass(frozen=True)
class WarningSummary:
    """One kind of warning about many images.

    Attributes
    ----------
    code
        As in :class:`AnswerWarning`.
    count
        How many images have it.
    sentence
        Of the first of them.
    """

    code: str
    count: int
    sentence: str

    def __str__(self) -> str:
        """Return it in one line, as a terminal shows it."""
        images = "1 image" if self.count == 1 else f"{self.count} images"
        return f"{images}: {self.sentence} [{self.code}]"


def summarise_warnings(images: Iterable[Iterable[AnswerWarning]]) -> tuple[WarningSummary, ...]:
    """Sum the warnings of images up by their code, in the order in which they first came."""
    found: dict[str, list[str]] = {}
    for warnings in images:
        for code, sentence in {one.code: one.sentence for one in reversed(tuple(warnings))}.items():
            found.setdefault(code, []).append(sentence)
    return tuple(WarningSummary(code, len(sentences), sentences[0]) for code, sentences in found.items())
