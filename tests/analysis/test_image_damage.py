"""Wrong input: each kind gets a clear error of ours, before memory is spent on it, and never anything else."""

from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import imageio.v3
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import (
    AxesError,
    CytorayError,
    ImageError,
    ImageTooLargeError,
    InputError,
    MissingFileError,
    UnreadableImageError,
)
from cytoray_analysis.images import Limits, create_zarr, read_image

GREY = (np.add.outer(np.arange(40) * 3, np.arange(56)) % 251).astype(np.uint8)


def tiff(array: np.ndarray = GREY, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)  # type: ignore[arg-type]
    return file.getvalue()


def png(array: np.ndarray = GREY) -> bytes:
    return bytes(imageio.v3.imwrite("<bytes>", array, extension=".png") or b"")


def png_header(width: int, height: int) -> bytes:
    """Return a valid PNG header of a picture whose pixels are nearly all missing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def tiff_header(width: int, height: int, *, compression: int = 1, stored: int = 1024) -> bytes:
    """Return a TIFF file of one strip that declares any size over `stored` bytes."""
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, compression),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, stored),
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    return (b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)).ljust(200, b"\0") + zlib.compress(b"x").ljust(
        stored, b"\0"
    )


def fails(source: bytes | Path, error: type[CytorayError], match: str) -> CytorayError:
    """Read `source`, which must fail, without taking more than 64 MB."""
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(error, match=match) as caught:
                read_image(source).read()
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()
    assert isinstance(caught.value, InputError)
    assert caught.value.hint
    return caught.value


@pytest.fixture(scope="module", autouse=True)
def _imports_are_not_measured(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("good")
    (folder / "image.tif").write_bytes(tiff())
    create_zarr(folder / "labels.ome.zarr", "YX", (8, 8), dtype="uint32", chunks=(8, 8))[:] = 1
    for source in (tiff(), png(), folder / "image.tif", folder / "labels.ome.zarr"):
        read_image(source).read()


def exit_status_of_reading(source: bytes | Path) -> int:
    try:
        read_image(source, limits=Limits(decoded_bytes=2**26)).read()
    except CytorayError as error:
        return error.exit_status
    return 0


BAD_BYTES: dict[str, tuple[bytes, type[CytorayError], str]] = {
    "nothing": (b"", UnreadableImageError, "is empty"),
    "text": (b"these are no pixels", UnreadableImageError, "expected an image in a known format"),
    "a web page": (b"<!doctype html><html>", UnreadableImageError, "known format"),
    "a pickle": (b"\x80\x04\x95\x00", UnreadableImageError, "known format"),
    "half a TIFF": (tiff()[:1200], UnreadableImageError, "file ends at 1200"),
    "half a compressed TIFF": (tiff(compression="deflate")[:500], UnreadableImageError, "file ends at 500"),
    "a TIFF cut in its directory": (tiff()[:60], UnreadableImageError, "decoded|TIFF"),
    "a TIFF of eight bytes": (tiff()[:8], UnreadableImageError, "decoded|TIFF"),
    "a huge TIFF header": (
        tiff_header(60_000, 60_000),
        UnreadableImageError,
        "3600000000 bytes.*contains 1024",
    ),
    "a huge TIFF header that lies about its bytes": (
        tiff_header(60_000, 60_000)[:279].replace(struct.pack("<I", 1024), struct.pack("<I", 3_600_000_000)),
        UnreadableImageError,
        "file ends at",
    ),
    "a huge compressed TIFF header": (tiff_header(60_000, 60_000, compression=8), UnreadableImageError, "declares"),
    "a TIFF of no pixels": (tiff_header(0, 0), ImageError, "at least one pixel|could not be decoded"),
    "a TIFF with an axis too many": (
        tiff(np.zeros((2, 2, 2, 2, 8, 8), np.uint8), metadata={"axes": "HTZCYX"}, photometric="minisblack"),
        AxesError,
        "H=2 too many",
    ),
    "complex pixels": (
        tiff(GREY.astype(np.complex64)),
        ImageError,
        "integer or real pixels, got complex64",
    ),
    "half a PNG": (png()[:60], UnreadableImageError, "could not be decoded"),
    "a huge PNG header": (png_header(60_000, 60_000), ImageTooLargeError, "60000 × 60000"),
    "a large PNG header": (png_header(9_000, 9_900), UnreadableImageError, "far more than its"),
    "a PNG of no pixels": (png_header(0, 0), ImageError, "at least one pixel"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD_BYTES)
def test_bad_bytes_are_refused_with_a_reason(name: str) -> None:
    data, error, match = BAD_BYTES[name]
    fails(data, error, match)


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bad_files_are_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    data, error, match = BAD_BYTES[name]
    path = tmp_path / "image.tif"
    path.write_bytes(data)
    assert str(path) in str(fails(path, error, match))


def test_truncated_files_are_distinguished_from_foreign_ones() -> None:
    assert fails(BAD_BYTES["half a TIFF"][0], UnreadableImageError, "ends").field == "bytes"
    assert fails(BAD_BYTES["text"][0], UnreadableImageError, "format").field is None


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    error = fails(tmp_path / "nowhere.tif", MissingFileError, r"expected a file at .*nowhere\.tif, found none")
    assert isinstance(error, FileNotFoundError)


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    fails(tmp_path, UnreadableImageError, "expected an image file or an OME-Zarr folder")


def test_a_zarr_store_without_ome_metadata_is_no_image(tmp_path: Path) -> None:
    import zarr

    zarr.create_array(tmp_path / "plain.zarr", shape=(4, 4), dtype="u1")
    fails(tmp_path / "plain.zarr", UnreadableImageError, "plain.zarr")
    zarr.open_group(tmp_path / "group.zarr", mode="w")
    fails(tmp_path / "group.zarr", UnreadableImageError, "without OME metadata")


def test_a_damaged_chunk_of_a_zarr_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    array = create_zarr(tmp_path / "a.ome.zarr", "YX", (64, 64), dtype="uint32", chunks=(32, 32))
    array[:] = np.arange(64 * 64).reshape(64, 64)
    chunk = next(path for path in sorted((tmp_path / "a.ome.zarr" / "0").rglob("*")) if path.parent.name == "1")
    chunk.write_bytes(b"no chunk")
    image = read_image(tmp_path / "a.ome.zarr")
    assert image.read((slice(0, 32), slice(0, 32)))[0, 5] == 5
    with pytest.raises(UnreadableImageError, match="could not be decoded"):
        image.read()


def test_a_vendor_format_without_its_reader_names_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "slide.czi"
    path.write_bytes(b"ZISRAWFILE".ljust(64, b"\0"))
    assert "cytoray[formats]" in str(fails(path, UnreadableImageError, "no reader is installed").hint)


@pytest.mark.parametrize("data", [tiff(), png()])
def test_limits_are_checked_by_the_header(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    for source in (data, path):
        assert read_image(source, limits=Limits(pixels=GREY.size, decoded_bytes=GREY.size)).size("X") == 56
        with pytest.raises(ImageTooLargeError, match="2240 pixels, more than the 2239 allowed"):
            read_image(source, limits=Limits(pixels=GREY.size - 1))
        with pytest.raises(ImageTooLargeError, match="2240 bytes, more than the 2239 allowed"):
            read_image(source, limits=Limits(decoded_bytes=GREY.size - 1))


def test_a_zarr_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    create_zarr(tmp_path / "a.ome.zarr", "YX", (10_000, 10_000), dtype="uint32", chunks=(512, 512))
    with pytest.raises(ImageTooLargeError, match="100000000 pixels"):
        read_image(tmp_path / "a.ome.zarr", limits=Limits(pixels=10**7))


SEEDS = [
    tiff(),
    tiff(compression="deflate", predictor=True),
    tiff(compression="lzw"),
    tiff(GREY.astype(np.uint16), byteorder=">", tile=(16, 16)),
    tiff(np.stack([GREY] * 2), ome=True, metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}),
    tiff(np.stack([GREY] * 2), imagej=True, metadata={"axes": "ZYX", "unit": "um"}, resolution=(2.0, 2.0)),
    tiff(np.dstack([GREY] * 3), photometric="rgb", compression="jpeg"),
    png(),
    png(np.dstack([GREY] * 3)),
    bytes(imageio.v3.imwrite("<bytes>", GREY, extension=".jpg") or b""),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Bytes of an image, cut off or with some bytes changed, mostly in the header."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.one_of(st.integers(0, min(len(data), 300) - 1), st.integers(0, len(data) - 1)))
        data[place] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data) - 1)) :]
    return bytes(data)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=damaged())
def test_damaged_bytes_raise_only_our_errors(data: bytes) -> None:
    assert exit_status_of_reading(data) in (0, 2)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=damaged())
def test_damaged_files_raise_only_our_errors(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(data)
    assert exit_status_of_reading(path) in (0, 2)
