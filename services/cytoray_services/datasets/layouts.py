r"""Plain folders as data sets without a manifest.

=================================== ========================= =================================
layout                              task                      split
=================================== ========================= =================================
``images/x`` and ``masks/x``        segmentation              drawn
``inputs/x`` and ``targets/x``      label-free prediction     drawn
``NN/`` and ``NN_GT/``              tracking (Cell Tracking   drawn, by movie
                                    Challenge)
``CLASS/x``                         classification            drawn
``train/``, ``val/``, ``test/``,    as above, one layout in   the folder's name
each with one of these layouts      all
``images/train/x`` and              as above                  the folder's name
``masks/train/x``, …
=================================== ========================= =================================

Images and truths pair by name: see :mod:`cytoray_services.datasets.pairing`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images.names import image_stem, is_image_name, is_of_system, truth_stem
from cytoray_services.datasets.dataset import Dataset, Item
from cytoray_services.datasets.pairing import pair_by_name
from cytoray_services.datasets.split_names import SPLITS, check_split, nearest_split
from cytoray_services.kinds import data_kinds

if TYPE_CHECKING:
    from cytoray_analysis.kinds import TruthKind

_IMAGE_FOLDERS = {"image", "images", "img", "imgs", "input", "inputs", "raw"}
_TRUTH_FOLDERS = {"mask", "masks", "label", "labels", "gt", "target", "targets", "truth", "annotations", "segmentation"}
_BESIDE_MOVIES = ("_GT", "_ST", "_RES")
_ZARR_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


@dataclass(frozen=True)
class _Part:
    """The content of one folder."""

    kind: TruthKind
    items: tuple[Item, ...]
    unused: tuple[Path, ...] = ()
    given: bool = False


def read_layout(folder: Path) -> Dataset:
    """List the items of a plain folder; without splits they are empty and marked as derived.

    Raises
    ------
    DatasetError
        The layout is unknown, the name of a folder looks like a misspelled split, or two files claim one name.
    """
    folders = _folders(folder)
    part = _pairs_or_movies(folder, folders) or _splits(folder, folders)
    if part is None:
        _refuse_roles_as_classes(folder, folders)
        if len(folders) < 2:
            raise DatasetError(
                f"{folder} has neither manifest.csv nor one of images/ and masks/, inputs/ and targets/, "
                "01/ and 01_GT/, or a folder per class",
                field="root",
                hint=_way_out(folder),
            )
        part = _classes(folder, folders)
    return Dataset(folder, part.items, part.kind, derived_split=not part.given, unused=part.unused)


def _pairs_or_movies(folder: Path, folders: Sequence[Path]) -> _Part | None:
    names = {path.name for path in folders}
    for kind, data in data_kinds().items():
        if data.folders is not None and data.folders[0] in names:
            return _pairs(folder, *data.folders, kind)
    movies = [path for path in folders if f"{path.name}_GT" in names]
    if not movies:
        return None
    items = tuple(Item(path, folder / f"{path.name}_GT", "") for path in movies)
    others = [path for path in folders if path not in movies and not path.name.endswith(_BESIDE_MOVIES)]
    return _Part("lineage", items, tuple(others) + _stray_images(folder))


def _splits(folder: Path, folders: Sequence[Path]) -> _Part | None:
    """Read a folder per split, each with a layout."""
    named = [path for path in folders if path.name in SPLITS or nearest_split(path.name)]
    if not any(_folders(path) for path in named):
        if named and all(path.name in SPLITS for path in folders):
            raise DatasetError(
                f"{folder} has {_list(named)}, but they contain neither images/ and masks/ nor a folder per class",
                field="root",
                hint="put images and their truth into train/images and train/masks, or images into train/CLASS",
            )
        return None
    parts: dict[str, _Part] = {}
    unused = _stray_images(folder)
    for path in folders:
        inside = _folders(path)
        if not inside:  # a folder of images next to folders of splits
            unused += (path,)
            continue
        split = check_split(path.name, f"{folder}, folder {path.name}/")
        part = _pairs_or_movies(path, inside)
        if part is None:
            _refuse_roles_as_classes(path, inside)
            part = _classes(path, inside)
        if part.given:
            raise DatasetError(f"{path} has folders of splits inside a split", field="split", hint="use one level")
        parts[split] = part
    kinds = {part.kind for part in parts.values()}
    if len(kinds) > 1:
        got = ", ".join(f"{part.kind} in {split}/" for split, part in parts.items())
        raise DatasetError(f"{folder}: expected one layout in all splits, got truth of the kinds {got}", field="root")
    items = tuple(replace(item, split=split) for split, part in parts.items() for item in part.items)
    unused += tuple(path for part in parts.values() for path in part.unused)
    return _Part(kinds.pop(), items, unused, given=True)


def _pairs(folder: Path, images: str, truths: str, kind: TruthKind) -> _Part:
    if not (folder / truths).is_dir():
        raise DatasetError(
            f"{folder} has {images}/ but neither {truths}/ nor manifest.csv",
            field=f"columns.{truths}",
            hint=f"put the truth of {images}/x.tif into {truths}/x.tif{_called_otherwise(folder, truths)}",
        )
    splits = _files(folder / images)
    if splits and all(_is_folder(path) and (path.name in SPLITS or nearest_split(path.name)) for path in splits):
        parts = [
            _paired(path, folder / truths / path.name, kind, check_split(path.name, f"{folder / images}, {path.name}/"))
            for path in splits
        ]
        items = tuple(item for part in parts for item in part.items)
        return _Part(kind, items, tuple(path for part in parts for path in part.unused), given=True)
    part = _paired(folder / images, folder / truths, kind, "")
    return replace(part, unused=part.unused + _stray_images(folder))


def _paired(images: Path, truths: Path, kind: TruthKind, split: str) -> _Part:
    paths = _files(images)
    pairs = pair_by_name(paths, _files(truths) if truths.is_dir() else [])
    items = tuple(Item(path, pairs.truth_of.get(path, truths / path.name), split) for path in paths)
    return _Part(kind, items, pairs.unused)


def _classes(folder: Path, folders: Sequence[Path]) -> _Part:
    found = {path: _files(path) for path in folders}
    items = tuple(Item(path, None, "", label=kind.name) for kind, paths in found.items() for path in paths)
    return _Part("class", items, _stray_images(folder) + tuple(kind for kind, paths in found.items() if not paths))


def _refuse_roles_as_classes(folder: Path, folders: Sequence[Path]) -> None:
    """Raise an error for ``Images/`` and ``Masks/``, or tracking results, which would be read as classes."""
    names = {path.name.casefold(): path.name for path in folders}
    images, truths = sorted(_IMAGE_FOLDERS & names.keys()), sorted(_TRUTH_FOLDERS & names.keys())
    if not (images and truths):  # names that contain such words, if their files fit together
        spoken = {name: _words(written) for name, written in names.items()}
        images = sorted(name for name, words in spoken.items() if words & _IMAGE_FOLDERS)
        truths = sorted(name for name, words in spoken.items() if words & _TRUTH_FOLDERS and name not in images)
        if not any(_fit_together(folder / names[one], folder / names[other]) for one in images for other in truths):
            images = []
    beside = [path.name for path in folders if path.name.endswith(_BESIDE_MOVIES)]
    if images and truths:
        raise DatasetError(
            f"{folder} has {names[images[0]]}/ and {names[truths[0]]}/, which look like images and their truth",
            field="root",
            hint="rename them to images/ and masks/ (segmentation) or inputs/ and targets/ (label-free), in lower case",
        )
    inside = next((path for path in folders if _roles_in(path)), None)
    if inside is not None:
        raise DatasetError(
            f"{folder} has {inside.name}/, which contains {_list(_roles_in(inside))}: images and their truth",
            field="root",
            hint=f"use {inside} if that is the data set; otherwise put all images into images/ and one label image "
            "of the same name for each into masks/",
        )
    if beside:
        raise DatasetError(
            f"{folder} has {beside[0]}/, which looks like the truth or the result of a movie, but no such movie",
            field="root",
            hint="put the frames into 01/ and the truth into 01_GT/TRA",
        )


def _words(name: str) -> set[str]:
    """Return the words in the name of a folder, such as ``imagesTr`` or ``ground_truth``, in lower case."""
    return {word.casefold() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def _fit_together(images: Path, truths: Path) -> bool:
    """Whether most images have a truth by name, including the names of nnU-Net (``x_0000.tif``)."""
    known = {truth_stem(path.name) for path in _files(truths)}
    stems = [image_stem(path.name) for path in _files(images) if is_image_name(path)]
    fitting = sum(not known.isdisjoint((stem, stem.removesuffix("_0000"))) for stem in stems)
    return fitting * 2 > len(stems)


def _roles_in(folder: Path) -> list[Path]:
    """Return the folders of images and of truth in a folder, if it has both."""
    inside = {path.name.casefold(): path for path in _folders(folder)}
    images, truths = sorted(_IMAGE_FOLDERS & inside.keys()), sorted(_TRUTH_FOLDERS & inside.keys())
    return [inside[images[0]], inside[truths[0]]] if images and truths else []


def _called_otherwise(folder: Path, truths: str) -> str:
    other = next((path for path in _folders(folder) if path.name.casefold() in _TRUTH_FOLDERS), None)
    return "" if other is None else f"; if {other.name}/ contains it, rename that to {truths}/"


def _way_out(folder: Path) -> str:
    names = [path.name for path in _files(folder)]
    if any(name.endswith("_seg.npy") for name in names):
        return (
            "_seg.npy of Cellpose is not supported: save its masks as TIFF or PNG, and put the images into images/ and "
            "the masks into masks/"
        )
    if _stray_images(folder):
        return (
            "put the images into images/ and their truth into masks/, with the same names (also x_mask.tif, "
            "x_cp_masks.png …)"
        )
    return "see the guides for the layouts, or make a data set with: cytoray data make TASK DIR"


def _folders(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if _is_folder(path)] if folder.is_dir() else []


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder, but not an OME-Zarr, which is an image."""
    return path.is_dir() and path.suffix.lower() != ".zarr" and not any((path / name).exists() for name in _ZARR_FILES)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_of_system(path.name))


def _stray_images(folder: Path) -> tuple[Path, ...]:
    """Return the images next to the folders, which no layout reads."""
    return tuple(path for path in _files(folder) if is_image_name(path) and not _is_folder(path))


def _list(paths: Iterable[Path]) -> str:
    return ", ".join(f"{path.name}/" for path in paths)
