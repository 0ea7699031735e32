"""How good a model is: its answers for a data set, scored against the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import CytorayError, DatasetError
from cytoray_analysis.images import Image, read_image, read_labels
from cytoray_analysis.pictures import SheetEntry, comparison, display_rgb, sheet
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import Dataset, Item

# Images that are read ahead and may go through the network together.
BATCH_IMAGES = 8
BATCH_PIXELS = 2**22


@dataclass(frozen=True, eq=False)
class ItemScore:
    """One image, what the model answered, and how good that is.

    Attributes
    ----------
    item
        The image and its truth.
    group
        Its value in the column that the evaluation was grouped by; None without grouping.
    answer
        The model's answer, as :attr:`Prediction.answer`.
    objects
        Number of objects in the answer.
    metrics
        The scores of this image alone.
    """

    item: Item
    group: str | None
    answer: NDArray[Any]
    objects: int
    metrics: dict[str, float]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of a model on a data set.

    Attributes
    ----------
    metrics
        Scores pooled over all images; the first is the one to maximise.
    groups
        Scores pooled over the images of each group, by the group's name; empty without grouping.
    items
        Every image, in the order of the data set.
    seconds
        Time spent, reading included.
    """

    metrics: dict[str, float]
    groups: dict[str, dict[str, float]]
    items: tuple[ItemScore, ...]
    seconds: float


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    *,
    by: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Predict every image of a data set and score the answers.

    Parameters
    ----------
    predictor
        The model.
    dataset
        What to evaluate on; choose the split first. All truths and answers are kept in memory.
    by
        A column of the manifest to score separately by.
    progress
        Called with images done and images in all.

    Returns
    -------
    Evaluation
        Metrics as the task names them.

    Raises
    ------
    DatasetError
        An image has no truth, its truth has another size, or there is no column `by`.
    ImageError
        An image cannot be used; the message names the file.
    """
    started = time.perf_counter()
    task = predictor.task
    scores: list[ItemScore] = []
    truths: list[NDArray[Any]] = []
    for batch in _batches(dataset.items):
        predictions = predictor.predict_batch([image for _, image in batch])
        for (item, _), prediction in zip(batch, predictions, strict=True):
            if isinstance(prediction, CytorayError):
                raise _naming(prediction, item.image)
            truth = _read_truth(item, prediction.answer.shape)
            metrics = task.score([prediction.answer], [truth])
            scores.append(ItemScore(item, _group(item, by), prediction.answer, prediction.objects, metrics))
            truths.append(truth)
        if progress:
            progress(len(scores), len(dataset.items))

    def pooled(chosen: Sequence[int]) -> dict[str, float]:
        return task.score([scores[place].answer for place in chosen], [truths[place] for place in chosen])

    members: dict[str, list[int]] = {}
    for place, score in enumerate(scores):
        if score.group is not None:
            members.setdefault(score.group, []).append(place)
    groups = {name: pooled(members[name]) for name in sorted(members)}
    return Evaluation(pooled(range(len(scores))), groups, tuple(scores), time.perf_counter() - started)


def _batches(items: Sequence[Item]) -> Iterator[list[tuple[Item, Image]]]:
    """Open images and hand them out a few at a time, one alone when it is large."""
    batch: list[tuple[Item, Image]] = []
    pixels = 0
    for item in items:
        image = read_image(item.image)
        size = int(np.prod(image.spatial_shape))
        if batch and (len(batch) == BATCH_IMAGES or pixels + size > BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append((item, image))
        pixels += size
    if batch:
        yield batch


def _read_truth(item: Item, shape: tuple[int, ...]) -> NDArray[Any]:
    if item.truth is None:
        raise DatasetError(
            f"expected every image to have a truth, got none for {item.image}",
            field=str(item.image),
            hint="see: cytoray data check",
        )
    truth = read_labels(item.truth)
    if truth.shape != shape:
        raise DatasetError(
            f"expected {item.truth} to have the size of its image, {shape}, got {truth.shape}",
            field=str(item.truth),
            hint="see: cytoray data check",
        )
    return truth


def _group(item: Item, column: str | None) -> str | None:
    if column is None:
        return None
    if column not in item.row:
        raise DatasetError(
            f"expected a column of the manifest to group by, got {column!r}",
            field="by",
            hint=f"the columns are: {', '.join(item.row) or 'none, for there is no manifest'}",
        )
    return item.row[column]


def _naming(error: CytorayError, path: Path) -> CytorayError:
    """Return the same error with the file's name in it."""
    message = error.message if str(path) in error.message else f"{path}: {error.message}"
    return type(error)(message, field=error.field or str(path), hint=error.hint)


def extremes(evaluation: Evaluation, count: int) -> tuple[list[ItemScore], list[ItemScore]]:
    """Return the worst and the best images by the first metric, worst first and best first.

    Among equals those with more objects come first, since empty images are easy and tell little. No image is in
    both lists.
    """
    if not evaluation.items:
        return [], []
    metric = next(iter(evaluation.metrics))
    worst = sorted(evaluation.items, key=lambda score: (score.metrics[metric], -score.objects))[:count]
    others = [score for score in evaluation.items if score not in worst]
    best = sorted(others, key=lambda score: (-score.metrics[metric], -score.objects))[:count]
    return worst, best


def extremes_sheet(evaluation: Evaluation, *, count: int = 3) -> bytes:
    """Draw the worst and the best images with truth and prediction outlined, as a PNG file.

    Parameters
    ----------
    evaluation
        Of a model whose answers are label images.
    count
        How many of each.

    Returns
    -------
    bytes
        Per image a row: the image; the truth, found objects green and missed ones orange; the prediction, right
        objects green and others red.
    """
    worst, best = extremes(evaluation, count)
    metric = next(iter(evaluation.metrics))
    entries = [
        SheetEntry(f"{kind}: {score.item.image.name}   {metric} {score.metrics[metric]:.3f}", _drawn(score))
        for kind, chosen in (("worst", worst), ("best", best))
        for score in chosen
    ]
    title = (
        f"{metric} {evaluation.metrics[metric]:.3f} over {len(evaluation.items)} images\n"
        "image  |  truth: found green, missed orange  |  prediction: right green, wrong red"
    )
    return sheet(entries, title=title)


def _drawn(score: ItemScore) -> NDArray[np.uint8]:
    sample = read_image(score.item.image).select("CYX").read()
    return comparison(display_rgb(sample), _read_truth(score.item, score.answer.shape), score.answer)
