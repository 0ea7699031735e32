"""What ruins a training, found before any worker starts, with file and remedy.

================================ ======== ==================================================================
code                             severity what it means
================================ ======== ==================================================================
``missing-column``, ``layout``   error    the manifest or the folder cannot be understood
``missing-file``                 error    an image or its truth is not there
``unreadable``, ``truncated``    error    a file is damaged, of an unknown format, or cut off
``wrong-axes``                   error    time or depth where the others have none; a truth that is no plane
``wrong-channels``               error    another number of channels than the others or than asked for
``not-finite``                   error    NaN or infinity among the pixels
``size-mismatch``                error    image and truth differ in size
``float-mask``, ``negative-mask`` error   labels that are no numbers of objects
``split-missing``                error    a split that training needs has no image
``class-missing``                error    a class of one split is absent from another
``duplicate-across-splits``      error    the same pixels in two splits
``empty-mask``                   warning  no object at all
``fragmented-ids``               warning  one number for objects far apart, as in a binary mask
``constant-image``               warning  every pixel has the same value
``no-split-column``              warning  nobody gave a split, so one was drawn
================================ ======== ==================================================================
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cytoray_analysis.errors import DatasetError, ImageError, InputError, MissingFileError, UnreadableImageError
from cytoray_analysis.images import Image, read_image, require_finite
from cytoray_services.datasets.manifest import Dataset, Item, open_dataset

_THREADS = 4
_DIRECT_SUFFIXES = {".tif", ".tiff", ".png", ".jpg", ".jpeg"}
_DIRECT_BYTES = 2**27


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set.

    Parameters
    ----------
    severity
        ``error`` ruins a training; ``warning`` is worth a look.
    file
        The file, relative to the data set; ``.`` for the data set itself.
    problem
        What was expected and what came.
    remedy
        What to do.
    code
        A name for programs; see the table of this module.
    """

    severity: Literal["error", "warning"]
    file: str
    problem: str
    remedy: str
    code: str


@dataclass(frozen=True)
class _Facts:
    """What was learnt about one item; axes are empty when the image could not be read."""

    findings: tuple[Finding, ...]
    axes: str = ""
    channels: int = 0
    digest: str = ""


def check_folder(
    root: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    channels: int | None = None,
    required_splits: Sequence[str] = ("train", "val"),
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Open and check a data set; what keeps it from being opened is a finding too.

    Parameters are those of :func:`open_dataset` and :func:`check_dataset`.

    Raises
    ------
    MissingFileError
        When there is no such folder.
    """
    try:
        dataset = open_dataset(root, columns=columns)
    except DatasetError as error:
        code = "missing-column" if (error.field or "").startswith("columns.") else "layout"
        return [Finding("error", ".", error.message, error.hint or "", code)]
    return check_dataset(dataset, channels=channels, required_splits=required_splits, progress=progress)


def check_dataset(
    dataset: Dataset,
    *,
    channels: int | None = None,
    grey_as_rgb: bool = True,
    required_splits: Sequence[str] = ("train", "val"),
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Read every file of a data set and report what would ruin a training.

    Parameters
    ----------
    dataset
        From :func:`open_dataset`.
    channels
        How many channels the model takes; when left out, what most images have.
    grey_as_rgb
        Whether grey images stand in for colour ones.
    required_splits
        Splits that must have images.
    progress
        Called with the number of files done and of all files.

    Returns
    -------
    list of Finding
        Errors first, then by file.
    """
    unique = {(item.image, item.truth): item for item in dataset.items}
    facts: dict[tuple[Path, Path | None], _Facts] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, (key, result) in enumerate(
            zip(unique, pool.map(lambda item: _examine(item, dataset), unique.values()), strict=True), start=1
        ):
            facts[key] = result
            if progress is not None:
                progress(done, len(unique))
    findings = [finding for result in facts.values() for finding in result.findings]
    findings += _compare_axes(dataset, facts)
    findings += _compare_channels(dataset, facts, channels, grey_as_rgb)
    findings += _find_duplicates(dataset, facts)
    findings += _check_splits(dataset, required_splits)
    return sorted(findings, key=lambda finding: (finding.severity, finding.file, finding.code))


def _examine(item: Item, dataset: Dataset) -> _Facts:
    name = _name(item.image, dataset)
    opened = _open(item.image, name)
    if isinstance(opened, Finding):
        return _Facts((opened,))
    try:
        pixels = opened.read()
        require_finite(pixels, name)
    except UnreadableImageError as error:
        return _Facts((_damaged(name, error),))
    except ImageError as error:
        return _Facts((Finding("error", name, error.message, error.hint or "", "not-finite"),), opened.axes)
    findings: list[Finding] = []
    if pixels.min() == pixels.max():
        problem = f"every pixel has the value {pixels.min()}"
        findings.append(
            Finding("warning", name, problem, "Remove the image unless empty fields are wanted.", "constant-image")
        )
    if dataset.truth_kind != "none":
        findings += _check_truth(item, opened, dataset)
    digest = hashlib.blake2b(f"{opened.axes}{pixels.shape}{pixels.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return _Facts(tuple(findings), opened.axes, opened.size("C"), digest.hexdigest())


def _check_truth(item: Item, image: Image, dataset: Dataset) -> Iterator[Finding]:
    if item.truth is None:
        yield Finding("error", _name(item.image, dataset), "it has no truth", "Name its mask.", "missing-file")
        return
    name = _name(item.truth, dataset)
    truth = _open(item.truth, name)
    if isinstance(truth, Finding):
        yield truth
        return
    if truth.spatial_shape != image.spatial_shape:
        problem = f"its size is {_size(truth)}, that of its image {_size(image)}"
        yield Finding("error", name, problem, "Crop or resample both together.", "size-mismatch")
        return
    if dataset.truth_kind == "labels":
        yield from _check_labels(truth, name)


def _check_labels(truth: Image, name: str) -> Iterator[Finding]:
    if truth.axes not in ("YX", "ZYX"):
        problem = f"a mask has axes YX or ZYX, this one has {truth.axes} = {truth.shape}"
        yield Finding("error", name, problem, "Store one integer per pixel, not colours.", "wrong-axes")
        return
    try:
        labels = truth.read()
    except UnreadableImageError as error:
        yield _damaged(name, error)
        return
    if labels.dtype.kind == "f":
        remedy = "Convert it to uint16, one whole number per object; a probability map is no mask."
        yield Finding("error", name, f"a mask holds integers, this one {labels.dtype}", remedy, "float-mask")
        return
    if labels.dtype.kind == "i" and labels.min() < 0:
        problem = f"a mask counts objects from 1, this one holds {labels.min()}"
        yield Finding("error", name, problem, "Use 0 for background and for what is not to count.", "negative-mask")
        return
    if not labels.any():
        yield Finding("warning", name, "it holds no object", "Check that it was exported fully.", "empty-mask")
        return
    scattered = _scattered_ids(labels)
    if scattered:
        shown = ", ".join(str(label) for label in scattered[:5])
        problem = f"{len(scattered)} numbers stand for pieces far apart (such as {shown})"
        remedy = "Give each object its own number, for example with skimage.measure.label."
        yield Finding("warning", name, problem, remedy, "fragmented-ids")


def _scattered_ids(labels: np.ndarray) -> list[int]:
    """Numbers of which two pieces lie further apart than the larger of them is long."""
    from scipy.ndimage import find_objects
    from skimage.measure import label

    pieces: np.ndarray = label(labels, connectivity=labels.ndim)  # type: ignore[no-untyped-call]
    boxes = find_objects(pieces)
    if len(boxes) == np.count_nonzero(np.bincount(labels[labels > 0].astype(np.int64))):
        return []
    owners: dict[int, list[tuple[slice, ...]]] = {}
    for number, box in enumerate(boxes, start=1):
        inside = pieces[box] == number
        if np.count_nonzero(inside) > 4:  # specks are no objects
            owners.setdefault(int(labels[box][inside][0]), []).append(box)
    return sorted(number for number, parts in owners.items() if any(_far(parts[0], part) for part in parts[1:]))


def _far(one: tuple[slice, ...], other: tuple[slice, ...]) -> bool:
    gaps: list[int] = [max(a.start - b.stop, b.start - a.stop, 0) for a, b in zip(one, other, strict=True)]
    lengths: list[int] = [part.stop - part.start for part in (*one, *other)]
    return max(gaps) > max(lengths)


def _compare_axes(dataset: Dataset, facts: Mapping[tuple[Path, Path | None], _Facts]) -> Iterator[Finding]:
    kinds = Counter(result.axes.replace("C", "") for result in facts.values() if result.axes)
    usual = max(("YX", "ZYX"), key=lambda axes: kinds[axes])
    for (path, _), result in facts.items():
        spatial = result.axes.replace("C", "")
        if result.axes and spatial != usual:
            problem = f"expected the axes {usual} like the other images, got {result.axes}"
            yield Finding("error", _name(path, dataset), problem, "Split it into single images.", "wrong-axes")


def _compare_channels(
    dataset: Dataset, facts: Mapping[tuple[Path, Path | None], _Facts], channels: int | None, grey_as_rgb: bool
) -> Iterator[Finding]:
    counts = Counter(result.channels for result in facts.values() if result.channels)
    if not counts:
        return
    accepted = {channels if channels is not None else counts.most_common(1)[0][0]}
    if grey_as_rgb and (accepted == {3} or (channels is None and accepted == {1})):
        accepted = {1, 3}
    wanted = " or ".join(str(count) for count in sorted(accepted))
    for (path, _), result in facts.items():
        if result.channels and result.channels not in accepted:
            problem = f"expected {wanted} channels, got {result.channels}"
            remedy = "Keep the channels that the model is for, or train on those images alone."
            yield Finding("error", _name(path, dataset), problem, remedy, "wrong-channels")


def _find_duplicates(dataset: Dataset, facts: Mapping[tuple[Path, Path | None], _Facts]) -> Iterator[Finding]:
    first: dict[str, Item] = {}
    reported: set[tuple[Path, str]] = set()
    for item in dataset.items:
        digest = facts[item.image, item.truth].digest
        if not digest:
            continue
        other = first.setdefault(digest, item)
        if other.split != item.split and (item.image, item.split) not in reported:
            reported.add((item.image, item.split))
            problem = f"it is in split {item.split!r} and, as {_name(other.image, dataset)}, in {other.split!r}"
            remedy = "Keep it in one split only, or the score will be too good."
            yield Finding("error", _name(item.image, dataset), problem, remedy, "duplicate-across-splits")


def _check_splits(dataset: Dataset, required: Sequence[str]) -> Iterator[Finding]:
    place = "."
    if dataset.derived_split:
        problem = "no split is given, so a fifth of the images, chosen by content, became 'val'"
        remedy = "Add a split column if images belong together (one slide, one mosaic, one well)."
        yield Finding("warning", place, problem, remedy, "no-split-column")
    for split in required:
        if split not in dataset.splits:
            problem = f"no image is in split {split!r}; there are {', '.join(map(repr, dataset.splits))}"
            yield Finding("error", place, problem, f"Put some images into {split!r}.", "split-missing")
    if dataset.label_column is None:
        return
    classes = {
        split: {item.row.get(dataset.label_column, "") for item in dataset.items if item.split == split}
        for split in required
        if split in dataset.splits
    }
    for name in sorted(set().union(*classes.values())):
        for split, present in classes.items():
            if name not in present:
                problem = f"class {name!r} has no example in split {split!r}"
                yield Finding("error", place, problem, "Move some there, or drop the class.", "class-missing")


def _open(path: Path, name: str) -> Image | Finding:
    try:
        return read_file(path, name)
    except MissingFileError:
        return Finding("error", name, "there is no such file", "Restore it or remove its row.", "missing-file")
    except UnreadableImageError as error:
        return _damaged(name, error)
    except InputError as error:
        return Finding("error", name, error.message, error.hint or "", "wrong-axes")


def read_file(path: Path, name: str) -> Image:
    """Read one file of a data set; small ones by their bytes, which is several times faster than lazily."""
    if path.suffix.lower() in _DIRECT_SUFFIXES and path.is_file() and path.stat().st_size <= _DIRECT_BYTES:
        return read_image(path.read_bytes(), name=name)
    return read_image(path, name=name)


def _damaged(name: str, error: ImageError) -> Finding:
    code = "truncated" if error.field == "bytes" else "unreadable"
    return Finding("error", name, error.message, error.hint or "", code)


def _name(path: Path, dataset: Dataset) -> str:
    return path.relative_to(dataset.root).as_posix() if path.is_relative_to(dataset.root) else str(path)


def _size(image: Image) -> str:
    return " × ".join(str(length) for length in image.spatial_shape)
