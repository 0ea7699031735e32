"""Lineages: the tracks of the cells in a movie, with the parent of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.inference.objects import segment
from cytoray_analysis.selection import Selection
from cytoray_analysis.tasks import get_task
from cytoray_analysis.tracking.ctc import read_movie, read_truth
from cytoray_analysis.tracking.linking import link_movie
from cytoray_services.datasets.check.across import find_duplicates
from cytoray_services.datasets.check.exchanged import find_exchanged_masks
from cytoray_services.datasets.check.fit import find_misplaced_masks
from cytoray_services.datasets.check.movies import examine_movie, note_divisions, note_drawn_split
from cytoray_services.datasets.dataset import Item, Labelled, truth_file
from cytoray_services.evaluation.baselines import scores_of
from cytoray_services.evaluation.pictures import shown
from cytoray_services.kinds import Arguments, DataKind, Pictures
from cytoray_services.kinds.evaluated import Evaluation


def _read(items: tuple[Item, ...], arguments: Arguments, selection: Selection) -> Labelled:
    if selection.frame is not None or selection.plane is not None:
        raise DatasetError(
            f"expected whole movies of {items[0].image}, got a selected frame or plane: tracks need all of them",
            field="select",
            hint="omit plane and frame; channel and pixel_size can be selected",
        )
    movie, truth = read_movie(items[0].image, selection), read_truth(truth_file(items[0]))
    # Their numbers are those of the true tracks, which linkers ignore.
    masks = image_from_array(truth.masks, movie.axes, source=f"masks of {items[0].truth}")
    return Labelled(items, movie, truth, masks)


def _baseline(
    training: Callable[[], Sequence[Labelled]], chosen: Sequence[Labelled], spec: BundleSpec
) -> dict[str, float]:
    """Score links by overlap, then by distance."""
    from cytoray_analysis.networks.overlap import overlap_then_distance

    parameters = get_task(spec.task.name, spec.task.arguments).output.defaults()
    answers = [link_movie(one.image, one.objects, overlap_then_distance, parameters) for one in chosen]
    return scores_of(answers, chosen, spec)


def _pictures(evaluation: Evaluation) -> Pictures:
    """Draw the tracks of each movie over its last frame."""
    from cytoray_analysis.pictures import display_rgb
    from cytoray_analysis.track_pictures import lineage_picture

    pictures = {}
    for score in evaluation.items:
        movie = score.labelled.image
        last = movie.read((slice(-1, None), *(slice(None),) * (len(movie.axes) - 1)))[0]
        frame = display_rgb(last.max(axis=0) if last.ndim == 3 else last)
        name = score.image.name
        title = f"{name}: {shown(evaluation.metric, score.metrics)}"
        pictures[f"tracks_{name}"] = lineage_picture(frame, score.prediction.answer, title=title)
    return pictures


LINEAGES = DataKind(
    role="tracks",
    movies=True,
    read=_read,
    examine=lambda item, dataset, task: examine_movie(item, dataset),
    compare=(note_drawn_split, find_duplicates, find_misplaced_masks, find_exchanged_masks, note_divisions),
    baseline=_baseline,
    segmented=lambda labelled, segmenter: segment(labelled.image, segmenter).labels,
    pictures=_pictures,
    nothing="its movies contain nothing to count, such as divisions",
)
