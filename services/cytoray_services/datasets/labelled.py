"""Reading labelled items: the image, its truth, and its given objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from cytoray_analysis.errors import DatasetError
from cytoray_services.datasets.chosen import parts_of
from cytoray_services.datasets.dataset import Dataset, Item, Labelled
from cytoray_services.datasets.remote.fetching import kept
from cytoray_services.kinds import Arguments, data_kind


def read_labelled(dataset: Dataset, items: tuple[Item, ...], arguments: Arguments) -> Labelled:
    """Read an image of a data set with its truth.

    Parameters
    ----------
    items
        One of :attr:`Dataset.images`.
    arguments
        Arguments of the task: ``classes`` for their names, ``values`` for masks of classes.

    Raises
    ------
    DatasetError
        There is no truth, or an unknown class.
    ForbiddenError, PlatformError
        The store of the files rejects the request or does not answer.
    """
    kind = data_kind(dataset.truth_kind)
    labelled = kind.read(kept(dataset, items), kind.needed(arguments), dataset.selection)
    return replace(labelled, items=items)


def arguments_read(truth_kind: str, arguments: Arguments) -> dict[str, Any]:
    """Return the arguments of a task that affect the reading of a truth."""
    return data_kind(truth_kind).needed(arguments)


def read_parts(dataset: Dataset, items: tuple[Item, ...], arguments: Arguments) -> Iterator[Labelled]:
    """Read an image as :func:`read_labelled`; with ``each``, yield its planes or frames separately.

    Raises
    ------
    DatasetError
        As :func:`read_labelled`; or the truth lacks planes or frames of the image.
    """
    labelled = read_labelled(dataset, items, arguments)
    selection = dataset.selection
    separate = selection.each.removesuffix(selection.joined)  # objects that are joined are scored as those of a volume
    axes = "".join(axis for axis in separate if axis in labelled.image.axes)
    if not axes:
        yield labelled
        return
    if labelled.objects is not None:
        raise DatasetError(
            f"expected one plane of {items[0].image} for its boxes, got a selection of each plane",
            field="boxes",
            hint="select one plane or frame by its number",
        )
    take = data_kind(dataset.truth_kind).part
    for image, truth in parts_of(labelled.image, labelled.truth, axes, take, items[0].truth):
        yield replace(labelled, image=image, truth=truth)


def task_arguments(dataset: Dataset) -> dict[str, Any]:
    """Return the arguments of a task that depend on the data."""
    return data_kind(dataset.truth_kind).arguments(dataset)
