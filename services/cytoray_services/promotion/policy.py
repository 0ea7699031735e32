"""By which scores a candidate is judged: one in which it must be better, and those in which it must not lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cytoray_analysis.errors import RequestError
from cytoray_analysis.tasks.metrics import metric_named

TOLERANCE = 0.02  # of a share or a correlation
_TOLERANCES = {"psnr": 0.5}  # dB
# One score alone hides faults: objects that are found at an IoU of 0.5 may have ragged outlines.
_GUARDED = ("ap70", "ap90", "pq", "dice", "f1_macro", "ece", "ssim", "psnr", "nrmse", "tra", "seg")


def guards_of(metric: str, metrics: Sequence[str], asked: Mapping[str, float]) -> dict[str, float]:
    """Return how much may be lost of each score that is guarded.

    Parameters
    ----------
    metric
        The score in which a candidate must be better; it needs no guard.
    metrics
        All scores of the task.
    asked
        Tolerances that were named, in the unit of each score.
    """
    usual = {name: _TOLERANCES.get(name, TOLERANCE) for name in _GUARDED if name in metrics}
    return {name: tolerance for name, tolerance in {**usual, **asked}.items() if name != metric}


def parse_guards(texts: Sequence[str]) -> dict[str, float]:
    """Read ``METRIC=TOLERANCE``, as options give it.

    Raises
    ------
    RequestError
        No such score, or no tolerance of 0 or more.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            tolerance = float(value) if equals else _TOLERANCES.get(name, TOLERANCE)
            metric_named(name)
        except (ValueError, KeyError):
            tolerance = -1.0
        if not tolerance >= 0:
            raise RequestError(
                f"expected a score and how much of it may be lost, such as ap90=0.02, got {text!r}",
                field="guard",
                hint="the scores are those that cytoray evaluate prints",
            )
        found[name] = tolerance
    return found
