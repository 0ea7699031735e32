"""What a finding is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that was seen in a training.

    Attributes
    ----------
    name
        For programs, such as ``over-fitting``; the guide explains each.
    severity
        ``error``: the model is not what its score says, or there is none; ``warning``: it could be better;
        ``note``: worth knowing.
    evidence
        The figures.
    remedy
        What to do; which recipe field to change to what.
    """

    name: str
    severity: Severity
    evidence: str
    remedy: str
