"""The training split decoded into parts of bounded size, which lie where all nodes reach them.

A folder holds ``index.json`` and, for each shard, ``NAME.bin`` with pixels, truths and what may be drawn of its
examples, and ``NAME.json``, which says where. Images are dealt to shards in an order drawn by chance, so that every
shard is like the whole. All workers decode together: whoever is free takes the next images that nobody has taken; a
file appears when it is whole.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from cytoray_services.records import reading, reading_cache
from cytoray_training.cache import (
    CachedPixels,
    Entry,
    append_array,
    decoded,
    locked,
    nothing_to_learn_from,
    view,
    write_example,
)

FORMAT = 2
_INDEX = "index.json"
_SAMPLE = 4  # images that tell how large all are
_FILLED = 0.9  # of a shard, if all images were alike
_PIECE = 2**23
_CLASSLESS = -1
_PAUSE = 0.5  # seconds between looks at what others do
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Split:
    """A training split and how a model sees it: what is cut into shards.

    Attributes
    ----------
    folder
        Where the shards lie.
    scratch
        A folder of this node, where a shard grows.
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
    """A part of the training split: its file without ending, its bytes, and how many examples it holds.

    `weights` says how often its places are drawn, by class, before classes are balanced; -1 where there are none.
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
        How many places of each class there are; empty without classes.
    richest
        Shard and example in it that are drawn often.
    """

    folder: Path
    model_input: ModelInput
    statistics: IntensityStatistics
    shards: tuple[Shard, ...]
    class_counts: Mapping[int, int]
    richest: tuple[int, int]

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return sum(shard.examples for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Of all shards together."""
        return sum(shard.bytes for shard in self.shards)

    def weights(self, balance: float) -> tuple[float, ...]:
        """Return how often the examples of each shard are drawn, together, where classes are balanced so much."""
        rarity = {number: count**-balance for number, count in self.class_counts.items()}
        return tuple(
            sum(weight * rarity.get(number, 1.0) for number, weight in shard.weights.items()) for shard in self.shards
        )

    def path(self, number: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"{self.shards[number].name}.bin"

    def open(self, number: int, data: NDArray[np.uint8]) -> OpenShard:
        """Read what a shard's bytes mean, wherever they were copied to."""
        path = self.folder / f"{self.shards[number].name}.json"
        with reading(path, "the index of a shard", hint=f"remove {self.folder}; it is made again"):
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
        Of each example how many places it offers, and where their weights and classes lie; -1 without classes.
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


def estimate_size(split: Split) -> int:
    """Return about how many bytes the decoded training images have; some are looked at, once for all workers.

    Raises
    ------
    DatasetError
        There is no training image.
    """
    path = split.folder / "size.json"
    split.folder.mkdir(parents=True, exist_ok=True)
    with locked(split.folder / "size.lock"):
        if not path.is_file():
            images = split.images
            chosen = images[:: max(1, len(images) // _SAMPLE)][:_SAMPLE]
            sizes = [example.pixels.nbytes + example.truth.nbytes for one in chosen for example in split.examples(one)]
            if not sizes:
                raise nothing_to_learn_from(split.dataset)
            write_whole(path, json.dumps(round(sum(sizes) * len(images) / len(chosen))))
    with reading_cache(path, "the size of a data set in bytes"):
        return int(json.loads(path.read_text(encoding="utf-8")))


def make_shards(
    split: Split, shard_bytes: int, *, worker: int = 0, workers: int = 1, progress: Progress | None = None
) -> ShardIndex:
    """Decode the training split together with all who call this, and return when it is done.

    Parameters
    ----------
    shard_bytes
        Size of a shard; an example that is larger has its own.
    worker, workers
        Where this one begins, so that workers seldom want the same.
    progress
        Called with (images done by anybody, images in all).

    Raises
    ------
    DatasetError
        There is no training image, or one has no truth.
    ImageError
        An image cannot be read as the model sees it.
    """
    images = split.images
    # By chance, or a shard would hold one plate, or one class.
    order = np.random.default_rng(len(images)).permutation(len(images))
    each = max(1, int(_FILLED * shard_bytes * len(images) // max(1, estimate_size(split))))
    units = {f"{start // each:06d}": order[start : start + each].tolist() for start in range(0, len(images), each)}
    names = list(units)
    begin = worker * len(names) // max(1, workers)
    (split.folder / "locks").mkdir(exist_ok=True)
    while waiting := [name for name in names[begin:] + names[:begin] if not _is_done(split, name)]:
        decoded_some = False
        for name in waiting:
            with _claimed(split.folder / "locks" / name) as mine:
                if mine and not _is_done(split, name):
                    _decode_unit(split, name, {index: images[index] for index in units[name]}, shard_bytes)
                    decoded_some = True
            if progress is not None:
                progress(sum(len(units[one]) for one in names if _is_done(split, one)), len(images))
        if not decoded_some:
            time.sleep(_PAUSE)
    with locked(split.folder / "index.lock"):
        if not (split.folder / _INDEX).is_file():
            _write_index(split, names)
    return _read_index(split)


def _is_done(split: Split, unit: str) -> bool:
    return (split.folder / f"unit-{unit}.json").is_file()


@contextmanager
def _claimed(path: Path) -> Iterator[bool]:
    """Say whether nobody else has this lock; who dies lets go of it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _decode_unit(split: Split, unit: str, images: Mapping[int, tuple[Item, ...]], shard_bytes: int) -> None:
    """Write the shards of some images: one, or more where they are larger than expected."""
    for abandoned in split.folder.glob(f".{unit}-*"):  # by a process that was killed, for the lock is ours
        abandoned.unlink()
    kind = EXAMPLES[get_task(split.task.name, split.task.arguments).output.per]
    names: list[str] = []
    draft: _Draft | None = None
    for index, items in images.items():
        for number, example in enumerate(split.examples(items)):
            if draft is not None and draft.bytes + example.pixels.nbytes + example.truth.nbytes > shard_bytes:
                draft.finish()
                draft = None
            if draft is None:
                names.append(f"{unit}-{len(names):03d}")
                draft = _Draft(split, names[-1], kind)
            draft.add(example, split.dataset.name_of(items[0].image), (index, number))
    if draft is not None:
        draft.finish()
    write_whole(split.folder / f"unit-{unit}.json", json.dumps(names))


class _Draft:
    """A shard that grows on this node until it is whole."""

    def __init__(self, split: Split, name: str, kind: Examples) -> None:
        self.split, self.name, self.kind = split, name, kind
        self.records: list[dict[str, Any]] = []
        self.classes: Counter[int] = Counter()
        self.weights: defaultdict[int, float] = defaultdict(float)
        self.file = nameless_file(split.scratch)

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
        scaling = self.split.model_input.scaling
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
        with whole_file(self.split.folder / f"{self.name}.bin") as whole:
            shutil.copyfileobj(self.file, whole, _PIECE)
        self.file.close()
        document = {"bytes": size, "classes": self.classes, "weights": self.weights, "entries": self.records}
        write_whole(self.split.folder / f"{self.name}.json", json.dumps(document))


def nameless_file(folder: Path) -> BinaryIO:
    """Return a new file that is gone once nobody has it open or mapped, also when its process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder))


def _write_index(split: Split, units: list[str]) -> None:
    """Put together what the shards say, in the order of the data set, whoever has decoded what."""
    shards: list[Shard] = []
    classes: Counter[str] = Counter()
    intensities: list[tuple[list[int], dict[str, Any] | None, int]] = []
    richest = (-1.0, 0, 0)
    for unit in units:
        for name in json.loads((split.folder / f"unit-{unit}.json").read_text(encoding="utf-8")):
            document = json.loads((split.folder / f"{name}.json").read_text(encoding="utf-8"))
            records = document["entries"]
            for at, record in enumerate(records):
                intensities.append((record["order"], record["intensities"], record["entry"]["shape"][0]))
                if record["weight"] > richest[0]:
                    richest = (record["weight"], len(shards), at)
            classes.update(document["classes"])
            shards.append(Shard(name, document["bytes"], len(records), document["weights"]))
    if not shards:
        raise nothing_to_learn_from(split.dataset)
    intensities.sort(key=lambda one: one[0])
    measured = [ImageIntensities.model_validate(one) for _, one, _ in intensities if one is not None]
    statistics = combine_intensities(measured) if measured else IntensityStatistics.identity(intensities[0][2])
    document = {
        "format": FORMAT,
        "of": split.dataset.place,
        "statistics": statistics.model_dump(mode="json"),
        "shards": [asdict(shard) for shard in shards],
        "classes": classes,
        "richest": richest[1:],
    }
    write_whole(split.folder / _INDEX, json.dumps(document))


def _read_index(split: Split) -> ShardIndex:
    with reading_cache(split.folder / _INDEX, "an index of shards"):
        document = json.loads((split.folder / _INDEX).read_text(encoding="utf-8"))
        return ShardIndex(
            split.folder,
            split.model_input,
            IntensityStatistics.model_validate(document["statistics"]),
            tuple(Shard(**shard | {"weights": _by_number(shard["weights"])}) for shard in document["shards"]),
            _by_number(document["classes"]),
            (document["richest"][0], document["richest"][1]),
        )


def _by_number(content: Mapping[str, Any]) -> dict[int, Any]:
    return {int(name): value for name, value in content.items()}
