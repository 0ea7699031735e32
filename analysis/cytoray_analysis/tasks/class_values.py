"""The class of each number of a mask, if it is not the class index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import DatasetError, RecipeError
from cytoray_analysis.numbering import dense_numbers

UNKNOWN = 255  # how a mask of 8 bits says that a pixel belongs to no class, as PASCAL VOC does
DEFAULT_CLASSES = ("background", "foreground")


def class_of_value(values: Mapping[Any, str] | None, classes: Sequence[str]) -> dict[int, int] | None:
    """Return the index of the class of each number that masks hold; None where numbers are indices.

    Parameters
    ----------
    values
        Class by number, such as ``{0: background, 255: nucleus}``; numbers may be text, as JSON has keys.
    classes
        Names of the classes, by index.

    Raises
    ------
    RecipeError
        A number is none, or a class is not one of `classes`.
    """
    if values is None:
        return None
    found = {}
    for value, name in values.items():
        if name not in classes:
            raise RecipeError(
                f"expected one of the classes {', '.join(classes)} for the value {value}, got {name!r}",
                field="model.task.arguments.values",
                hint="also list every class in model.task.arguments.classes",
            )
        try:
            number = int(str(value))
        except ValueError:
            number = -1
        if number < 0:
            raise RecipeError(
                f"expected whole numbers from 0 as values of masks, got {value!r}",
                field="model.task.arguments.values",
                hint="such as values: {0: background, 255: nucleus}",
            )
        found[number] = list(classes).index(name)
    return found


def class_indices(labels: NDArray[Any], arguments: Mapping[str, Any], source: str) -> NDArray[Any]:
    """Return a mask with the indices of classes instead of the numbers that a task's argument ``values`` explains.

    Parameters
    ----------
    labels
        As the file has them.
    arguments
        Of the task; without ``values`` the mask is returned as it is.
    source
        For messages.

    Raises
    ------
    DatasetError
        A number is not among the values. 255 marks unknown pixels unless it is among them.
    """
    table = class_of_value(arguments.get("values"), arguments.get("classes", DEFAULT_CLASSES))
    if table is None:
        return labels
    dense, names = dense_numbers(labels)
    present = np.unique(dense)
    foreign = [int(name) for name in names[present] if int(name) not in table and int(name) != UNKNOWN]
    if foreign:
        raise DatasetError(
            f"{source}: expected the values {', '.join(map(str, sorted(table)))} (and {UNKNOWN} for unknown pixels), "
            f"got {', '.join(map(str, foreign[:5]))}",
            field="model.task.arguments.values",
            hint="define in model.task.arguments.values the class of each number in the masks",
        )
    index = np.full(len(names), UNKNOWN, np.uint8)
    for place in present:
        index[place] = table.get(int(names[place]), UNKNOWN)
    indices: NDArray[np.uint8] = index[dense]
    return indices
