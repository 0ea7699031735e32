"""A data set decoded once, in files that every worker of a node maps into memory.

``home/cache/<key>/`` holds, per split, all pixels one after the other in their own type (``train.images``), all labels
as int32 (``train.labels``), and one ``index.json``. The key covers the content of the data and how the model sees it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images import (
    IntensityScaling,
    fit_statistics,
    intensity_map,
    read_image,
    read_labels,
    resample_labels,
)
from cytoray_analysis.images.intensity import IntensityStatistics
from cytoray_analysis.model_input import prepare
from cytoray_services.datasets import Dataset, Item

FORMAT = 1
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Entry:
    """Where one image lies in the cache, and how it is scaled.

    Attributes
    ----------
    file
        Path of the image, below the root of its data set.
    shape, dtype
        Of the pixels, (C, Y, X).
    pixels_at, labels_at
        Byte offsets in the split's two files.
    objects
        Number of labelled objects.
    offset, scale
        Per channel: ``scaled = (pixels - offset) * scale``.
    """

    file: str
    shape: tuple[int, ...]
    dtype: str
    pixels_at: int
    labels_at: int
    objects: int
    offset: tuple[float, ...]
    scale: tuple[float, ...]


@dataclass(frozen=True)
class Split:
    """The images of one split, mapped into memory."""

    entries: tuple[Entry, ...]
    images: Path
    labels: Path

    def pixels_of(self, index: int) -> NDArray[Any]:
        """Return a read-only view of the raw pixels of an image, (C, Y, X)."""
        entry = self.entries[index]
        return np.memmap(self.images, np.dtype(entry.dtype), "r", entry.pixels_at, entry.shape)

    def labels_of(self, index: int) -> NDArray[np.int32]:
        """Return a read-only view of the labels of an image, (Y, X) int32."""
        entry = self.entries[index]
        return np.memmap(self.labels, np.dtype(np.int32), "r", entry.labels_at, entry.shape[1:])

    def scaled(self, index: int, region: tuple[slice, ...] = ()) -> NDArray[np.float32]:
        """Return scaled pixels of a region given by spatial slices, (C, y, x) float32."""
        entry = self.entries[index]
        column = (-1,) + (1,) * (len(entry.shape) - 1)
        pixels = self.pixels_of(index)[(slice(None), *region)].astype(np.float32)
        pixels -= np.array(entry.offset, np.float32).reshape(column)
        pixels *= np.array(entry.scale, np.float32).reshape(column)
        return pixels


@dataclass(frozen=True)
class Cache:
    """A decoded data set.

    Attributes
    ----------
    statistics
        Intensities of the training split, for the bundle.
    """

    folder: Path
    statistics: IntensityStatistics
    splits: dict[str, Split]


def cache_key(dataset_hash: str, model_input: ModelInput) -> str:
    """Return the name of a cache folder: the content of the data and how the model sees it."""
    seen = model_input.model_dump_json(exclude={"statistics"})
    return hashlib.sha256(f"{FORMAT} {dataset_hash} {seen}".encode()).hexdigest()[:32]


def open_cache(
    home: Path, dataset: Dataset, dataset_hash: str, model_input: ModelInput, *, progress: Progress | None = None
) -> Cache:
    """Map the decoded data set, decoding it first where this node has not done so yet.

    Of several processes that ask at once, one decodes and the others wait.

    Parameters
    ----------
    home
        The state folder; the cache lies below ``home/cache``.
    dataset_hash
        What :func:`cytoray_services.datasets.hash_dataset` returned for `dataset`.
    model_input
        Channels, pixel size and scaling; its statistics are not looked at.
    progress
        Called with (images done, images in all) while decoding.

    Raises
    ------
    DatasetError
        There is no training image.
    ImageError
        An image cannot be read as the model sees it.
    """
    folder = home / "cache" / cache_key(dataset_hash, model_input)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.with_suffix(".lock")):
        if not folder.exists():
            draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                _decode(draft, dataset, model_input, progress)
                draft.replace(folder)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
    return _open(folder)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file closes, also by a process that dies
        yield


def _open(folder: Path) -> Cache:
    document = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    splits = {
        name: Split(
            tuple(
                Entry(**entry | {key: tuple(entry[key]) for key in ("shape", "offset", "scale")}) for entry in entries
            ),
            folder / f"{name}.images",
            folder / f"{name}.labels",
        )
        for name, entries in document["splits"].items()
    }
    return Cache(folder, IntensityStatistics.model_validate(document["statistics"]), splits)


def _decode(folder: Path, dataset: Dataset, model_input: ModelInput, progress: Progress | None) -> None:
    drafts: dict[str, list[Entry]] = {}
    done = 0
    for name in dataset.splits:
        items = [item for item in dataset.split(name).items if item.truth is not None]
        drafts[name] = []
        with (folder / f"{name}.images").open("wb") as images, (folder / f"{name}.labels").open("wb") as labels:
            for item in items:
                pixels, truth = _read(item, model_input)
                nothing = (0.0,) * pixels.shape[0]
                drafts[name].append(
                    Entry(
                        file=item.image.relative_to(dataset.root).as_posix(),
                        shape=pixels.shape,
                        dtype=pixels.dtype.str,
                        pixels_at=images.tell(),
                        labels_at=labels.tell(),
                        objects=len(np.unique(truth[truth > 0])),
                        offset=nothing,
                        scale=nothing,
                    )
                )
                images.write(np.ascontiguousarray(pixels).tobytes())
                labels.write(np.ascontiguousarray(truth, dtype=np.int32).tobytes())
                done += 1
                if progress is not None:
                    progress(done, len(dataset.items))
    if not drafts.get("train"):
        raise DatasetError(
            f"expected labelled images in the split 'train' of {dataset.root}, found none",
            field="data.root",
            hint="see cytoray data check",
        )
    raw = {
        name: Split(tuple(entries), folder / f"{name}.images", folder / f"{name}.labels")
        for name, entries in drafts.items()
    }
    train = raw["train"]
    statistics = fit_statistics((train.pixels_of(i) for i in range(len(train.entries))), model_input.scaling)
    scaled = {name: [_with_scaling(split, i, model_input, statistics) for i in range(len(split.entries))]
              for name, split in raw.items()}  # fmt: skip
    document = {"format": FORMAT, "statistics": statistics.model_dump(mode="json"), "splits": scaled}
    (folder / "index.json").write_text(json.dumps(document), encoding="utf-8")


def _with_scaling(split: Split, index: int, model_input: ModelInput, statistics: IntensityStatistics) -> dict[str, Any]:
    offset, scale = intensity_map(split.pixels_of(index), model_input.scaling, statistics)
    return asdict(split.entries[index]) | {"offset": offset.tolist(), "scale": scale.tolist()}


def _read(item: Item, model_input: ModelInput) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Read an image as the model sees it (C, Y, X), unscaled, and its labels in the same pixels."""
    assert item.truth is not None  # noqa: S101 - items without truth were left out
    # Scaling comes when the statistics of all training images are known.
    unscaled = model_input.model_copy(update={"scaling": IntensityScaling(), "statistics": None})
    source = prepare(read_image(item.image), unscaled)
    pixels = np.repeat(source.image.read(), source.copies, axis=0)
    labels = read_labels(item.truth)
    if labels.shape != pixels.shape[1:]:
        labels = resample_labels(labels, pixels.shape[1:])
    return pixels, labels.astype(np.int32)
