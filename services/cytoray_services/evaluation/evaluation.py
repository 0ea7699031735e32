"""Evaluation of a model: its answers for a data set, scored against the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cytoray_analysis.each import predict_each, require_each
from cytoray_analysis.errors import CytorayError, DatasetError
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_analysis.selection import STITCH, Selection
from cytoray_services.datasets import Dataset, Item, Labelled, read_parts
from cytoray_services.kinds import data_kind
from cytoray_services.kinds.evaluated import Evaluation, ItemScore

# Images that are read ahead, and batched for the network if possible.
BATCH_IMAGES = 8
BATCH_PIXELS = 2**22


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
        The images to score; choose the split first. All truths and answers stay in memory.
    by
        A column of the manifest to group by; for an image with several cells, the value of the first cell counts.
    segment
        A segmentation model: its objects replace the given masks of movies, and it segments both predicted and real
        stains.
    progress
        Called with the number of images done and the total.

    Returns
    -------
    Evaluation
        With the metrics of the task.

    Raises
    ------
    DatasetError
        An image has no truth, its truth has another size or kind, or there is no column `by`.
    ImageError
        An image cannot be used; the message names the file.
    """
    started = time.perf_counter()
    task, kind = predictor.task, data_kind(dataset.truth_kind)
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
        objects = [one.objects if segment is None else kind.segmented(one, segment) for one in batch]
        predictions = _answered(predictor, batch, objects, dataset)
        for labelled, prediction in zip(batch, predictions, strict=True):
            first = labelled.items[0]
            if isinstance(prediction, CytorayError):
                raise _naming(prediction, first.image)
            _require_same_shape(prediction, labelled, len(predictor.bundle.spec.input.spatial_axes))
            metrics = task.score([prediction.scored], [labelled.truth])
            scores.append(ItemScore(labelled, _group(first, by), prediction, metrics))
        if progress:
            done = len(
                {id(score.labelled.items) for score in scores}
            )  # planes that are scored separately count as one image
            progress(done, len(images))

    def pooled(chosen: Sequence[ItemScore]) -> dict[str, float]:
        return task.score([one.prediction.scored for one in chosen], [one.labelled.truth for one in chosen])

    members: dict[str, list[ItemScore]] = {}
    for score in scores:
        if score.group is not None:
            members.setdefault(score.group, []).append(score)
    groups = {name: pooled(members[name]) for name in sorted(members)}
    downstream = {} if segment is None else kind.downstream(scores, segment)
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
        f"group of {dataset.group_column}" if dataset.group_column else kind.unit,
    )


def _answered(
    predictor: Predictor, batch: Sequence[Labelled], objects: Sequence[Any], dataset: Dataset
) -> Sequence[Prediction | CytorayError]:
    joined = dataset.selection.joined
    if not joined:
        return predictor.predict_batch([one.image for one in batch], objects)
    planes = Selection(plane=STITCH)
    return [predict_each(predictor, one.image, planes, own) for one, own in zip(batch, objects, strict=True)]


def _batches(
    dataset: Dataset, images: Sequence[tuple[Item, ...]], arguments: dict[str, Any]
) -> Iterator[list[Labelled]]:
    """Open images and yield them in batches; a large image is a batch of its own."""
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
    """Raise an error if a truth per pixel and its answer differ in size, planes or frames."""
    answer, truth = getattr(prediction.answer, "shape", None), getattr(labelled.truth, "shape", None)
    if answer is None or truth is None or prediction.inference.task.output.per != "pixel":
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
            hint=f"the columns are: {', '.join(item.row) or 'none, because there is no manifest'}",
        )
    return item.row[column]


def _naming(error: CytorayError, path: Path) -> CytorayError:
    """Return the same error with the name of the file."""
    message = error.message if str(path) in error.message else f"{path}: {error.message}"
    return type(error)(message, field=error.field or str(path), hint=error.hint)
