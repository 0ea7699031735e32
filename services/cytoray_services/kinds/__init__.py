"""Kinds of truth: how the data of each kind are read, checked, scored and drawn. Each kind has a module.

An installed package adds a kind with an entry point in the group ``cytoray.truths`` for a :class:`DataKind`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from cytoray_analysis.errors import DatasetError, RequestError
from cytoray_analysis.kinds import TruthKind, find_kind, installed

if TYPE_CHECKING:
    from cytoray_analysis.bundle import BundleSpec, TaskChoice
    from cytoray_analysis.predictor import Prediction, Predictor
    from cytoray_analysis.selection import Selection
    from cytoray_analysis.tasks import Task
    from cytoray_services.datasets.check.findings import Checked, Facts, Finding
    from cytoray_services.datasets.dataset import Dataset, Item, Labelled
    from cytoray_services.kinds.evaluated import Evaluation, ItemScore

Arguments = Mapping[str, Any]
Pictures = dict[str, bytes]


def _refuse_segmentation(labelled: Labelled, segmenter: Predictor) -> Any:
    raise RequestError(
        "--segmentation is for movies and predicted stains only",
        field="segmentation",
        hint="omit --segmentation",
    )


@dataclass(frozen=True)
class DataKind:
    """A kind of truth.

    Attributes
    ----------
    role
        Column of the truth in the manifest.
    read
        Reads the image of some items with its truth, given the arguments of the task and the selection of the image.
    examine
        Checks the files of one item for :func:`~cytoray_services.datasets.check_dataset`.
    compare
        Checks of all items together, in addition to those of every data set.
    baseline
        Scores a method without learning, given a reader of the training images, the images to score, and the model.
    pictures
        Draws an evaluation: PNG files by name.
    nothing
        Why a score of perfect answers has nothing to count.
    in_row
        Whether the column contains the truth itself, such as the class of a cell, not the name of a file.
    folders
        Folders of images and truths of a data set without a manifest; None without such a layout.
    known
        Whether a mask can say which pixels of the truth are known: the column ``known`` of the manifest.
    movies
        Whether each image is a movie.
    arguments
        The arguments of the task that depend on the data.
    needed
        The arguments of the task that affect the reading of a truth.
    part
        The truth of a plane or frame, by its position.
    perfect
        The answer of a perfect model, given the truth.
    as_truth
        An answer as truth for the score.
    segmented
        The objects that a segmentation model finds for an image.
    downstream
        The scores of a segmentation model on the answers.
    """

    role: str
    read: Callable[[tuple[Item, ...], Arguments, Selection], Labelled]
    examine: Callable[[Item, Dataset, TaskChoice | None], Facts]
    compare: tuple[Callable[[Checked], Iterable[Finding]], ...]
    baseline: Callable[[Callable[[], Sequence[Labelled]], Sequence[Labelled], BundleSpec], dict[str, float]]
    pictures: Callable[[Evaluation], Pictures]
    nothing: str
    in_row: bool = False
    folders: tuple[str, str] | None = None
    known: bool = False
    movies: bool = False
    arguments: Callable[[Dataset], dict[str, Any]] = lambda dataset: {}
    needed: Callable[[Arguments], dict[str, Any]] = lambda arguments: {}
    part: Callable[[Any, tuple[int, ...]], Any] = lambda truth, place: truth
    perfect: Callable[[Any, Task], Any] = lambda truth, task: truth
    as_truth: Callable[[Prediction], Any] = lambda prediction: prediction.answer
    segmented: Callable[[Labelled, Predictor], Any] = _refuse_segmentation
    downstream: Callable[[Sequence[ItemScore], Predictor], dict[str, float]] = lambda scores, segmenter: {}

    @property
    def unit(self) -> str:
        """The name of an image, for display."""
        return "movie" if self.movies else "image"


_KINDS: Mapping[TruthKind, str] = {
    "labels": "cytoray_services.kinds.labels:LABELS",
    "image": "cytoray_services.kinds.images:IMAGES",
    "class": "cytoray_services.kinds.classes:CLASSES",
    "lineage": "cytoray_services.kinds.lineages:LINEAGES",
}


@cache
def data_kind(name: TruthKind) -> DataKind:
    """Return the kind of truth of that name.

    Raises
    ------
    DatasetError
        It does not exist, neither here nor in an installed package.
    """
    try:
        found: DataKind = find_kind(name, _KINDS, "cytoray.truths")
    except KeyError as error:
        raise DatasetError(f"expected truth of the kinds {error.args[0]}, got {name!r}", field="truth") from None
    return found


def data_kinds() -> dict[TruthKind, DataKind]:
    """Return all kinds of truth by name."""
    return {name: data_kind(name) for name in dict.fromkeys((*_KINDS, *installed("cytoray.truths")))}
