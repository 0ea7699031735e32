"""Chunks of OME-Zarr that were cut short: an error that names the chunk, whatever they are compressed with."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr.codecs

from conformance.stores import store, zipped
from cytoray_analysis.errors import UnreadableImageError
from cytoray_analysis.images import read_image
from cytoray_analysis.selection import Selection

STACK = np.random.default_rng(0).integers(0, 60_000, (3, 16, 16), np.uint16)
_2: dict[str, dict[str, Any]] = {
    "blosc of lz4": {"compressors": numcodecs.Blosc(cname="lz4")},
    "blosc of zstd": {"compressors": numcodecs.Blosc(cname="zstd")},
    "blosc as a filter": {"filters": [numcodecs.Blosc(cname="lz4")], "compressors": None},
    "lz4": {"compressors": numcodecs.LZ4()},
    "zstd": {"compressors": numcodecs.Zstd()},
    "gzip": {"compressors": numcodecs.GZip()},
    "no codec": {"compressors": None},
}
_3: dict[str, dict[str, Any]] = {
    "blosc of lz4": {"compressors": zarr.codecs.BloscCodec(cname="lz4")},
    "blosc of zstd": {"compressors": zarr.codecs.BloscCodec(cname="zstd")},
    "blosc in shards": {"shards": (1, 32, 32), "compressors": zarr.codecs.BloscCodec(cname="lz4")},
    "zstd": {"compressors": zarr.codecs.ZstdCodec()},
    "gzip": {"compressors": zarr.codecs.GzipCodec()},
    "no codec": {"compressors": None},
    "shards": {"shards": (1, 32, 32)},
}
CASES = [pytest.param(4, options, id=f"0.4 {name}") for name, options in _2.items()]
CASES += [pytest.param(5, options, id=f"0.5 {name}") for name, options in _3.items()]


def of_plane(path: Path, plane: int) -> Path:
    files = (path / "0").rglob("*")
    (found,) = [
        one
        for one in files
        if one.is_file() and one.relative_to(path / "0").as_posix().removeprefix("c/")[:2] in (f"{plane}/", f"{plane}.")
    ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("version", "options"), CASES)
def test_a_chunk_that_was_cut_short_is_named_and_can_be_avoided(
    version: int, options: dict[str, Any], tmp_path: Path
) -> None:
    path = store(STACK, "ZYX", version, levels=1, **options)(tmp_path)
    np.testing.assert_array_equal(read_image(path).read(), STACK)
    chunk = of_plane(path, 1)
    whole = chunk.read_bytes()
    for lost in (1, 2, 3, 4, len(whole) // 2, len(whole) - 3, len(whole)):
        chunk.write_bytes(whole[: len(whole) - lost])
        for labels in (False, True):
            with pytest.raises(UnreadableImageError, match=r"chunk \S*1[./]0[./]0 \(from Z=1, Y=0, X=0\) could not be"):
                read_image(path, labels=labels).read()
    chosen = read_image(path, selection=Selection(plane="2"))
    np.testing.assert_array_equal(chosen.read(), STACK[2])


def test_a_shard_whose_index_comes_first_may_not_end_in_a_chunk_that_was_cut_short(tmp_path: Path) -> None:
    inner = zarr.codecs.BloscCodec(cname="lz4")
    shards = {"shape": (1, 32, 32), "index_location": "start"}
    path = store(STACK, "ZYX", 5, levels=1, shards=shards, compressors=inner)(tmp_path)
    np.testing.assert_array_equal(read_image(path).read(), STACK)
    chunk = of_plane(path, 1)
    chunk.write_bytes(chunk.read_bytes()[:-2])
    with pytest.raises(UnreadableImageError, match="it is truncated: 526 of 528 bytes"):
        read_image(path).read()


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["1", "0 1 2"], ids=["a plane", "all planes"])
@pytest.mark.parametrize("version", [4, 5])
def test_a_plane_without_objects_need_not_be_stored(version: int, lost: str, tmp_path: Path) -> None:
    masks = STACK.copy()
    masks[[int(plane) for plane in lost.split()]] = 0
    path = store(masks, "ZYX", version, levels=1)(tmp_path)
    assert len(list((path / "0").rglob("*/*/*"))) < 9  # zarr leaves out what is blank
    np.testing.assert_array_equal(read_image(path, labels=True).read(), masks)
    np.testing.assert_array_equal(read_image(zipped(path, tmp_path / "a.zip"), labels=True).read(), masks)
    with pytest.raises(UnreadableImageError, match="is missing in the store") as caught:
        read_image(path).read()
    assert "--plane" in str(caught.value.hint)


@pytest.mark.parametrize("version", [4, 5])
def test_an_open_store_can_be_sent_to_another_process(version: int, tmp_path: Path) -> None:
    options = (_2 if version == 4 else _3)["blosc of lz4"]
    path = store(STACK, "ZYX", version, levels=1, **options)(tmp_path)
    image = pickle.loads(pickle.dumps(read_image(path)))
    np.testing.assert_array_equal(image.read(), STACK)
    chunk = of_plane(path, 1)
    chunk.write_bytes(chunk.read_bytes()[:-2])
    with pytest.raises(UnreadableImageError, match="it is truncated: 526 of 528 bytes"):
        image.read()
