"""The training split decoded into parts of bounded size, on storage that all nodes share.

A folder contains ``index.json`` and, for each shard, ``NAME.bin`` with pixels, truths and places of its examples, and
``NAME.json`` with their positions. Images are assigned to shards in random order, so every shard is similar to the
whole. All workers decode together: a free worker takes the next images that no other has taken; a file appears when it
is complete.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import ModelInput, TaskChoice
from cytoray_analysis.examples import EXAMPLES, Example, Examples, Places
from cytoray_analysis.files import whole_file, write_whole
from cytoray_analysis.images import combine_intensities, intensity_map, measure_intensities, measure_range
from cytoray_analysis.images.intensity import ImageIntensities, IntensityStatistics
from cytoray_analysis.tasks import get_task
from cytoray_services.datasets import Dataset, Item
from cytoray_services.locks import locked, locked_if_free
from cytoray_services.records import reading, reading_cache
from cytoray_training.data.cache import (
    CachedPixels,
    Entry,
    append_array,
    decoded,
    nothing_to_learn_from,
    view,
    write_example,
)

FORMAT = 2
_INDEX = "index.json"
_SAMPLE = 4  # images for the estimate of the total size
_FILLED = 0.9  # of a shard, if all images were of the same size
_PIECE = 2**23
_CLASSLESS = -1
_PAUSE = 0.5  # seconds between checks of the other workers
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ShardSource:
    """A training split and the model input: the source of shards.

    Attributes
    ----------
    folder
        The folder of the shards.
    scratch
        A folder of this node for shards that are being written.
    """

    folder: Path
    scratch: Path
    dataset: Dataset
    model_input: ModelInput
    task: TaskChoice

    @property
    def images(self) -> list[tuple[Item, ...]]:
        """The training images."""
        return self.dataset.split("train").images

    def examples(self, items: tuple[Item, ...]) -> Iterator[Example]:
        """Yield the examples of an image."""
        return decoded(self.dataset, items, self.model_input, self.task)


@dataclass(frozen=True)
class Shard:
    """A part of the training split: its file name without suffix, its bytes, and its number of examples.

    `weights` is how often its places are sampled, by class, before balancing; -1 without classes.
    """

    name: str
    bytes: int
    examples: int
    weights: Mapping[int, float]


@dataclass(frozen=True)
class ShardIndex:
    """All shards of a training split.

    Attributes
    ----------
    statistics
        Intensities of the whole split.
    class_counts
        Number of places of each class; empty without classes.
    richest
        Shard and example in it that are sampled often.
    """

    folder: Path
    model_input: ModelInput
    statistics: IntensityStatistics
    shards: tuple[Shard, ...]
    class_counts: Mapping[int, int]
    richest: tuple[int, int]

    @property
    def examples(self) -> int:
        """Number of examples."""
        return sum(shard.examples for shard in self.shards)

    def weights(self, balance: float) -> tuple[float, ...]:
        """Return the sampling weight of each shard's examples, together, for a degree of class balancing."""
        rarity = {number: count**-balance for number, count in self.class_counts.items()}
        return tuple(
            sum(weight * rarity.get(number, 1.0) for number, weight in shard.weights.items()) for shard in self.shards
        )

    def path(self, number: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"{self.shards[number].name}.bin"

    def open(self, number: int, data: NDArray[np.uint8]) -> OpenShard:
        """Read the index of a shard, wherever its bytes were copied to."""
        path = self.folder / f"{self.shards[number].name}.json"
        with reading(path, "the index of a shard", hint=f"remove {self.folder}; it is created again"):
            document = json.loads(path.read_text(encoding="utf-8"))
            entries = tuple(self._entry(record) for record in document["entries"])
            return OpenShard(data, entries, tuple(tuple(record["places"]) for record in document["entries"]))

    def _entry(self, record: Mapping[str, Any]) -> Entry:
        entry = Entry(**record["entry"])
        channels = entry.shape[0]
        offset, scale = np.zeros(channels), np.ones(channels)
        if record["range"] is not None:
            sample = np.empty((channels, 0), entry.dtype)
            begin, width = (np.array(values) for values in record["range"])
            measured = (begin, width)
            offset, scale = intensity_map(sample, self.model_input.scaling, self.statistics, measured=measured)
        lists = {name: tuple(getattr(entry, name)) for name in ("shape", "truth_shape")}
        return Entry(**asdict(entry) | lists | {"offset": tuple(offset.tolist()), "scale": tuple(scale.tolist())})


@dataclass(frozen=True, eq=False)
class OpenShard:
    """A shard that can be read.

    Attributes
    ----------
    offered
        Number of places of each example, and the positions of their weights and classes; -1 without classes.
    """

    data: NDArray[np.uint8]
    entries: tuple[Entry, ...]
    offered: tuple[tuple[int, int, int], ...]

    def pixels(self, index: int) -> CachedPixels:
        """Return the pixels of an example."""
        entry = self.entries[index]
        return CachedPixels(view(self.data, entry.pixels_at, entry.dtype, entry.shape), entry)

    def truth(self, index: int) -> NDArray[Any]:
        """Return the truth of an example."""
        entry = self.entries[index]
        return view(self.data, entry.truth_at, entry.truth_dtype, entry.truth_shape)

    def places(self, index: int) -> Places:
        """Say what may be drawn from an example."""
        count, weights, classes = self.offered[index]
        return Places(
            view(self.data, weights, "<f8", (count,)),
            None if classes < 0 else view(self.data, classes, "<i8", (count,)),
        )


def estimate_size(source: ShardSource) -> int:
    """Return the approximate bytes of the decoded training images; a sample is read, once for all workers.

    Raises
    ------
    DatasetError
        There is no training image.
    """
    path = source.folder / "size.json"
    source.folder.mkdir(parents=True, exist_ok=True)
    with locked(source.folder / "size.lock"):
        if not path.is_file():
            images = source.images
            chosen = images[:: max(1, len(images) // _SAMPLE)][:_SAMPLE]
            sizes = [example.pixels.nbytes + example.truth.nbytes for one in chosen for example in source.examples(one)]
            if not sizes:
                raise nothing_to_learn_from(source.dataset)
            write_whole(path, json.dumps(round(sum(sizes) * len(images) / len(chosen))))
    with reading_cache(path, "the size of a data set in bytes"):
        return int(json.loads(path.read_text(encoding="utf-8")))


def make_shards(
    source: ShardSource, shard_bytes: int, *, worker: int = 0, workers: int = 1, progress: Progress | None = None
) -> ShardIndex:
    """Decode the training split together with all other callers, and return when it is complete.

    Parameters
    ----------
    shard_bytes
        Size of a shard; a larger example has its own shard.
    worker, workers
        Determines where this worker starts, so that workers rarely compete.
    progress
        Called with (images done by all workers, images in total).

    Raises
    ------
    DatasetError
        There is no training image, or one has no truth.
    ImageError
        An image cannot be read as the model needs it.
    """
    images = source.images
    # Random order; otherwise a shard could contain a single plate or class.
    order = np.random.default_rng(len(images)).permutation(len(images))
    each = max(1, int(_FILLED * shard_bytes * len(images) // max(1, estimate_size(source))))
    units = {f"{start // each:06d}": order[start : start + each].tolist() for start in range(0, len(images), each)}
    names = list(units)
    begin = worker * len(names) // max(1, workers)
    (source.folder / "locks").mkdir(exist_ok=True)
    while waiting := [name for name in names[begin:] + names[:begin] if not _is_done(source, name)]:
        decoded_some = False
        for name in waiting:
            with locked_if_free(source.folder / "locks" / name) as mine:
                if mine and not _is_done(source, name):
                    _decode_unit(source, name, {index: images[index] for index in units[name]}, shard_bytes)
                    decoded_some = True
            if progress is not None:
                progress(sum(len(units[one]) for one in names if _is_done(source, one)), len(images))
        if not decoded_some:
            time.sleep(_PAUSE)
    with locked(source.folder / "index.lock"):
        if not (source.folder / _INDEX).is_file():
            _write_index(source, names)
    return _read_index(source)


def _is_done(source: ShardSource, unit: str) -> bool:
    return (source.folder / f"unit-{unit}.json").is_file()


def _decode_unit(source: ShardSource, unit: str, images: Mapping[int, tuple[Item, ...]], shard_bytes: int) -> None:
    """Write the shards of some images: one, or more if they are larger than expected."""
    for abandoned in source.folder.glob(f".{unit}-*"):  # left by a killed process, because this process holds the lock
        abandoned.unlink()
    kind = EXAMPLES[get_task(source.task.name, source.task.arguments).output.per]
    names: list[str] = []
    draft: _Draft | None = None
    for index, items in images.items():
        for number, example in enumerate(source.examples(items)):
            if draft is not None and draft.bytes + example.pixels.nbytes + example.truth.nbytes > shard_bytes:
                draft.finish()
                draft = None
            if draft is None:
                names.append(f"{unit}-{len(names):03d}")
                draft = _Draft(source, names[-1], kind)
            draft.add(example, source.dataset.name_of(items[0].image), (index, number))
    if draft is not None:
        draft.finish()
    write_whole(source.folder / f"unit-{unit}.json", json.dumps(names))


class _Draft:
    """A shard that is written on this node until it is complete."""

    def __init__(self, source: ShardSource, name: str, kind: Examples) -> None:
        self.source, self.name, self.kind = source, name, kind
        self.records: list[dict[str, Any]] = []
        self.classes: Counter[int] = Counter()
        self.weights: defaultdict[int, float] = defaultdict(float)
        self.file = nameless_file(source.scratch)

    @property
    def bytes(self) -> int:
        return self.file.tell()

    def add(self, example: Example, file: str, order: tuple[int, int]) -> None:
        entry = write_example(example, file, self.file, self.file)
        places = self.kind.places(example.truth)
        weights = append_array(self.file, places.weights.astype("<f8"))
        classes = -1 if places.classes is None else append_array(self.file, places.classes.astype("<i8"))
        if places.classes is not None:
            self.classes.update(places.classes.tolist())
        numbers = np.full(len(places.weights), _CLASSLESS) if places.classes is None else places.classes
        for number in set(numbers.tolist()):
            self.weights[number] += float(places.weights[numbers == number].sum())
        scaling = self.source.model_input.scaling
        measured = None if example.scaled else measure_intensities(example.pixels, scaling).model_dump()
        extent = None if example.scaled else [values.tolist() for values in measure_range(example.pixels, scaling)]
        self.records.append(
            {
                "entry": asdict(entry),
                "places": [len(places.weights), weights, classes],
                "weight": float(places.weights.sum()),
                "order": order,
                "intensities": measured,
                "range": extent,
            }
        )

    def finish(self) -> None:
        size = self.bytes
        self.file.seek(0)
        with whole_file(self.source.folder / f"{self.name}.bin") as whole:
            shutil.copyfileobj(self.file, whole, _PIECE)
        self.file.close()
        document = {"bytes": size, "classes": self.classes, "weights": self.weights, "entries": self.records}
        write_whole(self.source.folder / f"{self.name}.json", json.dumps(document))


def nameless_file(folder: Path) -> BinaryIO:
    """Return a new file that disappears when it is no longer open or mapped, also if its process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))


def _write_index(source: ShardSource, units: list[str]) -> None:
    """Merge the indices of all shards, in the order of the data set."""
    shards: list[Shard] = []
    classes: Counter[str] = Counter()
    intensities: list[tuple[list[int], dict[str, Any] | None, int]] = []
    richest = (-1.0, 0, 0)
    for unit in units:
        for name in json.loads((source.folder / f"unit-{unit}.json").read_text(encoding="utf-8")):
            document = json.loads((source.folder / f"{name}.json").read_text(encoding="utf-8"))
            records = document["entries"]
            for at, record in enumerate(records):
                intensities.append((record["order"], record["intensities"], record["entry"]["shape"][0]))
                if record["weight"] > richest[0]:
                    richest = (record["weight"], len(shards), at)
            classes.update(document["classes"])
            shards.append(Shard(name, document["bytes"], len(records), document["weights"]))
    if not shards:
        raise nothing_to_learn_from(source.dataset)
    intensities.sort(key=lambda one: one[0])
    measured = [ImageIntensities.model_validate(one) for _, one, _ in intensities if one is not None]
    statistics = combine_intensities(measured) if measured else IntensityStatistics.identity(intensities[0][2])
    document = {
        "format": FORMAT,
        "of": source.dataset.place,
        "statistics": statistics.model_dump(mode="json"),
        "shards": [asdict(shard) for shard in shards],
        "classes": classes,
        "richest": richest[1:],
    }
    write_whole(source.folder / _INDEX, json.dumps(document))


def _read_index(source: ShardSource) -> ShardIndex:
    with reading_cache(source.folder / _INDEX, "an index of shards"):
        document = json.loads((source.folder / _INDEX).read_text(encoding="utf-8"))
        return ShardIndex(
            source.folder,
            source.model_input,
            IntensityStatistics.model_validate(document["statistics"]),
            tuple(Shard(**shard | {"weights": _by_number(shard["weights"])}) for shard in document["shards"]),
            _by_number(document["classes"]),
            (document["richest"][0], document["richest"][1]),
        )


def _by_number(content: Mapping[str, Any]) -> dict[int, Any]:
    return {int(name): value for name, value in content.items()}
