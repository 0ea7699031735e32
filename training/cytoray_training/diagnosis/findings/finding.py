"""The definition of a finding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One finding about a training run.

    Attributes
    ----------
    name
        Stable identifier, such as ``over-fitting``; the guide explains each.
    severity
        ``error``: the model is worse than its score, or there is none; ``warning``: it could be better; ``note``: worth
        knowing.
    evidence
        The figures.
    remedy
        What to do: which recipe field to change, and its new value.
    """

    name: str
    severity: Severity
    evidence: str
    remedy: str
