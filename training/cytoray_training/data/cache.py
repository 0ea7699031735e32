"""The training split decoded once, in files that every worker of a node maps into memory.

``<key>/`` in the folder of caches contains all pixels one after the other in their own type (``pixels``), all truths
(``truth``), and ``index.json``. The key covers the inputs of decoding: the content of the data, the model input, and
the task's definition of truth. A process that uses a folder holds the shared lock ``<key>.lock``.

Data that are too large for one node are cut into :mod:`~cytoray_training.data.shards` instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import ModelInput, TaskChoice
from cytoray_analysis.errors import DatasetError
from cytoray_analysis.examples import EXAMPLES, Example, Examples, Places
from cytoray_analysis.files import remove_drafts, whole_path
from cytoray_analysis.images import fit_statistics, intensity_map, scale_intensities
from cytoray_analysis.images.intensity import IntensityStatistics
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_analysis.tasks import get_task
from cytoray_services.datasets import Dataset, Item, arguments_read, passing, read_parts, remove_abandoned
from cytoray_services.in_use import use
from cytoray_services.locks import locked
from cytoray_services.records import reading

FORMAT = 4
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Entry:
    """Position of one example in the cache, and its scaling.

    Attributes
    ----------
    file
        Path of the image, relative to the root of its data set.
    shape, dtype, pixels_at
        Of the pixels (C, spatial…), and their byte offset.
    truth_shape, truth_dtype, truth_at
        Of the truth.
    offset, scale
        Per channel: ``scaled = (pixels - offset) * scale``.
    """

    file: str
    shape: tuple[int, ...]
    dtype: str
    pixels_at: int
    truth_shape: tuple[int, ...]
    truth_dtype: str
    truth_at: int
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


@dataclass(frozen=True)
class CachedPixels:
    """The pixels of an example, scaled when they are read."""

    pixels: NDArray[Any]
    entry: Entry

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape."""
        return self.entry.shape[1:]

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return scaled pixels of a region, (C, spatial…) float32."""
        return scale_intensities(self.pixels[(slice(None), *region)], self.entry.offset, self.entry.scale)


class Window(Protocol):
    """Decoded examples on this node for sampling: all examples, or some of them at a time."""

    @property
    def entries(self) -> Sequence[Entry]:
        """Their positions in the files."""
        ...

    @property
    def class_counts(self) -> Mapping[int, int] | None:
        """Number of places of each class in the whole training split; None if all of it is here."""
        ...

    def pixels(self, index: int) -> CachedPixels:
        """Return the pixels of an example."""
        ...

    def truth(self, index: int) -> NDArray[Any]:
        """Return the truth of an example."""
        ...

    def places(self, index: int, examples: Examples) -> Places:
        """Return the places of an example that can be sampled."""
        ...


class Source(Protocol):
    """The source of a worker's crops."""

    @property
    def statistics(self) -> IntensityStatistics:
        """Intensities of the whole training split, for the bundle."""
        ...

    def window(self, step: int) -> Window:
        """Return the window of this worker at a step; wait until it is available."""
        ...

    def richest(self, examples: Examples) -> tuple[CachedPixels, NDArray[Any]]:
        """Return pixels and truth of an example that is sampled often."""
        ...


@dataclass(frozen=True)
class Cache:
    """A decoded training split, mapped into memory.

    Attributes
    ----------
    statistics
        Intensities of the training split, for the bundle.
    in_use
        Protects the folder from removal while it is open.
    """

    folder: Path
    statistics: IntensityStatistics
    entries: tuple[Entry, ...]
    class_counts: Mapping[int, int] | None = None
    in_use: BinaryIO | None = field(default=None, repr=False, compare=False)

    @cached_property
    def _maps(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        # One mapping per file: thousands of examples would exceed the limit of mappings per process.
        pixels, truth = (np.memmap(self.folder / name, np.uint8, "r") for name in ("pixels", "truth"))
        return pixels, truth

    def pixels(self, index: int) -> CachedPixels:
        """Return the pixels of an example."""
        entry = self.entries[index]
        return CachedPixels(view(self._maps[0], entry.pixels_at, entry.dtype, entry.shape), entry)

    def truth(self, index: int) -> NDArray[Any]:
        """Return a read-only view of the truth of an example."""
        entry = self.entries[index]
        return view(self._maps[1], entry.truth_at, entry.truth_dtype, entry.truth_shape)

    def places(self, index: int, examples: Examples) -> Places:
        """Return the places of an example that can be sampled."""
        return examples.places(self.truth(index))

    def window(self, step: int) -> Window:
        """Return the window of a step: everything."""
        return self

    def richest(self, examples: Examples) -> tuple[CachedPixels, NDArray[Any]]:
        """Return pixels and truth of the example that is sampled most often."""
        offered = [self.places(index, examples).weights.sum() for index in range(len(self.entries))]
        index = int(np.argmax(offered))
        return self.pixels(index), self.truth(index)


def view(data: NDArray[np.uint8], start: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array stored in a byte buffer."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    found: NDArray[Any] = data[start : start + size].view(dtype).reshape(shape)
    return found


def cache_key(dataset_hash: str, model_input: ModelInput, task: TaskChoice, selection: Selection = EVERYTHING) -> str:
    """Return the name of a cache folder: a hash of the data's content, the selection, and the settings of decoding.

    Settings such as loss weights do not change the key, so training runs that differ only in them share a folder.
    """
    kind = get_task(task.name, task.arguments)
    read = [kind.output.per, kind.output.truth, arguments_read(kind.output.truth, task.arguments)]
    seen = model_input.model_dump_json(exclude={"statistics"}) + json.dumps(read)
    if selection.given():
        seen += json.dumps(selection.given(), sort_keys=True)
    return hashlib.sha256(f"{FORMAT} {dataset_hash} {seen}".encode()).hexdigest()[:32]


def open_cache(
    caches: Path,
    dataset: Dataset,
    dataset_hash: str,
    model_input: ModelInput,
    task: TaskChoice,
    *,
    progress: Progress | None = None,
) -> Cache:
    """Map the decoded training split, decoding it first if this node has not done so yet.

    If several processes call this, one decodes and the others wait.

    Parameters
    ----------
    caches
        The folder of all caches.
    dataset_hash
        What :func:`cytoray_services.datasets.hash_dataset` returned for `dataset`.
    model_input
        Channels, pixel size and scaling; its statistics are ignored.
    task
        With all its arguments.
    progress
        Called with (images done, images in all) while decoding.

    Raises
    ------
    DatasetError
        There is no training image, or one has no truth.
    ImageError
        An image cannot be read as the model needs it.
    """
    folder = caches / cache_key(dataset_hash, model_input, task, dataset.selection)
    remove_abandoned(caches)
    in_use = use(folder)
    try:
        if not folder.exists():
            # A lock of its own: the other one is shared, and held until the end of each training run.
            with locked(folder.with_name(f"{folder.name}.decoding.lock")):
                if not folder.exists():
                    _make(folder, dataset, model_input, task, progress)
        return replace(_open(folder), in_use=in_use)
    except BaseException:
        in_use.close()
        raise


def _make(folder: Path, dataset: Dataset, model_input: ModelInput, task: TaskChoice, progress: Progress | None) -> None:
    """Decode into a folder that appears when it is complete; the caller holds the lock."""
    remove_drafts(folder)
    with whole_path(folder) as draft:
        draft.mkdir()
        _decode(draft, dataset, model_input, task, progress)


def _open(folder: Path) -> Cache:
    with reading(folder / "index.json", "an index of decoded images", hint=f"remove {folder}; it is created again"):
        document = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        lists = ("shape", "truth_shape", "offset", "scale")
        entries = tuple(Entry(**entry | {key: tuple(entry[key]) for key in lists}) for entry in document["entries"])
        return Cache(folder, IntensityStatistics.model_validate(document["statistics"]), entries)


def _decode(
    folder: Path, dataset: Dataset, model_input: ModelInput, task: TaskChoice, progress: Progress | None
) -> None:
    train = dataset.split("train")
    entries: list[Entry] = []
    identity: list[bool] = []
    images = train.images
    with (folder / "pixels").open("wb") as pixels, (folder / "truth").open("wb") as truth:
        for done, items in enumerate(images, start=1):
            name = dataset.name_of(items[0].image)
            for example in decoded(train, items, model_input, task):
                entries.append(write_example(example, name, pixels, truth))
                identity.append(example.scaled)
            if progress is not None:
                progress(done, len(images))
    if not entries:
        raise nothing_to_learn_from(dataset)
    raw = Cache(folder, IntensityStatistics.identity(entries[0].shape[0]), tuple(entries))
    statistics = raw.statistics
    if not identity[0]:
        statistics = fit_statistics((raw.pixels(i).pixels for i in range(len(entries))), model_input.scaling)
    scaled = [_with_scaling(raw, index, model_input, statistics, identity[index]) for index in range(len(entries))]
    document = {"format": FORMAT, "of": dataset.place, "statistics": statistics.model_dump(mode="json")}
    document |= {"entries": scaled}
    (folder / "index.json").write_text(json.dumps(document), encoding="utf-8")


def decoded(dataset: Dataset, items: tuple[Item, ...], model_input: ModelInput, task: TaskChoice) -> Iterator[Example]:
    """Yield the examples of an image; copies of remote files stay on this node only during this time."""
    kind = EXAMPLES[get_task(task.name, task.arguments).output.per]
    with passing(dataset, items) as (here, local):
        for labelled in read_parts(here, local, task.arguments):
            yield from kind.cut(labelled.image, labelled.truth, labelled.objects, model_input)


def nothing_to_learn_from(dataset: Dataset) -> DatasetError:
    """Return the error for a training split without examples."""
    return DatasetError(
        f"expected labelled images in the split 'train' of {dataset.place}, found none",
        field="data.root",
        hint="see cytoray data check",
    )


def write_example(example: Example, name: str, pixels: BinaryIO, truth: BinaryIO) -> Entry:
    """Append an example to two files, or to one file that is passed twice."""
    return Entry(
        file=name,
        shape=example.pixels.shape,
        dtype=example.pixels.dtype.str,
        pixels_at=append_array(pixels, example.pixels),
        truth_shape=example.truth.shape,
        truth_dtype=example.truth.dtype.str,
        truth_at=append_array(truth, example.truth),
    )


def append_array(file: BinaryIO, array: NDArray[Any]) -> int:
    """Append an array to a file, aligned to its item size, and return its offset."""
    file.write(b"\0" * (-file.tell() % 8))
    begin = file.tell()
    file.write(np.ascontiguousarray(array).tobytes())
    return begin


def _with_scaling(
    raw: Cache, index: int, model_input: ModelInput, statistics: IntensityStatistics, identity: bool
) -> dict[str, Any]:
    entry = raw.entries[index]
    if identity:
        offset, scale = np.zeros(entry.shape[0]), np.ones(entry.shape[0])
    else:
        offset, scale = intensity_map(raw.pixels(index).pixels, model_input.scaling, statistics)
    return asdict(entry) | {"offset": offset.tolist(), "scale": scale.tolist()}
