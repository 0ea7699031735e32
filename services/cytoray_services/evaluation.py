"""How good a model is: its answers for a data set, scored against the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis.answer_warnings import WarningSummary, summarise_warnings
from cytoray_analysis.downstream import downstream_agreement
from cytoray_analysis.each import require_each
from cytoray_analysis.errors import CytorayError, DatasetError, RequestError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.inference.objects import segment
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_analysis.tasks.calibration import CalibratedError, expected_calibration_error_when_calibrated
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.datasets import Dataset, Item, Labelled, read_parts
from cytoray_services.statistics.counts import Score
from cytoray_services.statistics.intervals import Interval, score_intervals

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
        The scores of this image alone; one with nothing to count in it is absent.
    """

    labelled: Labelled
    group: str | None
    prediction: Prediction
    metrics: dict[str, float]

    @property
    def image(self) -> Path:
        """The file."""
        return self.labelled.items[0].image

    @property
    def unit(self) -> str:
        """What varies by itself: its group, or its image."""
        first = self.labelled.items[0]
        return first.group or str(first.image)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of a model on a data set.

    Attributes
    ----------
    metrics
        Scores pooled over all images; one with nothing to count is absent.
    groups
        Scores pooled over the images of each group, by the group's name; empty without grouping.
    items
        Every image, in the order of the data set.
    seconds
        Time spent, reading included.
    downstream
        How well a segmentation model does on predicted stains beside the real ones, where one was given.
    metric
        Name of the task's first score.
    absent
        Names of the scores that had nothing to count.
    score
        The task's own; None where there are no items.
    unit
        What varies by itself, for people: ``image``, ``movie``, or ``group of COLUMN``.
    """

    metrics: dict[str, float]
    groups: dict[str, dict[str, float]]
    items: tuple[ItemScore, ...]
    seconds: float
    downstream: dict[str, float]
    metric: str
    absent: tuple[str, ...] = ()
    score: Score | None = None
    unit: str = "image"

    @property
    def units(self) -> list[str]:
        """For each item what it belongs to: its group, or its image."""
        return [item.unit for item in self.items]

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % interval of every score; empty with fewer than two units."""
        return self._intervals(self.items)

    @cached_property
    def group_intervals(self) -> dict[str, dict[str, Interval]]:
        """The intervals of the scores of each group."""
        return {name: self._intervals([item for item in self.items if item.group == name]) for name in self.groups}

    def calibrated_error(self, items: Sequence[ItemScore] | None = None) -> CalibratedError | None:
        """Return the ``ece`` that calibrated answers for some items, all by default, would have; None without one."""
        chosen = [one for one in (self.items if items is None else items) if "ece" in one.metrics]
        if not chosen:
            return None
        known = [scored(one.prediction).max(axis=1)[np.asarray(one.labelled.truth) >= 0] for one in chosen]
        return expected_calibration_error_when_calibrated(np.concatenate(known))

    def _intervals(self, items: Sequence[ItemScore]) -> dict[str, Interval]:
        if self.score is None:
            return {}
        answers, truths = [scored(one.prediction) for one in items], [one.labelled.truth for one in items]
        return score_intervals(answers, truths, [one.unit for one in items], self.score)

    @property
    def warnings(self) -> tuple[WarningSummary, ...]:
        """The warnings about all images, summed up by their code."""
        return summarise_warnings(item.prediction.warnings for item in self.items)


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
    require_each(predictor.bundle.spec, task.output.per, dataset.selection.each)
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
            done = len({id(score.labelled.items) for score in scores})  # planes that are scored alone are of one image
            progress(done, len(images))

    def pooled(chosen: Sequence[ItemScore]) -> dict[str, float]:
        return task.score([scored(one.prediction) for one in chosen], [one.labelled.truth for one in chosen])

    members: dict[str, list[ItemScore]] = {}
    for score in scores:
        if score.group is not None:
            members.setdefault(score.group, []).append(score)
    groups = {name: pooled(members[name]) for name in sorted(members)}
    downstream = {} if segment is None else _DOWNSTREAM[task.output.truth](segment, scores)
    metrics = pooled(scores)
    return Evaluation(
        metrics,
        groups,
        tuple(scores),
        time.perf_counter() - started,
        downstream,
        task.output.metric,
        tuple(name for name in task.output.metrics if name not in metrics),
        task.score,
        f"group of {dataset.group_column}"
        if dataset.group_column
        else ("movie" if dataset.truth_kind == "lineage" else "image"),
    )


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
    "lineage": lambda segmenter, labelled: segment(labelled.image, segmenter).labels,
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
    for labelled in (part for items in images for part in read_parts(dataset, items, arguments)):
        size = math.prod(labelled.image.spatial_shape)
        if batch and (len(batch) == BATCH_IMAGES or pixels + size > BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(labelled)
        pixels += size
    if batch:
        yield batch


def _require_same_shape(prediction: Prediction, labelled: Labelled, dimensions: int) -> None:
    """Refuse a truth per pixel that has other pixels than the answer, or planes or frames that it has not."""
    answer, truth = getattr(prediction.answer, "shape", None), getattr(labelled.truth, "shape", None)
    if answer is None or truth is None or prediction.kind not in ("labels", "image"):
        return
    if len(answer) == len(truth) and answer[-dimensions:] == truth[-dimensions:]:
        return
    path = labelled.items[0].truth
    raise DatasetError(
        f"expected {path} to have the size of its answer, {answer}, got {truth}",
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
    """Return the worst and the best images by the task's first score, worst first and best first.

    Among equals those with more objects come first, since empty images are easy and tell little. No image is in
    both lists; one without that score is in either only where the others are too few.
    """
    metric = evaluation.metric
    goodness = metric_named(metric).goodness

    def order(score: ItemScore, sign: float) -> tuple[bool, float, int]:
        value = score.metrics.get(metric)
        return value is None, 0.0 if value is None else sign * goodness(value), -score.prediction.objects

    worst = sorted(evaluation.items, key=lambda score: order(score, 1.0))[:count]
    others = [score for score in evaluation.items if score not in worst]
    best = sorted(others, key=lambda score: order(score, -1.0))[:count]
    return worst, best
