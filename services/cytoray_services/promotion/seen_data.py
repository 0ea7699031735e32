"""The data that a model used: digests of all images for training and validation, stored in its run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cytoray_analysis.images import Image, read_image
from cytoray_analysis.tracking.ctc import read_movie
from cytoray_services.datasets import Dataset, DataSource, Item, hash_dataset, open_dataset, passing
from cytoray_services.kinds import data_kind
from cytoray_services.records import reading
from cytoray_services.registry import Run

SEEN = "data/seen.json"  # its path in a run


@dataclass(frozen=True)
class SeenData:
    """The data of one training run.

    Attributes
    ----------
    source
        Where the data set was opened.
    digest
        Content hash of the part that was used.
    folders
        Content hash of each whole folder, as ``cytoray data hash`` prints it.
    images
        Digests of the images, by split; see :func:`image_digests`.
    """

    source: DataSource
    digest: str
    folders: dict[str, str]
    images: dict[str, frozenset[str]]

    def to_json(self) -> str:
        """Return the text to store in the run."""
        images = {split: sorted(digests) for split, digests in self.images.items()}
        record = {"source": self.source.to_record(), "digest": self.digest, "folders": self.folders, "images": images}
        return json.dumps(record, indent=1)

    @classmethod
    def from_json(cls, text: str) -> SeenData:
        """Read the result of :meth:`to_json`."""
        record = json.loads(text)
        images = {split: frozenset(digests) for split, digests in record["images"].items()}
        return cls(DataSource.from_record(record["source"]), record["digest"], record["folders"], images)


def record_seen_data(run: Run, source: DataSource, dataset: Dataset, digest: str) -> SeenData:
    """Store the data of a training run.

    Parameters
    ----------
    source
        The source of `dataset`.
    dataset, digest
        The data set used, and its content hash.
    """
    columns = dict(source.columns) or None
    folders = {
        str(root): hash_dataset(open_dataset(root, columns=columns, truth=source.truth, drawing_test=False))
        for root in (*source.roots, *source.validation)
    }
    images = {name: frozenset(image_digests(dataset.split(name))) for name in dataset.splits}
    seen = SeenData(source, digest, folders, images)
    run.log_text(seen.to_json(), SEEN)
    return seen


def read_seen_data(run: Run) -> SeenData | None:
    """Return the data of a training run; None if nothing is recorded."""
    with reading(f"{SEEN} of the run {run.run_id}", "the data of a training run"):
        text = run.read_text(SEEN)
        return None if text is None else SeenData.from_json(text)


def image_digests(dataset: Dataset) -> dict[str, Path]:
    """Return a digest of the pixels of every image, and the file that has them.

    Pixels are hashed, not files, so that a copy in another format is the same image; as float32, which is exact for 8
    and 16 bits, so that the type does not matter; without axes of length one. Cells of an image differ by their boxes;
    each frame of a movie is an image.
    """
    found: dict[str, Path] = {}
    for path, digests in digests_of_images(dataset).items():
        for digest in digests:
            found.setdefault(digest, path)
    return found


def digests_of_images(dataset: Dataset) -> dict[Path, tuple[str, ...]]:
    """Return the digests of the pixels of each image file, as in :func:`image_digests`."""
    found: dict[Path, tuple[str, ...]] = {}
    for items in dataset.images:
        found[items[0].image] = (*found.get(items[0].image, ()), *_digests(dataset, items))
    return found


def _digests(dataset: Dataset, items: tuple[Item, ...]) -> Iterator[str]:
    with passing(dataset, items[:1]) as (_, (local,)):
        if data_kind(dataset.truth_kind).movies:
            movie = read_movie(local.image)
            yield from (_pixel_digest(movie, frame) for frame in range(movie.shape[0]))
            return
        digest = _pixel_digest(read_image(local.image))
    for item in items:
        yield digest if item.box is None else hashlib.sha256(f"{digest} {item.box}".encode()).hexdigest()


def _pixel_digest(image: Image, frame: int | None = None) -> str:
    whole = (slice(None),) * len(image.shape)
    pixels = image.read(whole if frame is None else (slice(frame, frame + 1), *whole[1:])).squeeze()
    values = np.ascontiguousarray(pixels, dtype="<f4")
    return hashlib.sha256(f"{values.shape}".encode() + values.tobytes()).hexdigest()
