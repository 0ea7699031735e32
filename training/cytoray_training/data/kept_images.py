"""Labelled images that are read after every epoch, cached in memory as far as they fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_services.datasets import Dataset, Item, Labelled, read_parts

BUDGET = 2**30
"""Bytes of truths (and of images whose files cannot be read in parts) that a worker caches."""


class KeptImages:
    """Reads labelled images, each once if all fit into a budget; images beyond it are read again.

    Truths are cached decoded; images only if reading them again would decode them completely.

    Parameters
    ----------
    arguments
        Of the task.
    budget
        Bytes.
    """

    def __init__(self, arguments: Mapping[str, Any], budget: int = BUDGET) -> None:
        self._arguments, self._left = arguments, budget
        self._kept: dict[Path, list[Labelled]] = {}

    def parts(self, dataset: Dataset, items: tuple[Item, ...]) -> list[Labelled]:
        """Return what :func:`cytoray_services.datasets.read_parts` yields for an image."""
        key = items[0].image
        if key in self._kept:
            return self._kept[key]
        parts = list(read_parts(dataset, items, self._arguments))
        size = sum(_bytes(one.truth) + _bytes(one.image.data) for one in parts)
        if size <= self._left:
            self._left -= size
            self._kept[key] = parts
        return parts


def _bytes(content: Any) -> int:
    """Return the size of an array, or of the arrays in a lineage; lazily read data have size 0."""
    if isinstance(content, np.ndarray):
        return content.nbytes
    return sum(value.nbytes for value in getattr(content, "__dict__", {}).values() if isinstance(value, np.ndarray))
