"""The scores of the gate: one that must improve, and those that must not get worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cytoray_analysis.errors import RequestError
from cytoray_analysis.tasks.metrics import metric_named

TOLERANCE = 0.02  # for a share or a correlation
_TOLERANCES = {"psnr": 0.5}  # dB
# A single score hides errors: objects found at an IoU of 0.5 may have ragged outlines.
_GUARDED = ("ap50", "ap70", "ap90", "pq", "dice", "f1_macro", "ece", "ssim", "psnr", "nrmse", "tra", "seg")


def guards_of(metric: str, metrics: Sequence[str], asked: Mapping[str, float]) -> dict[str, float]:
    """Return the tolerances of all guarded scores.

    Parameters
    ----------
    metric
        The score in which a candidate must be better; it needs no guard.
    metrics
        All scores of the task.
    asked
        Tolerances of the caller, in the unit of each score.
    """
    usual = {name: _TOLERANCES.get(name, TOLERANCE) for name in _GUARDED if name in metrics}
    return {name: tolerance for name, tolerance in {**usual, **asked}.items() if name != metric}


def parse_guards(texts: Sequence[str]) -> dict[str, float]:
    """Parse options ``METRIC=TOLERANCE``.

    Raises
    ------
    RequestError
        The score does not exist, or the tolerance is not 0 or more.
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
                f"expected a score and its tolerance, such as ap90=0.02, got {text!r}",
                field="guard",
                hint="cytoray evaluate prints the scores",
            )
        found[name] = tolerance
    return found
