"""What is measured once, at the end of a training run: single images, a comparison of the splits, disputed labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis.class_pictures import middle_plane as plane_of_window
from cytoray_analysis.files import write_whole
from cytoray_analysis.fine_structure import fine_structure, middle_plane
from cytoray_analysis.pictures import SheetEntry, display_rgb, overlay, sheet
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import Dataset, read_parts
from cytoray_services.datasets.check import count_classes
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.kinds.evaluated import Evaluation, ItemScore
from cytoray_training.diagnosis.disputes import disputed_classes, disputed_objects
from cytoray_training.diagnosis.facts import FOLDER, Cells, Dispute, Ending, ImageScore
from cytoray_training.diagnosis.reading import write_ending
from cytoray_training.diagnosis.splits import (
    chosen_images,
    find_twins,
    image_features,
    object_features,
)
from cytoray_training.plan.plan import Plan
from cytoray_training.run.validation import evenly_chosen

DISPUTED = "disputed_labels.png"
_MOST_TRAINING_IMAGES = 48
_MOST_PICTURES = 12
_SURROUNDINGS = 48  # pixels to each side of a disputed label


@dataclass(frozen=True)
class _Looked:
    """What is read from one split."""

    features: dict[str, tuple[float, ...]]
    details: list[tuple[str, Any]]


def record_ending(plan: Plan, predictor: Predictor, evaluation: Evaluation, folder: Path) -> Ending:
    """Measure the best weights on single images, and the splits; write both into the run's folder.

    Parameters
    ----------
    predictor
        The best weights with their final decoding.
    evaluation
        Of the validation split.
    folder
        Of the run.
    """
    metric = plan.metric
    items = {"val": evaluation.items, "train": _training_items(plan, predictor, len(evaluation.items))}
    disputes = [
        replace(dispute, file=_name(plan.dataset, dispute.file))
        for split, chosen in items.items()
        for dispute in _DISPUTED.get(plan.dataset.truth_kind, _none_disputed)(chosen, split)
    ]
    disputes.sort(key=lambda dispute: -dispute.confidence)
    looked = {split: _look(plan, split) for split in ("train", "val")}
    classes = tuple(plan.chosen_task.arguments.get("classes", ()) if plan.dataset.truth_kind == "class" else ())
    counts = count_classes(plan.dataset) if classes else {}
    ending = Ending(
        metric=metric,
        images=tuple(
            _image_score(plan, item, split, metric)
            for split, chosen in items.items()
            for item in chosen
            if metric in item.metrics  # an image with nothing to count has no score
        ),
        classes=classes,
        counts={split: tuple(count.get(name, 0) for name in classes) for split, count in counts.items()},
        cells={split: _cells(plan.dataset, chosen) for split, chosen in items.items()} if classes else {},
        disputes=tuple(disputes),
        judged=sum(_objects(item) for chosen in items.values() for item in chosen),
        features={split: look.features for split, look in looked.items()},
        twins=find_twins(looked["train"].details, looked["val"].details),
        unit=evaluation.unit,
        intervals=evaluation.intervals,
    )
    if disputes:
        _draw(plan, items, disputes[:_MOST_PICTURES], folder / FOLDER / DISPUTED)
    write_ending(folder, ending)
    return ending


def _training_items(plan: Plan, predictor: Predictor, like: int) -> tuple[ItemScore, ...]:
    """Score about as many training images as there are validation images."""
    train = plan.dataset.split("train")
    chosen = evenly_chosen(train.images, min(max(like, 4), len(train.images), _MOST_TRAINING_IMAGES))
    kept = {item for items in chosen for item in items}
    return evaluate(predictor, replace(train, items=tuple(item for item in train.items if item in kept))).items


def _image_score(plan: Plan, item: ItemScore, split: str, metric: str) -> ImageScore:
    name = _name(plan.dataset, str(item.image))
    return ImageScore(name, split, float(item.metrics[metric]), _objects(item), _name(plan.dataset, item.unit))


def _objects(item: ItemScore) -> int:
    """Count the items behind an image's score: its objects or cells, or the image itself."""
    truth = item.labelled.truth
    if isinstance(truth, np.ndarray) and truth.dtype.kind in "iu":
        return len(truth) if truth.ndim == 1 else int(np.count_nonzero(np.unique(truth) > 0))
    return 1


def _cells(dataset: Dataset, items: Sequence[ItemScore]) -> Cells:
    if not items:
        return Cells()
    truth = np.concatenate([item.labelled.truth for item in items])
    probabilities = np.concatenate([item.prediction.answer.probabilities for item in items])[truth >= 0]
    truth = truth[truth >= 0]
    predicted = probabilities.argmax(axis=1)
    rows = np.arange(len(truth))
    owner = [_name(dataset, item.unit) for item in items for known in item.labelled.truth >= 0 if known]
    return Cells(
        truth=tuple(truth.tolist()),
        predicted=tuple(predicted.tolist()),
        probability_of_truth=tuple(np.round(probabilities[rows, truth].astype(float), 5).tolist()),
        probability=tuple(np.round(probabilities[rows, predicted].astype(float), 5).tolist()),
        owner=tuple(owner),
    )


def _look(plan: Plan, split: str) -> _Looked:
    columns: dict[str, list[float]] = {}
    details = []
    for items in chosen_images(plan.dataset, split):
        labelled = next(read_parts(plan.dataset, items, plan.chosen_task.arguments))
        plane = middle_plane(labelled.image)
        for name, value in (image_features(plane) | object_features(labelled.truth)).items():
            columns.setdefault(name, []).append(float(f"{value:.6g}"))
        details.append((_name(plan.dataset, str(items[0].image)), fine_structure(plane)))
    return _Looked({name: tuple(values) for name, values in columns.items()}, details)


def _name(dataset: Dataset, file: str) -> str:
    path = Path(file)
    return path.relative_to(dataset.root).as_posix() if path.is_relative_to(dataset.root) else file


def _none_disputed(items: Sequence[ItemScore], split: str) -> list[Dispute]:
    return []


_DISPUTED: dict[str, Callable[[Sequence[ItemScore], str], list[Dispute]]] = {
    "class": disputed_classes,
    "labels": disputed_objects,
}


def _draw(plan: Plan, items: dict[str, tuple[ItemScore, ...]], disputes: Sequence[Dispute], path: Path) -> None:
    """Draw the surroundings of disputed labels: outlines of the label next to those of the model."""
    by_name = {
        (split, _name(plan.dataset, str(item.image))): item for split, chosen in items.items() for item in chosen
    }
    entries = []
    for dispute in disputes:
        item = by_name[(dispute.split, dispute.file)]
        title = (
            f"{dispute.file} ({dispute.split})\nlabel: {dispute.given}; model: {dispute.proposed} "
            f"({dispute.confidence:.2f})"
        )
        entries.append(SheetEntry(title, _surroundings(item, dispute)))
    write_whole(path, sheet(entries, title="labels that the model disputes: label left, model right", columns=3))


def _surroundings(item: ItemScore, dispute: Dispute) -> Any:
    image = item.labelled.image
    pixels = image.select("CZYX" if "Z" in image.axes else "CYX").read()
    truth, answer = item.labelled.truth, item.prediction.answer
    at = int(dispute.place[0]) if truth.ndim > 2 else None
    pixels = plane_of_window(pixels) if at is None else pixels[:, at]
    y, x = (int(part) for part in dispute.place[-2:])
    part = tuple(
        slice(max(0, place - _SURROUNDINGS), min(length, place + _SURROUNDINGS))
        for place, length in zip((y, x), pixels.shape[1:], strict=True)
    )
    picture = display_rgb(pixels)[part]
    if not isinstance(answer, np.ndarray):  # classes: there is nothing to outline
        return picture
    sides = [overlay(picture, (labels if at is None else labels[at])[part]) for labels in (truth, answer)]
    line = np.full((picture.shape[0], 3, 3), 255, np.uint8)
    return np.concatenate([sides[0], line, sides[1]], axis=1)
