r"""Plain folders that are data sets without a manifest.

=================================== ========================= =================================
layout                              what it is for            split
=================================== ========================= =================================
``images/x`` and ``masks/x``        segmentation              drawn
``inputs/x`` and ``targets/x``      label-free prediction     drawn
``NN/`` and ``NN_GT/``              tracking (Cell Tracking   drawn, by movie
                                    Challenge)
``[train\|val\|test/]CLASS/x``      classification            the folder's name, or drawn
=================================== ========================= =================================
"""

from __future__ import annotations

import re
from pathlib import Path

from cytoray_analysis.errors import DatasetError
from cytoray_services.datasets.dataset import Dataset, Item

_PAIRS = (("images", "masks"), ("inputs", "targets"))
_SPLITS = ("train", "val", "test")
_SEQUENCE = re.compile(r"\d\d")


def read_layout(folder: Path) -> Dataset:
    """List the items of a plain folder; splits that nobody gave are empty and marked as to be drawn.

    Raises
    ------
    DatasetError
        It is laid out in none of these ways.
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    names = {path.name for path in folders}
    for images, truths in _PAIRS:
        if images in names:
            return _pairs(folder, images, truths)
    movies = [path for path in folders if _SEQUENCE.fullmatch(path.name) and f"{path.name}_GT" in names]
    if movies:
        items = tuple(Item(path, folder / f"{path.name}_GT", "") for path in movies)
        return Dataset(folder, items, "lineage", derived_split=True)
    if len(folders) > 1:
        return _classes(folder, folders)
    raise DatasetError(
        f"{folder} has neither manifest.csv nor one of images/ and masks/, inputs/ and targets/, 01/ and 01_GT/, "
        "or a folder per class",
        field="root",
        hint="see the guides for the layouts, or make a data set with: cytoray data make TASK DIR",
    )


def _pairs(folder: Path, images: str, truths: str) -> Dataset:
    if not (folder / truths).is_dir():
        raise DatasetError(
            f"{folder} has {images}/ but neither {truths}/ nor manifest.csv",
            field=f"columns.{truths}",
            hint=f"put the truth of {images}/x.tif into {truths}/x.tif",
        )
    known = {_stem(path): path for path in _files(folder / truths)}
    items = tuple(
        Item(path, known.get(_stem(path), folder / truths / path.name), "") for path in _files(folder / images)
    )
    return Dataset(folder, items, "labels" if truths == "masks" else "image", derived_split=True)


def _classes(folder: Path, folders: list[Path]) -> Dataset:
    given = all(path.name in _SPLITS for path in folders)
    parts = {"": folders}
    if given:
        parts = {path.name: sorted(sub for sub in path.iterdir() if sub.is_dir()) for path in folders}
    items = tuple(
        Item(path, None, split, label=kind.name)
        for split, kinds in parts.items()
        for kind in kinds
        for path in _files(kind)
    )
    return Dataset(folder, items, "class", derived_split=not given)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _stem(path: Path) -> str:
    return path.name.split(".")[0]
