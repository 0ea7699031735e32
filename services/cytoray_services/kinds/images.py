"""Images: predicted stains, in the units of the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.images import AXES, Image, fit_statistics, image_from_array, read_image
from cytoray_analysis.images.intensity import IntensityScaling
from cytoray_analysis.label_free_baseline import baseline_scores
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_analysis.selection import Selection
from cytoray_analysis.tasks import Task
from cytoray_services.datasets.check.across import find_duplicates, warn_of_drawn_split
from cytoray_services.datasets.check.same_pixels import find_same_pixels
from cytoray_services.datasets.check.targets import (
    compare_target_channels,
    examine_pair,
    find_copied_targets,
    find_shifted_targets,
    find_turned_targets,
)
from cytoray_services.datasets.chosen import chosen_target
from cytoray_services.datasets.dataset import Dataset, Item, Labelled, truth_file
from cytoray_services.datasets.remote.fetching import passing
from cytoray_services.evaluation.baselines import channels_of
from cytoray_services.evaluation.pictures import extremes_with_titles, headline, middle, middle_plane
from cytoray_services.kinds import Arguments, DataKind, Pictures
from cytoray_services.kinds.evaluated import Evaluation, ItemScore


def _read(items: tuple[Item, ...], arguments: Arguments, selection: Selection) -> Labelled:
    image = read_image(items[0].image, selection=selection)
    target = _pixels(chosen_target(truth_file(items[0]), selection, image.axes), selection.each)
    return Labelled(items, image, target)


def _pixels(image: Image, each: str) -> NDArray[np.float32]:
    """Return a target image as float32 (K, spatial…), in its own units; with frames if `each` contains T."""
    kept = ("T" if "T" in each else "") + "ZYX"
    axes = "".join(axis for axis in AXES if axis == "C" or (axis in image.axes and axis in kept))
    return np.moveaxis(image.select(axes).read().astype(np.float32), axes.index("C"), 0)


def _arguments(dataset: Dataset) -> dict[str, Any]:
    """Measure the targets of the training split, to normalise the output of the network."""
    items: Sequence[Item] = [item for item in dataset.items if item.split == "train"] or dataset.items
    with passing(dataset, [replace(items[0], image=truth_file(items[0]))]) as (_, (first,)):
        channels = list(read_image(first.image).channels)
    statistics = fit_statistics((_target(dataset, item) for item in items), IntensityScaling(method="zscore"))
    return {
        "channels": channels,
        "offset": list(statistics.mean),
        "scale": [1 / max(deviation, 1e-12) for deviation in statistics.std],
    }


def _target(dataset: Dataset, item: Item) -> NDArray[np.float32]:
    with passing(dataset, [item]) as (_, local):
        target: NDArray[np.float32] = _read(local, {}, dataset.selection).truth
        return target


def _perfect(truth: NDArray[Any], task: Task) -> NDArray[Any]:
    """Return a perfect image, with deviations if the task has them."""
    return np.concatenate([truth] * (task.output.channels // len(truth)))


def _as_truth(prediction: Prediction) -> NDArray[Any]:
    """Return a stain without its uncertainty."""
    stain: NDArray[Any] = prediction.answer[: len(prediction.spec.task.arguments["channels"])]
    return stain


def _baseline(
    training: Callable[[], Sequence[Labelled]], chosen: Sequence[Labelled], spec: BundleSpec
) -> dict[str, float]:
    """Score the best simple function of the input, chosen on the training images."""
    known, scored = (
        [(channels_of(one, one.truth.ndim - 1), one.truth) for one in part] for part in (training(), chosen)
    )
    return baseline_scores(known, scored, spec.task.arguments["channels"])


def _downstream(scores: Sequence[ItemScore], segmenter: Predictor) -> dict[str, float]:
    """Score the segmentation of predicted stains against that of the real ones, first channel."""
    from cytoray_analysis.downstream import downstream_agreement

    axes = segmenter.bundle.spec.input.spatial_axes
    return downstream_agreement(
        lambda stain: segmenter.predict(image_from_array(stain, axes)).answer,
        [score.labelled.truth[0] for score in scores],
        [score.prediction.answer[0] for score in scores],
    )


def _pictures(evaluation: Evaluation) -> Pictures:
    """Draw the worst and the best answers next to the truth."""
    from cytoray_analysis.label_free_pictures import StainEntry, stain_sheet

    entries = []
    for title, score in extremes_with_titles(evaluation):
        targets = len(score.labelled.truth)
        answer = score.prediction.answer
        entries.append(
            StainEntry(
                title=title,
                image=middle_plane(score.labelled.image),
                target=middle(score.labelled.truth[0], 2),
                prediction=middle(answer[0], 2),
                deviation=middle(answer[targets], 2) if len(answer) > targets else None,
            )
        )
    return {"worst_and_best": stain_sheet(entries, title=headline(evaluation))}


IMAGES = DataKind(
    role="target",
    folders=("inputs", "targets"),
    read=_read,
    arguments=_arguments,
    part=lambda truth, place: truth[(slice(None), *place)],
    examine=lambda item, dataset, task: examine_pair(item, dataset),
    compare=(
        warn_of_drawn_split,
        find_same_pixels,
        find_duplicates,
        compare_target_channels,
        find_shifted_targets,
        find_turned_targets,
        find_copied_targets,
    ),
    perfect=_perfect,
    as_truth=_as_truth,
    baseline=_baseline,
    segmented=lambda labelled, segmenter: labelled.objects,
    downstream=_downstream,
    pictures=_pictures,
    nothing="its target images are constant",
)
