"""Reading labelled items: the image, what is true of it, and where its objects are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cytoray_analysis.cells import cells_from_boxes
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import AXES, Image, fit_statistics, image_from_array, read_image
from cytoray_analysis.images.intensity import IntensityScaling
from cytoray_analysis.selection import Selection
from cytoray_analysis.tasks.class_values import class_indices
from cytoray_analysis.tracking.ctc import read_movie, read_truth
from cytoray_services.datasets.chosen import chosen_labels, chosen_target, parts_of
from cytoray_services.datasets.dataset import Dataset, Item
from cytoray_services.datasets.fetching import kept, passing

Arguments = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Labelled:
    """One image or movie with its truth.

    Attributes
    ----------
    items
        What it stands for in the data set: its cells, or itself.
    image
        Read lazily.
    truth
        Labels (spatial…); an image (K, spatial…) float32; the class of each item (n,) int64; or a lineage.
    objects
        What a predictor is told beside the image: boxes of the cells, masks of the frames; None for nothing.
    """

    items: tuple[Item, ...]
    image: Image
    truth: Any
    objects: Any = None


def read_labelled(dataset: Dataset, items: tuple[Item, ...], arguments: Arguments) -> Labelled:
    """Read an image of a data set with its truth.

    Parameters
    ----------
    items
        One of :attr:`Dataset.images`.
    arguments
        Of the task; for classes their names, ``classes``, and for masks of classes ``values``.

    Raises
    ------
    DatasetError
        There is no truth, or a class that the task does not know.
    ForbiddenError, PlatformError
        The files lie in a store that does not give them.
    """
    seen = arguments_read(dataset.truth_kind, arguments)
    labelled = _READERS[dataset.truth_kind](kept(dataset, items), seen, dataset.selection)
    return replace(labelled, items=items)


def arguments_read(truth_kind: str, arguments: Arguments) -> dict[str, Any]:
    """Return those arguments of a task on which depends what is read of a truth; no other is looked at."""
    if truth_kind == "class":
        return {"classes": arguments["classes"]}
    if truth_kind == "labels" and arguments.get("values") is not None:
        return {name: arguments[name] for name in ("values", "classes") if name in arguments}
    return {}


def read_parts(dataset: Dataset, items: tuple[Item, ...], arguments: Arguments) -> Iterator[Labelled]:
    """Read an image as :func:`read_labelled` does; where ``each`` is chosen yield its planes or frames one by one.

    Raises
    ------
    DatasetError
        As :func:`read_labelled`; or the truth lacks planes or frames of the image.
    """
    labelled = read_labelled(dataset, items, arguments)
    axes = "".join(axis for axis in dataset.selection.each if axis in labelled.image.axes)
    if not axes:
        yield labelled
        return
    if labelled.objects is not None:
        raise DatasetError(
            f"expected boxes in one plane of {items[0].image}, for each of its planes is asked about",
            field="boxes",
            hint="choose one plane or frame by its number",
        )
    take = _PARTS[dataset.truth_kind]
    for image, truth in parts_of(labelled.image, labelled.truth, axes, take, items[0].truth):
        yield replace(labelled, image=image, truth=truth)


def task_arguments(dataset: Dataset) -> dict[str, Any]:
    """Return what the data decide about the arguments of a task."""
    decide = _ARGUMENTS.get(dataset.truth_kind)
    return decide(dataset) if decide else {}


def _image(items: tuple[Item, ...], selection: Selection) -> Image:
    return read_image(items[0].image, selection=selection)


def _read_labels(items: tuple[Item, ...], arguments: Arguments, selection: Selection) -> Labelled:
    path = _truth(items[0])
    image = _image(items, selection)
    labels = class_indices(chosen_labels(path, selection, image.axes), arguments, str(path))
    return Labelled(items, image, labels)


def _read_target(items: tuple[Item, ...], arguments: Arguments, selection: Selection) -> Labelled:
    image = _image(items, selection)
    target = target_pixels(chosen_target(_truth(items[0]), selection, image.axes), selection.each)
    return Labelled(items, image, target)


def _read_classes(items: tuple[Item, ...], arguments: Arguments, selection: Selection) -> Labelled:
    known = {name: index for index, name in enumerate(arguments["classes"])}
    for item in items:
        if item.label not in known:
            raise DatasetError(
                f"{item.image}: expected one of the classes {', '.join(known)}, "
                f"got {item.label!r}, which the model never saw",
                field="label",
                hint="leave those cells out with --where, or train on data that have the class",
            )
    boxes = [item.box for item in items if item.box is not None]
    truth = np.array([known[item.label or ""] for item in items], np.int64)
    return Labelled(items, _image(items, selection), truth, cells_from_boxes(boxes) if boxes else None)


def _read_tracks(items: tuple[Item, ...], arguments: Arguments, selection: Selection) -> Labelled:
    if selection.frame is not None or selection.plane is not None:
        raise DatasetError(
            f"expected whole movies of {items[0].image}, got a choice of a frame or a plane: its tracks are of all",
            field="select",
            hint="leave plane and frame out; channel and pixel_size may be chosen",
        )
    movie, truth = read_movie(items[0].image, selection), read_truth(_truth(items[0]))
    # Their numbers are those of the truth's tracks, which no linker looks at.
    masks = image_from_array(truth.masks, movie.axes, source=f"masks of {items[0].truth}")
    return Labelled(items, movie, truth, masks)


def target_pixels(image: Image, each: str = "") -> np.ndarray:
    """Return a target image as float32 (K, spatial…), in its own units; with frames too where `each` names T."""
    kept = ("T" if "T" in each else "") + "ZYX"
    axes = "".join(axis for axis in AXES if axis == "C" or (axis in image.axes and axis in kept))
    return np.moveaxis(image.select(axes).read().astype(np.float32), axes.index("C"), 0)


def _truth(item: Item) -> Any:
    if item.truth is None:
        raise DatasetError(
            f"expected every image to have a truth, got none for {item.image}",
            field=str(item.image),
            hint="see: cytoray data check",
        )
    return item.truth


def _class_arguments(dataset: Dataset) -> dict[str, Any]:
    labels = [item.label for item in dataset.items if item.label is not None]
    train = [item.label for item in dataset.items if item.split == "train"]
    classes = sorted(set(labels))
    return {"classes": classes, "counts": [train.count(name) for name in classes]}


def _image_arguments(dataset: Dataset) -> dict[str, Any]:
    """Measure the targets of the training split, so that the network learns numbers near one."""
    items: Sequence[Item] = [item for item in dataset.items if item.split == "train"] or dataset.items
    with passing(dataset, [replace(items[0], image=_truth(items[0]))]) as (_, (first,)):
        channels = list(read_image(first.image).channels)
    statistics = fit_statistics((_target(dataset, item) for item in items), IntensityScaling(method="zscore"))
    return {
        "channels": channels,
        "offset": list(statistics.mean),
        "scale": [1 / max(deviation, 1e-12) for deviation in statistics.std],
    }


def _target(dataset: Dataset, item: Item) -> np.ndarray:
    with passing(dataset, [item]) as (_, local):
        target: np.ndarray = _read_target(local, {}, dataset.selection).truth
        return target


_PARTS: dict[str, Callable[[Any, tuple[int, ...]], Any]] = {
    "labels": lambda truth, place: truth[place],
    "image": lambda truth, place: truth[(slice(None), *place)],
    "class": lambda truth, place: truth,
    "lineage": lambda truth, place: truth,
}
_READERS: dict[str, Callable[[tuple[Item, ...], Arguments, Selection], Labelled]] = {
    "labels": _read_labels,
    "image": _read_target,
    "class": _read_classes,
    "lineage": _read_tracks,
}
_ARGUMENTS: dict[str, Callable[[Dataset], dict[str, Any]]] = {"class": _class_arguments, "image": _image_arguments}
