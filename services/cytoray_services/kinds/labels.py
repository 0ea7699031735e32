"""Labels: the object number, or class number, of each pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.images import read_image
from cytoray_analysis.selection import Selection
from cytoray_analysis.tasks.class_values import class_indices
from cytoray_analysis.threshold import threshold_and_split
from cytoray_services.datasets.check.across import find_duplicates, warn_of_drawn_split
from cytoray_services.datasets.check.class_masks import find_classes_without_pixels
from cytoray_services.datasets.check.exchanged import find_exchanged_masks
from cytoray_services.datasets.check.fit import find_misplaced_masks
from cytoray_services.datasets.check.known import find_nothing_known
from cytoray_services.datasets.check.labels import examine_labelled
from cytoray_services.datasets.check.same_pixels import find_same_pixels
from cytoray_services.datasets.chosen import chosen_known, chosen_labels, only_known
from cytoray_services.datasets.dataset import Item, Labelled, truth_file
from cytoray_services.evaluation.baselines import channels_of, scores_of
from cytoray_services.evaluation.pictures import extremes_with_titles, headline, middle, middle_plane
from cytoray_services.kinds import Arguments, DataKind, Pictures
from cytoray_services.kinds.evaluated import Evaluation, ItemScore


def _read(items: tuple[Item, ...], arguments: Arguments, selection: Selection) -> Labelled:
    path, known = truth_file(items[0]), items[0].known
    image = read_image(items[0].image, selection=selection)
    labels = class_indices(chosen_labels(path, selection, image.axes), arguments, str(path))
    if known is not None:
        labels = only_known(labels, chosen_known(known, selection, image.axes), known)
    return Labelled(items, image, labels)


def _needed(arguments: Arguments) -> dict[str, Any]:
    if arguments.get("values") is None:
        return {}
    return {name: arguments[name] for name in ("values", "classes") if name in arguments}


def _baseline(
    training: Callable[[], Sequence[Labelled]], chosen: Sequence[Labelled], spec: BundleSpec
) -> dict[str, float]:
    """Score Otsu's threshold and a watershed."""
    answers = [threshold_and_split(channels_of(one, one.truth.ndim).mean(axis=0)) for one in chosen]
    return scores_of(answers, chosen, spec)


def _pictures(evaluation: Evaluation) -> Pictures:
    """Draw the worst and the best answers next to the truth."""
    from cytoray_analysis.pictures import SheetEntry, sheet

    entries = [SheetEntry(title, _compared(score)) for title, score in extremes_with_titles(evaluation)]
    legend = "image  |  truth: found green, missed orange  |  prediction: right green, wrong red"
    return {"worst_and_best": sheet(entries, title=f"{headline(evaluation)}\n{legend}")}


def _compared(score: ItemScore) -> NDArray[np.uint8]:
    from cytoray_analysis.pictures import comparison, display_rgb

    plane = middle_plane(score.labelled.image)
    truth, answer = (middle(one, plane.ndim - 1) for one in (score.labelled.truth, score.prediction.answer))
    return comparison(display_rgb(plane), truth, answer)


LABELS = DataKind(
    role="mask",
    known=True,
    folders=("images", "masks"),
    read=_read,
    needed=_needed,
    part=lambda truth, place: truth[place],
    examine=examine_labelled,
    compare=(
        warn_of_drawn_split,
        find_same_pixels,
        find_duplicates,
        find_misplaced_masks,
        find_exchanged_masks,
        find_classes_without_pixels,
        find_nothing_known,
    ),
    baseline=_baseline,
    pictures=_pictures,
    nothing="its masks contain no object, or a single class",
)
