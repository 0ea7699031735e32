"""Reading labelled items: the image, what is true of it, and where its objects are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cytoray_analysis.cells import cells_from_boxes
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import Image, fit_statistics, image_from_array, read_image, read_labels
from cytoray_analysis.images.intensity import IntensityScaling
from cytoray_analysis.tracking.ctc import read_movie, read_truth
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
        Of the task; for classes their names, ``classes``.

    Raises
    ------
    DatasetError
        There is no truth, or a class that the task does not know.
    ForbiddenError, PlatformError
        The files lie in a store that does not give them.
    """
    labelled = _READERS[dataset.truth_kind](kept(dataset, items), arguments)
    return replace(labelled, items=items)


def task_arguments(dataset: Dataset) -> dict[str, Any]:
    """Return what the data decide about the arguments of a task."""
    decide = _ARGUMENTS.get(dataset.truth_kind)
    return decide(dataset) if decide else {}


def _read_labels(items: tuple[Item, ...], arguments: Arguments) -> Labelled:
    return Labelled(items, read_image(items[0].image), read_labels(_truth(items[0])))


def _read_target(items: tuple[Item, ...], arguments: Arguments) -> Labelled:
    return Labelled(items, read_image(items[0].image), target_pixels(read_image(_truth(items[0]))))


def _read_classes(items: tuple[Item, ...], arguments: Arguments) -> Labelled:
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
    return Labelled(items, read_image(items[0].image), truth, cells_from_boxes(boxes) if boxes else None)


def _read_tracks(items: tuple[Item, ...], arguments: Arguments) -> Labelled:
    movie, truth = read_movie(items[0].image), read_truth(_truth(items[0]))
    # Their numbers are those of the truth's tracks, which no linker looks at.
    masks = image_from_array(truth.masks, movie.axes, source=f"masks of {items[0].truth}")
    return Labelled(items, movie, truth, masks)


def target_pixels(image: Image) -> np.ndarray:
    """Return a target image as float32 (K, spatial…), in its own units."""
    axes = "C" + "".join(axis for axis in image.axes if axis in "ZYX")
    return image.select(axes).read().astype(np.float32)


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
    with passing(dataset, [replace(item, image=_truth(item))]) as (_, (local,)):
        return target_pixels(read_image(local.image))


_READERS: dict[str, Callable[[tuple[Item, ...], Arguments], Labelled]] = {
    "labels": _read_labels,
    "image": _read_target,
    "class": _read_classes,
    "lineage": _read_tracks,
}
_ARGUMENTS: dict[str, Callable[[Dataset], dict[str, Any]]] = {"class": _class_arguments, "image": _image_arguments}
