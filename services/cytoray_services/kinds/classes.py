"""Classes of cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.cells import cells_from_boxes
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import read_image
from cytoray_analysis.images.resample import resample_image_to
from cytoray_analysis.selection import Selection
from cytoray_analysis.tasks import Task
from cytoray_services.datasets.check.across import warn_of_drawn_split
from cytoray_services.datasets.check.class_masks import check_named
from cytoray_services.datasets.check.classes import (
    check_boxes,
    check_classes,
    check_labels_given,
    find_duplicate_cells,
    note_imbalance,
)
from cytoray_services.datasets.check.images import examine_image
from cytoray_services.datasets.check.same_pixels import find_same_pixels
from cytoray_services.datasets.dataset import Dataset, Item, Labelled
from cytoray_services.evaluation.baselines import scores_of
from cytoray_services.evaluation.pictures import middle_plane
from cytoray_services.kinds import Arguments, DataKind, Pictures
from cytoray_services.kinds.evaluated import Evaluation, ItemScore

_SIDE = 96  # side of the picture of a cell


def _read(items: tuple[Item, ...], arguments: Arguments, selection: Selection) -> Labelled:
    known = {name: index for index, name in enumerate(arguments["classes"])}
    for item in items:
        if item.label not in known:
            raise DatasetError(
                f"{item.image}: expected one of the classes {', '.join(known)}, "
                f"got {item.label!r}, which the model was not trained on",
                field="label",
                hint="exclude these cells with --where, or train on data with this class",
            )
    boxes = [item.box for item in items if item.box is not None]
    truth = np.array([known[item.label or ""] for item in items], np.int64)
    image = read_image(items[0].image, selection=selection)
    return Labelled(items, image, truth, cells_from_boxes(boxes) if boxes else None)


def _arguments(dataset: Dataset) -> dict[str, Any]:
    labels = [item.label for item in dataset.items if item.label is not None]
    train = [item.label for item in dataset.items if item.split == "train"]
    classes = sorted(set(labels))
    return {"classes": classes, "counts": [train.count(name) for name in classes]}


def _perfect(truth: NDArray[np.int64], task: Task) -> NDArray[np.float64]:
    return np.eye(task.output.channels)[np.maximum(truth, 0)]


def _baseline(
    training: Callable[[], Sequence[Labelled]], chosen: Sequence[Labelled], spec: BundleSpec
) -> dict[str, float]:
    """Score the most frequent class of the training images."""
    truths = np.concatenate([one.truth for one in training()])
    shares = (np.bincount(truths, minlength=len(spec.task.arguments["classes"])) / len(truths)).astype(np.float32)
    return scores_of([np.repeat(shares[None], len(one.truth), axis=0) for one in chosen], chosen, spec)


def _pictures(evaluation: Evaluation) -> Pictures:
    """Draw the confusion matrix, and the misclassified cells."""
    from cytoray_analysis.class_pictures import confusion_picture, mistaken_cells
    from cytoray_analysis.tasks.class_scores import count_confusions

    names = evaluation.items[0].prediction.answer.names
    answers = np.concatenate([score.prediction.answer.probabilities for score in evaluation.items])
    truths = np.concatenate([score.labelled.truth for score in evaluation.items])
    cells = np.concatenate([_cells(score) for score in evaluation.items])
    return {
        "confusion_matrix": confusion_picture(count_confusions(answers, truths, len(names)), names),
        "mistaken_cells": mistaken_cells(cells, answers, truths, names),
    }


def _cells(score: ItemScore) -> NDArray[Any]:
    """Return a picture of each cell of an image, (n, C, side, side)."""
    side = _SIDE
    pixels = middle_plane(score.labelled.image)
    cells = score.prediction.answer.cells
    if score.labelled.objects is None:
        return resample_image_to(pixels, (side, side))[np.newaxis]
    margins = [(0, 0), (side, side), (side, side)]
    padded = np.pad(pixels, margins, mode="edge")
    corners = (cells.centres[:, -2:] + side / 2).astype(int).clip(0, np.array(pixels.shape[1:]) + side)
    return np.stack([padded[:, y : y + side, x : x + side] for y, x in corners])


CLASSES = DataKind(
    role="label",
    in_row=True,
    read=_read,
    arguments=_arguments,
    needed=lambda arguments: {"classes": arguments["classes"]},
    examine=lambda item, dataset, task: examine_image(item, dataset),
    compare=(
        warn_of_drawn_split,
        find_same_pixels,
        find_duplicate_cells,
        check_labels_given,
        check_boxes,
        check_classes,
        check_named,
        note_imbalance,
    ),
    perfect=_perfect,
    as_truth=lambda prediction: prediction.answer.probabilities.argmax(axis=1),
    baseline=_baseline,
    pictures=_pictures,
    nothing="no cell has a known class",
)
