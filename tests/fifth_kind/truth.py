"""Data of this kind: a manifest with a column ``amount``, and boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.cells import cells_from_boxes
from cytoray_analysis.images import read_image
from cytoray_analysis.selection import Selection
from cytoray_services.datasets.check.across import warn_of_drawn_split
from cytoray_services.datasets.check.images import examine_image
from cytoray_services.datasets.dataset import Dataset, Item, Labelled
from cytoray_services.evaluation.baselines import scores_of
from cytoray_services.kinds import Arguments, DataKind, Pictures
from cytoray_services.kinds.evaluated import Evaluation


def _read(items: tuple[Item, ...], arguments: Arguments, selection: Selection) -> Labelled:
    boxes = [item.box for item in items if item.box is not None]
    image = read_image(items[0].image, selection=selection)
    return Labelled(items, image, _amounts(items), cells_from_boxes(boxes) if boxes else None)


def _amounts(items: Sequence[Item]) -> np.ndarray:
    return np.array([float(item.label or "nan") for item in items], np.float32)


def _arguments(dataset: Dataset) -> dict[str, Any]:
    amounts = _amounts([item for item in dataset.items if item.split == "train"])
    return {"offset": float(amounts.mean()), "scale": float(amounts.std())}


def _baseline(
    training: Callable[[], Sequence[Labelled]], chosen: Sequence[Labelled], spec: BundleSpec
) -> dict[str, float]:
    mean = np.concatenate([one.truth for one in training()]).mean()
    return scores_of([np.full((len(one.truth), 1), mean) for one in chosen], chosen, spec)


def _pictures(evaluation: Evaluation) -> Pictures:
    from cytoray_analysis.pictures import figure_png, new_figure

    figure = new_figure(width=3.0, height=3.0)
    axes = figure.add_subplot()
    for score in evaluation.items:
        axes.plot(score.labelled.truth, score.prediction.scored[:, 0], "k.")
    return {"amounts": figure_png(figure)}


AMOUNTS = DataKind(
    role="amount",
    in_row=True,
    read=_read,
    arguments=_arguments,
    examine=lambda item, dataset, task: examine_image(item, dataset),
    compare=(warn_of_drawn_split,),
    baseline=_baseline,
    pictures=_pictures,
    perfect=lambda truth, task: truth[:, np.newaxis],
    as_truth=lambda prediction: prediction.scored[:, 0],
    nothing="there is no cell",
)
