"""Pictures of an evaluation: the worst and the best answers next to the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from cytoray_analysis.images import Image
from cytoray_analysis.plural import counted
from cytoray_services.kinds import Pictures, data_kind
from cytoray_services.kinds.evaluated import Evaluation, ItemScore, extremes

_EXTREMES = 3  # number of worst and of best images to draw


def evaluation_pictures(evaluation: Evaluation) -> Pictures:
    """Draw an evaluation.

    Returns
    -------
    dict
        PNG files by name: ``worst_and_best`` for labels and images; ``confusion_matrix`` and
        ``mistaken_cells`` for classes; ``tracks`` for
        lineages. Empty without evaluated images.
    """
    if not evaluation.items:
        return {}
    return data_kind(evaluation.items[0].prediction.kind).pictures(evaluation)


def extremes_with_titles(evaluation: Evaluation) -> list[tuple[str, ItemScore]]:
    """Return the worst and the best images, each with a title."""
    worst, best = extremes(evaluation, _EXTREMES)
    return [
        (f"{kind}: {score.image.name}   {shown(evaluation.metric, score.metrics)}", score)
        for kind, scores in (("worst", worst), ("best", best))
        for score in scores
    ]


def shown(metric: str, scores: Mapping[str, float]) -> str:
    """Return a score with its name, for display."""
    return f"{metric} {scores[metric]:.3f}" if metric in scores else f"{metric} –"


def headline(evaluation: Evaluation) -> str:
    """Return the score of all images, for display."""
    return f"{shown(evaluation.metric, evaluation.metrics)} over {counted(len(evaluation.items), 'image')}"


def middle_plane(image: Image) -> NDArray[Any]:
    """Return (C, Y, X): the plane in the middle of a volume."""
    if "Z" not in image.axes:
        return image.select("CYX").read()
    volume = image.select("CZYX")
    plane = volume.size("Z") // 2
    pixels: NDArray[Any] = volume.read((slice(None), slice(plane, plane + 1), slice(None), slice(None)))[:, 0]
    return pixels


def middle(values: NDArray[Any], dimensions: int) -> NDArray[Any]:
    """Return values with this number of axes: the middle plane of a volume."""
    return values if values.ndim == dimensions else values[len(values) // 2]
