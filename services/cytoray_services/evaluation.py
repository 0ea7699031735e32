"""How good a model is: its answers for a data set, scored against the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.downstream import downstream_agreement
from cytoray_analysis.errors import CytorayError, DatasetError, RequestError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.inference.objects import find_objects
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_services.datasets import Dataset, Item, Labelled, read_labelled

# Images that are read ahead and may go through the network together.
BATCH_IMAGES = 8
BATCH_PIXELS = 2**22


@dataclass(frozen=True, eq=False)
class ItemScore:
    """One image (or movie), what the model answered, and how good that is.

    Attributes
    ----------
    labelled
        The image with its truth.
    group
        Its value in the column that the evaluation was grouped by; None without grouping.
    prediction
        The model's answer.
    metrics
        The scores of this image alone.
    """

    labelled: Labelled
    group: str | None
    prediction: Prediction
    metrics: dict[str, float]

    @property
    def image(self) -> Path:
        """The file."""
        return self.labelled.items[0].image


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
    downstream
        How well a segmentation model does on predicted stains beside the real ones, where one was given.
    """

    metrics: dict[str, float]
    groups: dict[str, dict[str, float]]
    items: tuple[ItemScore, ...]
    seconds: float
    downstream: dict[str, float]


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    *,
    by: str | None = None,
    segment: Predictor | None = None,
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
        A column of the manifest to score separately by; of an image with several cells the first one's value counts.
    segment
        A segmentation model: movies are tracked from what it finds instead of from the given masks, and predicted
        stains are segmented beside the real ones.
    progress
        Called with images done and images in all.

    Returns
    -------
    Evaluation
        Metrics as the task names them.

    Raises
    ------
    DatasetError
        An image has no truth, its truth has another size or kind, or there is no column `by`.
    ImageError
        An image cannot be used; the message names the file.
    """
    started = time.perf_counter()
    task = predictor.task
    if dataset.truth_kind != task.output.truth:
        raise DatasetError(
            f"expected a data set with truth of the kind {task.output.truth!r}, got {dataset.truth_kind!r}",
            field="dataset",
            hint=f"{predictor.identity.name} is a model for {predictor.bundle.spec.task.name}",
        )
    images = dataset.images
    scores: list[ItemScore] = []
    for batch in _batches(dataset, images, predictor.bundle.spec.task.arguments):
        objects = [one.objects if segment is None else _SEGMENTED[task.output.truth](segment, one) for one in batch]
        predictions = predictor.predict_batch([one.image for one in batch], objects)
        for labelled, prediction in zip(batch, predictions, strict=True):
            first = labelled.items[0]
            if isinstance(prediction, CytorayError):
                raise _naming(prediction, first.image)
            _require_same_shape(prediction, labelled, len(predictor.bundle.spec.input.spatial_axes))
            metrics = task.score([scored(prediction)], [labelled.truth])
            scores.append(ItemScore(labelled, _group(first, by), prediction, metrics))
        if progress:
            progress(len(scores), len(images))

    def pooled(chosen: Sequence[ItemScore]) -> dict[str, float]:
        return task.score([scored(one.prediction) for one in chosen], [one.labelled.truth for one in chosen])

    members: dict[str, list[ItemScore]] = {}
    for score in scores:
        if score.group is not None:
            members.setdefault(score.group, []).append(score)
    groups = {name: pooled(members[name]) for name in sorted(members)}
    downstream = {} if segment is None else _DOWNSTREAM[task.output.truth](segment, scores)
    return Evaluation(pooled(scores), groups, tuple(scores), time.perf_counter() - started, downstream)


def scored(prediction: Prediction) -> Any:
    """Return what a task scores of an answer: the probabilities of classes, else the answer itself."""
    return getattr(prediction.answer, "probabilities", prediction.answer)


def _agreement(segment: Predictor, scores: Sequence[ItemScore]) -> dict[str, float]:
    """Score the segmentation of predicted stains against that of the real ones, first channel."""
    axes = segment.bundle.spec.input.spatial_axes
    return downstream_agreement(
        lambda stain: segment.predict(image_from_array(stain, axes)).answer,
        [score.labelled.truth[0] for score in scores],
        [score.prediction.answer[0] for score in scores],
    )


def _refuse_segmentation(segment: Predictor, labelled: Any) -> Any:
    raise RequestError(
        "a segmentation model helps with movies and with predicted stains only",
        field="segmentation",
        hint="leave --segmentation out",
    )


_SEGMENTED: dict[str, Callable[[Predictor, Labelled], Any]] = {
    "labels": _refuse_segmentation,
    "class": _refuse_segmentation,
    "image": lambda segment, labelled: labelled.objects,
    "lineage": lambda segment, labelled: find_objects(labelled.image, segment),
}
_DOWNSTREAM: dict[str, Callable[[Predictor, Sequence[ItemScore]], dict[str, float]]] = {
    "image": _agreement,
    "lineage": lambda segment, scores: {},
}


def _batches(
    dataset: Dataset, images: Sequence[tuple[Item, ...]], arguments: dict[str, Any]
) -> Iterator[list[Labelled]]:
    """Open images and hand them out a few at a time, one alone when it is large."""
    batch: list[Labelled] = []
    pixels = 0
    for items in images:
        labelled = read_labelled(dataset, items, arguments)
        size = math.prod(labelled.image.spatial_shape)
        if batch and (len(batch) == BATCH_IMAGES or pixels + size > BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(labelled)
        pixels += size
    if batch:
        yield batch


def _require_same_shape(prediction: Prediction, labelled: Labelled, dimensions: int) -> None:
    """Refuse a truth per pixel that has other pixels than the answer, which may be a plane of a stack."""
    answer, truth = getattr(prediction.answer, "shape", None), getattr(labelled.truth, "shape", None)
    if answer is None or truth is None or answer[-dimensions:] == truth[-dimensions:]:
        return
    path = labelled.items[0].truth
    raise DatasetError(
        f"expected {path} to have the size of its answer, {answer[-dimensions:]}, got {truth[-dimensions:]}",
        field=str(path),
        hint="see: cytoray data check",
    )


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
    worst = sorted(evaluation.items, key=lambda score: (score.metrics[metric], -score.prediction.objects))[:count]
    others = [score for score in evaluation.items if score not in worst]
    best = sorted(others, key=lambda score: (-score.metrics[metric], -score.prediction.objects))[:count]
    return worst, best
