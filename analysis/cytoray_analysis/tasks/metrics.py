"""What the scores mean: which direction is better, in which unit. The one place that knows."""

from __future__ import annotations

from functools import cache

from cytoray_analysis.kinds import Better, Metric, installed

__all__ = ["Better", "Metric", "metric_named"]

_SHARE, _CELLS, _PIXELS = "share, 0 to 1", "share of cells, 0 to 1", "share of pixels, 0 to 1"
_OBJECTS = "share of objects, 0 to 1"
_MATCHED = ("msa", "msa_pooled", "ap50", "ap70", "ap75", "ap90", "f1_50", "pq")
_METRICS = {
    metric.name: metric
    for metric in (
        *(Metric(name, "higher", _OBJECTS, faultless=True) for name in _MATCHED),
        *(Metric(name, "higher", _OBJECTS) for name in ("precision50", "recall50")),
        *(Metric(name, "higher", _PIXELS, faultless=True) for name in ("iou", "dice")),
        Metric("surface_dice", "higher", "share of outline pixels, 0 to 1"),
        Metric("count_error", "lower", "share of true objects"),
        *(Metric(name, "lower", "objects") for name in ("split", "merged", "missed", "invented")),
        *(Metric(name, "higher", _CELLS) for name in ("balanced_accuracy", "accuracy")),
        *(Metric(name, "higher", _CELLS) for name in ("precision", "recall")),
        *(Metric(f"{name}_macro", "higher", _CELLS) for name in ("precision", "recall", "f1")),
        Metric("f1", "higher", _CELLS, faultless=True),
        Metric("jaccard", "higher", _SHARE, faultless=True),
        Metric("jaccard_macro", "higher", _SHARE),
        Metric("ece", "lower", "difference of probabilities, 0 to 1"),
        Metric("pearson", "higher", "correlation, −1 to 1"),
        Metric("ssim", "higher", "similarity, −1 to 1"),
        Metric("psnr", "higher", "dB"),
        Metric("nrmse", "lower", "standard deviations of the truth"),
        Metric("coverage68", "nearer", _PIXELS, target=0.6827),
        Metric("division_f1", "higher", _SHARE, faultless=True),
        *(Metric(name, "higher", _SHARE) for name in ("tra", "det", "lnk", "chota", "seg")),
        *(Metric(name, "higher", _OBJECTS) for name in ("ap50_real", "ap50_predicted")),
        Metric("loss", "lower", "of the recipe's loss"),
    )
}


@cache
def metric_named(name: str) -> Metric:
    """Return the meaning of a score, such as ``ap50``, ``recall/neutrophil`` or ``iou_nuclei``.

    Raises
    ------
    KeyError
        No score of any task is called so.
    """
    if name in _METRICS:
        return _METRICS[name]
    for mark in ("/", "_"):  # of one class or channel
        base = name.partition(mark)[0]
        if base != name and base in _METRICS:
            return _METRICS[base]
    further: dict[str, Metric] = {
        metric.name: metric for kind in installed("cytoray.tasks").values() for metric in kind.metrics
    }
    if name in further:
        return further[name]
    raise KeyError(f"expected a score of a task, got {name!r}")
