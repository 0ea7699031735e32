"""Warnings about an answer: what was assumed, omitted or unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cytoray_analysis.plural import counted


@dataclass(frozen=True)
class AnswerWarning:
    """A fact that a user should know before using an answer.

    Attributes
    ----------
    code
        A short name in lower case with hyphens, the same for each kind of warning, such as ``pixel-size-unknown``.
    sentence
        What was found and how it was handled, with the relevant names and numbers.
    """

    code: str
    sentence: str

    def __str__(self) -> str:
        """Return the sentence with its code, for a terminal."""
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
        Number of images with this warning.
    sentence
        The sentence of the first one.
    """

    code: str
    count: int
    sentence: str

    def __str__(self) -> str:
        """Return it as one line for a terminal."""
        return f"{counted(self.count, 'image')}: {self.sentence} [{self.code}]"


def summarise_warnings(images: Iterable[Iterable[AnswerWarning]]) -> tuple[WarningSummary, ...]:
    """Count the warnings of images by code, in the order of first occurrence."""
    found: dict[str, list[str]] = {}
    for warnings in images:
        for code, sentence in {one.code: one.sentence for one in reversed(tuple(warnings))}.items():
            found.setdefault(code, []).append(sentence)
    return tuple(WarningSummary(code, len(sentences), sentences[0]) for code, sentences in found.items())
