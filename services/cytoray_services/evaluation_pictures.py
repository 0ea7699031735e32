"""What an evaluation looks like: the worst and the best answers beside the truth, drawn by the kind of answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.class_pictures import confusion_picture, mistaken_cells
from cytoray_analysis.images import Image
from cytoray_analysis.images.resample import resample_image_to
from cytoray_analysis.label_free_pictures import StainEntry, stain_sheet
from cytoray_analysis.pictures import SheetEntry, comparison, display_rgb, sheet
from cytoray_analysis.tasks.class_scores import count_confusions
from cytoray_analysis.track_pictures import lineage_picture
from cytoray_services.evaluation import Evaluation, ItemScore, extremes

Pictures = dict[str, bytes]


def evaluation_pictures(evaluation: Evaluation) -> Pictures:
    """Draw an evaluation.

    Returns
    -------
    dict
        PNG files by name: ``worst_and_best`` for labels and images; ``confusion_matrix`` and
        ``mistaken_cells`` for classes; ``tracks`` for
        lineages. Nothing where nothing was evaluated.
    """
    if not evaluation.items:
        return {}
    return _PICTURES[evaluation.items[0].prediction.kind](evaluation)


def _draw_labels(evaluation: Evaluation) -> Pictures:
    entries = [SheetEntry(title, _compared(score)) for title, score in _chosen(evaluation)]
    legend = "image  |  truth: found green, missed orange  |  prediction: right green, wrong red"
    return {"worst_and_best": sheet(entries, title=f"{_headline(evaluation)}\n{legend}")}


def _compared(score: ItemScore) -> NDArray[np.uint8]:
    labelled = score.labelled
    plane = _middle_plane(labelled.image)
    return comparison(
        display_rgb(plane), _middle(labelled.truth, plane.ndim - 1), _middle(score.prediction.answer, plane.ndim - 1)
    )


def _draw_images(evaluation: Evaluation) -> Pictures:
    entries = []
    for title, score in _chosen(evaluation):
        targets = len(score.labelled.truth)
        answer = score.prediction.answer
        entries.append(
            StainEntry(
                title=title,
                image=_middle_plane(score.labelled.image),
                target=_middle(score.labelled.truth[0], 2),
                prediction=_middle(answer[0], 2),
                deviation=_middle(answer[targets], 2) if len(answer) > targets else None,
            )
        )
    return {"worst_and_best": stain_sheet(entries, title=_headline(evaluation))}


def _draw_classes(evaluation: Evaluation) -> Pictures:
    names = evaluation.items[0].prediction.answer.names
    answers = np.concatenate([score.prediction.answer.probabilities for score in evaluation.items])
    truths = np.concatenate([score.labelled.truth for score in evaluation.items])
    cells = np.concatenate([_cells(score) for score in evaluation.items])
    return {
        "confusion_matrix": confusion_picture(count_confusions(answers, truths, len(names)), names),
        "mistaken_cells": mistaken_cells(cells, answers, truths, names),
    }


def _cells(score: ItemScore, side: int = 96) -> NDArray[Any]:
    """Return a picture of each cell of an image, (n, C, side, side)."""
    pixels = _middle_plane(score.labelled.image)
    cells = score.prediction.answer.cells
    if score.labelled.objects is None:
        return resample_image_to(pixels, (side, side))[np.newaxis]
    margins = [(0, 0), (side, side), (side, side)]
    padded = np.pad(pixels, margins, mode="edge")
    corners = (cells.centres[:, -2:] + side / 2).astype(int).clip(0, np.array(pixels.shape[1:]) + side)
    return np.stack([padded[:, y : y + side, x : x + side] for y, x in corners])


def _draw_lineages(evaluation: Evaluation) -> Pictures:
    pictures = {}
    for score in evaluation.items:
        movie = score.labelled.image
        last = movie.read((slice(-1, None), *(slice(None),) * (len(movie.axes) - 1)))[0]
        frame = display_rgb(last.max(axis=0) if last.ndim == 3 else last)
        name = score.image.name
        title = f"{name}: {_shown(evaluation.metric, score.metrics)}"
        pictures[f"tracks_{name}"] = lineage_picture(frame, score.prediction.answer, title=title)
    return pictures


def _chosen(evaluation: Evaluation, count: int = 3) -> list[tuple[str, ItemScore]]:
    worst, best = extremes(evaluation, count)
    return [
        (f"{kind}: {score.image.name}   {_shown(evaluation.metric, score.metrics)}", score)
        for kind, scores in (("worst", worst), ("best", best))
        for score in scores
    ]


def _shown(metric: str, scores: Mapping[str, float]) -> str:
    return f"{metric} {scores[metric]:.3f}" if metric in scores else f"{metric} –"


def _headline(evaluation: Evaluation) -> str:
    return f"{_shown(evaluation.metric, evaluation.metrics)} over {len(evaluation.items)} images"


def _middle_plane(image: Image) -> NDArray[Any]:
    """Return (C, Y, X): the plane in the middle of a volume."""
    if "Z" not in image.axes:
        return image.select("CYX").read()
    volume = image.select("CZYX")
    plane = volume.size("Z") // 2
    pixels: NDArray[Any] = volume.read((slice(None), slice(plane, plane + 1), slice(None), slice(None)))[:, 0]
    return pixels


def _middle(values: NDArray[Any], dimensions: int) -> NDArray[Any]:
    return values if values.ndim == dimensions else values[len(values) // 2]


_PICTURES: dict[str, Callable[[Evaluation], Pictures]] = {
    "labels": _draw_labels,
    "image": _draw_images,
    "class": _draw_classes,
    "lineage": _draw_lineages,
}
