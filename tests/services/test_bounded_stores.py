"""OME-Zarr by URI: no object of a store is read that is larger than is read of one file, no metadata beyond a bound."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from buckets import BUCKET, bucket_store, copy_to_bucket
from conformance.stores import store
from cytoray_analysis.errors import ImageTooLargeError, MissingFileError, UnreadableImageError
from cytoray_analysis.images import Limits
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.locate import locate
from cytoray_services.storage.location import StorageLocation
from web_servers import Quiet, serving

MOST = 2**16
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
NOTHING = ",".join(["{}"] * 3_000_000)  # 9 MB
At = Callable[[Path], StorageLocation]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run an S3 store."""
    with bucket_store() as address:
        yield address


@pytest.fixture(params=["file", "s3", "http"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[At]:
    """Give what returns the place of a folder: on files, in S3, or on the web."""
    if request.param == "file":
        yield lambda folder: locate(folder.as_uri(), Allowed(roots=(tmp_path,), largest_file=MOST))
    elif request.param == "s3":
        address, prefix = request.getfixturevalue("s3"), tmp_path.name
        allowed = Allowed(buckets=(BUCKET,), s3_endpoint=address, largest_file=MOST)
        yield lambda folder: locate(copy_to_bucket(folder, f"{prefix}/{folder.name}"), allowed)
    else:
        with contextmanager(serving)(partial(Quiet, directory=str(tmp_path))) as host:
            yield lambda folder: locate(f"http://{host}/{folder.name}", Allowed(hosts=(host,), largest_file=MOST))


def peak_of(read: Callable[[], object]) -> int:
    """Return how many bytes Python and NumPy held at most while something too large was asked for."""
    tracemalloc.start()
    try:
        with pytest.raises((ImageTooLargeError, UnreadableImageError)):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "name"), [(5, "zarr.json"), (5, "0/zarr.json"), (4, ".zattrs"), (4, "0/.zarray"), (4, ".zmetadata")]
)
def test_metadata_beyond_what_images_have_is_not_parsed(at: At, version: int, name: str, tmp_path: Path) -> None:
    path = store(PIXELS, "YX", version, levels=1)(tmp_path)
    text = (path / name).read_text() if (path / name).exists() else '{"metadata":{}}'
    (path / name).write_text(f'{{"nothing":[{NOTHING}],{text.lstrip()[1:]}')
    image = at(path)
    image = locate(image.uri, image.allowed.model_copy(update={"largest_file": 2**34}))
    assert peak_of(lambda: image.open_image(Limits())) < 2**26  # parsed it takes 200 MB
    with pytest.raises(ImageTooLargeError, match="4194304"):
        image.open_image(Limits())


@pytest.mark.slow
@pytest.mark.parametrize("version", [4, 5])
def test_no_chunk_is_read_that_is_larger_than_a_file_may_be(at: At, version: int, tmp_path: Path) -> None:
    path = store(PIXELS, "YX", version, levels=1, compressors=None)(tmp_path)
    chunk = next(one for one in (path / "0").rglob("*0") if one.is_file())
    image = at(path)
    assert np.array_equal(image.open_image(Limits()).read(), PIXELS)
    chunk.write_bytes(chunk.read_bytes() + bytes(2**25))
    image = at(path)
    opened = image.open_image(Limits())
    assert peak_of(opened.read) < 2**25  # the size of the chunk; the S3 store of this process takes up to 20 MB itself
    with pytest.raises(ImageTooLargeError, match="bytes"):
        opened.read()


@pytest.mark.slow
def test_of_a_shard_no_more_is_read_than_is_asked_for(at: At, tmp_path: Path) -> None:
    pixels = np.tile(PIXELS, (8, 8))
    path = store(pixels, "YX", 5, levels=1, shards=(512, 512), chunks=(64, 64), compressors=None)(tmp_path)
    opened = at(path).open_image(Limits())
    if not opened.source.startswith("http"):  # the server of these tests answers no ranges
        assert np.array_equal(opened.read((slice(64, 128), slice(0, 64))), PIXELS)
    with pytest.raises(ImageTooLargeError):
        opened.read()


def test_no_chunk_is_decoded_that_is_larger_than_a_file_may_be(at: At, tmp_path: Path) -> None:
    blank = np.zeros((1024, 1024), np.uint8)
    path = store(blank, "YX", 5, levels=1, chunks=(1024, 1024), fill_value=1)(tmp_path)
    with pytest.raises(UnreadableImageError, match="chunks of 1048576 bytes"):
        at(path).open_image(Limits())


@pytest.mark.slow
def test_a_plate_is_asked_for_its_fields_within_the_same_bounds(at: At, tmp_path: Path) -> None:
    path = store(PIXELS, "YX", 5, levels=1)(tmp_path)
    (path / "zarr.json").write_text(f'{{"nothing":[{NOTHING}],{(path / "zarr.json").read_text().lstrip()[1:]}')
    image = at(path)
    image = locate(image.uri, image.allowed.model_copy(update={"largest_file": 2**34}))
    assert peak_of(image.children) < 2**26  # parsed it takes 200 MB


def test_a_movie_has_no_frame_larger_than_a_file_may_be(tmp_path: Path, s3: str) -> None:
    movie = tmp_path / "movie"
    movie.mkdir()
    (movie / "t000.tif").write_bytes(bytes(MOST))
    local = locate(movie.as_uri(), Allowed(roots=(tmp_path,), largest_file=MOST))
    stored = Allowed(buckets=(BUCKET,), s3_endpoint=s3, largest_file=MOST)
    remote = locate(copy_to_bucket(movie, f"{tmp_path.name}/movie"), stored)
    for one in (local, remote):
        with one.local() as path:
            assert (path / "t000.tif").stat().st_size == MOST
    (movie / "t001.tif").write_bytes(bytes(MOST + 1))
    copy_to_bucket(movie, f"{tmp_path.name}/movie")
    for one in (local, remote):
        with pytest.raises(ImageTooLargeError, match=str(MOST)), one.local():
            pass


@pytest.mark.slow
def test_a_prefix_has_no_endless_list_of_objects(tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoray_services.storage.s3._MOST_FILES", 3)
    movie = tmp_path / "movie"
    movie.mkdir()
    for index in range(4):
        (movie / f"t{index:03}.tif").write_bytes(b"II")
        allowed = Allowed(buckets=(BUCKET,), s3_endpoint=s3)
        one = locate(copy_to_bucket(movie, f"{tmp_path.name}/many"), allowed)
        if index < 3:
            with one.local() as path:
                assert len(list(path.iterdir())) == index + 1
        else:
            with (
                pytest.raises(ImageTooLargeError, match=r"expected at most 3 objects in one folder, .*/many has 4"),
                one.local(),
            ):
                pass


@pytest.mark.slow
def test_what_is_not_there_is_missing_as_before(at: At, tmp_path: Path) -> None:
    (tmp_path / "empty.ome.zarr").mkdir()
    (tmp_path / "empty.ome.zarr/a").write_bytes(b"")
    with pytest.raises((MissingFileError, UnreadableImageError)):
        at(tmp_path / "empty.ome.zarr").open_image(Limits())
