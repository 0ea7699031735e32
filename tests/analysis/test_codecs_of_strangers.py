"""Codecs in strangers' files: decoded in a limited process, bounded by what the file declares, or refused."""

from __future__ import annotations

import json
import os
import re
import resource
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numcodecs
import numpy as np
import pytest
import tifffile
import zarr.codecs
import zarr.codecs.numcodecs as of_2
import zarr.errors

from addresses import run_limited
from conformance.handmade import SHORT, page, tiff_of
from conformance.stores import store
from cytoray_analysis.errors import ImageTooLargeError, UnreadableImageError
from cytoray_analysis.images import Limits, read_image

GREY = np.random.default_rng(0).integers(0, 256, (64, 80), np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)


def written(path: Path, codec: str) -> Path:
    lossless: dict[str, Any] = {"lossless": True} if codec == "webp" else {"level": 0} if codec == "jpeg2000" else {}
    options: dict[str, Any] = {"compressionargs": lossless} if lossless else {}
    tifffile.imwrite(path, COLOUR, photometric="rgb", compression=codec, tile=(32, 32), **options)
    return path


@pytest.mark.parametrize(("codec", "apart"), [("deflate", False), ("jpeg2000", False), ("webp", True)])
def test_a_codec_without_a_bound_is_decoded_in_the_limited_process(codec: str, apart: bool, tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", codec)
    for alone in (False, True):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        np.testing.assert_array_equal(read_image(path, alone=alone).read(), np.moveaxis(COLOUR, -1, 0))
        assert (resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > before) == (apart and alone)


def test_a_file_that_is_too_large_for_the_limited_process_is_refused_for_its_codec(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", "webp")
    os.truncate(path, 2**32 + 1)  # sparse
    with pytest.raises(ImageTooLargeError, match=r"WEBP.*cannot be limited"):
        read_image(path, alone=True)


READ = """
from pathlib import Path
from cytoray_analysis.images import Limits, read_image
print(read_image(Path({path!r}).read_bytes(), limits=Limits(2**28, decoded_bytes=2**32, frames=64)).shape)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2**34, 6 * 2**30])
def test_a_limit_of_addresses_that_cannot_be_raised_is_kept_and_the_file_is_read(limit: int, tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", "webp")
    done = run_limited(READ.format(path=str(path)), limit)
    assert done.stdout.strip() == "(3, 64, 80)", done.stderr[-2000:]


@pytest.mark.parametrize(("codec", "encode"), [(33003, imagecodecs.jpeg2k_encode), (7, imagecodecs.jpeg8_encode)])
def test_a_tile_that_is_larger_than_the_file_declares_is_refused(codec: int, encode: object, tmp_path: Path) -> None:
    assert callable(encode)
    for pixels, fits in ((GREY, True), (np.zeros((800, 800), np.uint8), False)):
        path = tmp_path / f"{fits}.tif"
        path.write_bytes(tiff_of([(page(GREY.shape, 8, t259=(SHORT, [codec])), [bytes(encode(pixels))])]))
        if fits:
            assert read_image(path, alone=True).read().shape == GREY.shape
        else:
            with pytest.raises(UnreadableImageError, match=r"800 × 800.* larger than the image"):
                read_image(path, alone=True).read()


SIDE, LARGE = 64, 4096  # what the metadata say, and what the chunk unfolds to: 4 KiB and 16 MiB
_UNBLANK = {"fill_value": 1, "dtype": "u1"}
_2 = [numcodecs.GZip(), numcodecs.Zlib(), numcodecs.BZ2(), numcodecs.LZMA(preset=0), numcodecs.LZ4(), numcodecs.Zstd()]
_2 += [numcodecs.Blosc(cname=name) for name in ("zstd", "lz4")]
_3 = [zarr.codecs.GzipCodec(), zarr.codecs.ZstdCodec(), zarr.codecs.BloscCodec()]
with warnings.catch_warnings():
    warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
    _3 += [kind() for kind in (of_2.GZip, of_2.Zlib, of_2.BZ2, of_2.LZ4, of_2.Zstd, of_2.Blosc)]
    _3 += [of_2.LZMA(preset=0)]
LAYOUTS: list[Any] = [pytest.param(4, {"compressors": one}, id=f"0.4 {one}") for one in _2]
LAYOUTS += [pytest.param(4, {"compressors": None, "filters": [one]}, id=f"0.4 filter {one}") for one in _2]
LAYOUTS += [pytest.param(5, {"compressors": one}, id=f"0.5 {one.to_dict()['name']}") for one in _3]
LAYOUTS += [
    pytest.param(5, {"compressors": one, "shards": "all"}, id=f"0.5 {one.to_dict()['name']} in shards") for one in _3
]
pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")


def stored(folder: Path, version: int, side: int, **options: Any) -> Path:
    """Write an image of one chunk that is as large as it."""
    given = {**options, **({"shards": (side, side)} if "shards" in options else {})}
    zeros = np.zeros((side, side), np.uint8)
    return store(zeros, "YX", version, levels=1, chunks=(side, side), **_UNBLANK, **given)(folder)


def claimed(path: Path) -> Path:
    """Say in the metadata of an image's array that its sides are the small ones."""
    (metadata,) = (one for name in ("zarr.json", ".zarray") if (one := path / "0" / name).exists())
    metadata.write_text(re.sub(rf"\b{LARGE}\b", str(SIDE), metadata.read_text()))
    return path


def peak_of(read: Callable[[], object]) -> int:
    """Return how many bytes Python and NumPy held at most while something was read that cannot be."""
    tracemalloc.start()
    try:
        with pytest.raises((UnreadableImageError, ImageTooLargeError)):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def chunk_of(path: Path) -> Path:
    """Return the only chunk of an image."""
    (chunk,) = (one for one in (path / "0").rglob("*") if one.is_file() and not one.name.endswith(("json", "y", "s")))
    return chunk


@pytest.mark.slow
@pytest.mark.parametrize(("version", "options"), LAYOUTS)
def test_a_chunk_unfolds_to_no_more_than_its_pixels(version: int, options: dict[str, Any], tmp_path: Path) -> None:
    honest = stored(tmp_path / "honest", version, SIDE, **options)
    assert not read_image(honest).read().any()
    assert not read_image(honest, alone=True).read().any()
    path = claimed(stored(tmp_path / "false", version, LARGE, **options))
    assert sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) < 2**18
    assert peak_of(lambda: read_image(path).read()) < 2**22


def frames_of_zstandard(size: int, frames: int) -> bytes:
    """Return Zstandard as streams are written: frames that do not say how long they are; each byte is 7."""
    block = 2**17
    last = size // block - 1
    blocks = (((block << 3) | (1 << 1) | (index == last)).to_bytes(3, "little") + b"\7" for index in range(last + 1))
    return (b"\x28\xb5\x2f\xfd\x00\x38" + b"".join(blocks)) * frames


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("frames", [1, 2])
def test_a_stream_of_zstandard_is_read_and_bounded(version: int, frames: int, tmp_path: Path) -> None:
    codec = numcodecs.Zstd() if version == 4 else zarr.codecs.ZstdCodec()
    path = stored(tmp_path, version, 512, compressors=codec)
    chunk_of(path).write_bytes(frames_of_zstandard(512 * 512 // frames, frames))
    assert (read_image(path).read() == 7).all()
    chunk_of(path).write_bytes(frames_of_zstandard(2**24 // frames, frames))
    assert peak_of(lambda: read_image(path).read()) < 2**22


GROWING: dict[str, list[dict[str, Any]]] = {
    "to texts": [{"id": "astype", "encode_dtype": "|u1", "decode_dtype": "|S10000"}],
    "differences of texts": [{"id": "delta", "dtype": "|S10000", "astype": "|u1"}],
    "bits, again and again": [{"id": "packbits"}] * 4,
    "wider, again and again": [{"id": "astype", "encode_dtype": "|u1", "decode_dtype": "<c16"}] * 3,
}


@pytest.mark.parametrize("filters", GROWING.values(), ids=GROWING)
def test_filters_make_no_more_of_a_chunk_than_its_pixels(filters: list[dict[str, Any]], tmp_path: Path) -> None:
    path = stored(tmp_path, 4, SIDE, compressors=None)
    document = json.loads((path / "0/.zarray").read_text())
    (path / "0/.zarray").write_text(json.dumps({**document, "filters": filters}))
    assert peak_of(lambda: read_image(path).read()) < 2**22


FILTERS: dict[str, dict[str, Any]] = {
    "delta": {"filters": [numcodecs.Delta("<u2", "<i4")], "compressors": numcodecs.Zstd()},
    "offset": {"filters": [numcodecs.FixedScaleOffset(5, 1, "<u2", "<u4")], "compressors": numcodecs.Blosc()},
    "as a type": {"filters": [numcodecs.AsType("<i8", "<u2")], "compressors": numcodecs.GZip()},
    "shuffled": {"filters": [numcodecs.Shuffle(2), numcodecs.CRC32()], "compressors": numcodecs.LZ4()},
    "two codecs": {"filters": [numcodecs.Delta("<u2"), numcodecs.Zlib()], "compressors": numcodecs.GZip()},
}


@pytest.mark.parametrize("options", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("alone", [False, True])
def test_filters_and_parts_of_chunks_are_read(options: dict[str, Any], alone: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 60_000, (50, 70), np.uint16)
    path = store(pixels, "YX", 4, levels=1, **options)(tmp_path)
    np.testing.assert_array_equal(read_image(path, alone=alone).read(), pixels)


class Laboratory(numcodecs.abc.Codec):  # type: ignore[misc]
    """A codec that a laboratory has installed, whose unfolded size cannot be known."""

    codec_id = "of-the-laboratory"

    def encode(self, buf: Any) -> Any:
        """Return the bytes as they are."""
        return buf

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Return the bytes as they are."""
        return buf


def test_a_codec_without_a_known_size_is_for_the_laboratory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(numcodecs.registry.codec_registry, Laboratory.codec_id, Laboratory)
    used: list[dict[str, Any]] = [{"compressors": Laboratory()}, {"compressors": None, "filters": [Laboratory()]}]
    for options in used:
        path = stored(tmp_path / str(len(options)), 4, SIDE, **options)
        assert not read_image(path).read().any()
        with pytest.raises(UnreadableImageError, match="of-the-laboratory"):
            read_image(path, alone=True)


def test_a_chunk_of_a_strangers_image_is_no_larger_than_is_allowed(tmp_path: Path) -> None:
    path = stored(tmp_path / "a", 5, 1024, compressors=None)
    for chunk, fits in ((2**20, True), (2**20 - 1, False)):
        limits = Limits(chunk_bytes=chunk)
        if fits:
            assert read_image(path, limits=limits).shape == (1024, 1024)
        else:
            with pytest.raises(UnreadableImageError, match="chunks of 1048576 bytes"):
                read_image(path, limits=limits)
    shards = store(np.ones((64, 64), np.uint8), "YX", 5, levels=1, shards=(64, 64))(tmp_path / "b")
    assert read_image(shards, limits=Limits(chunk_bytes=256)).read().all()


def test_a_strangers_image_is_not_cut_into_a_chunk_for_each_pixel(tmp_path: Path) -> None:
    path = store(np.ones((4, 4), np.uint8), "YX", 5, levels=1, chunks=(1, 1))(tmp_path)
    metadata = path / "0/zarr.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "shape": [2048, 2048]}))
    assert read_image(path).shape == (2048, 2048)
    with pytest.raises(UnreadableImageError, match="4194304 chunks of 1 pixels"):
        read_image(path, alone=True)
