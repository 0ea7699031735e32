"""Bytes of strangers: every format that a file can have, bombs, and mutations; an image or one of our errors."""

from __future__ import annotations

import io
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import imageio.v3
import numpy as np
import psutil
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import ImageTooLargeError, InputError, UnreadableImageError
from cytoray_analysis.images import Limits, declared_size, image_from_array, read_image, write_image
from cytoray_analysis.images.vendor_formats import format_of
from image_mutations import mutated, valid_images

pytestmark = pytest.mark.slow

GREY = (np.add.outer(np.arange(40) * 3, np.arange(56)) % 251).astype(np.uint8)
LIMITS = Limits(pixels=2**24, decoded_bytes=2**26, frames=512, files=2000)


def tiff(array: np.ndarray = GREY, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)  # type: ignore[arg-type]
    return file.getvalue()


def png(array: np.ndarray = GREY) -> bytes:
    return bytes(imageio.v3.imwrite("<bytes>", array, extension=".png") or b"")


def jpeg(array: np.ndarray = GREY) -> bytes:
    return bytes(imageio.v3.imwrite("<bytes>", array, extension=".jpg") or b"")


@pytest.fixture(scope="module")
def zarr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an OME-Zarr."""
    folder = tmp_path_factory.mktemp("zarr") / "a.ome.zarr"
    write_image(folder, image_from_array(GREY, "YX", pixel_size={"Y": 0.25, "X": 0.25}))
    return folder


@pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
@pytest.mark.parametrize(
    "options",
    [
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"photometric": "minisblack", "compression": "zlib"},
    ],
    ids=["ome", "imagej", "plain"],
)
def test_a_stack_that_was_cut_off_is_never_its_first_plane(
    tmp_path: Path, options: dict[str, object], share: float
) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (6, 40, 56), np.uint8)
    whole = tiff(stack, **options)
    assert read_image(whole).shape == stack.shape
    cut = whole[: int(len(whole) * share)]
    (tmp_path / "a.tif").write_bytes(cut)
    for source in (cut, tmp_path / "a.tif"):
        with pytest.raises(UnreadableImageError, match=r"ends at|cannot be"):
            read_image(source)


def test_what_lies_behind_the_end_of_a_file_is_reported(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (3, 40, 56), np.uint8)
    pages = [tiff(plane, metadata=None) for plane in stack]
    whole = bytearray(pages[0])
    with tifffile.TiffFile(io.BytesIO(whole)) as file:
        (count,) = struct.unpack_from("<H", whole, start := file.pages.first.offset)
        (described,) = (tag.offset for tag in tiff_tags(tiff(stack[0], description="x" * 99, metadata=None)))
    struct.pack_into("<I", whole, start + 2 + 12 * count, 2**20)  # a page of a writer that says nothing else of it
    for source in (bytes(whole), put(tmp_path / "a.tif", bytes(whole))):
        image = read_image(source)
        np.testing.assert_array_equal(image.read(), stack[0])
        assert [one.code for one in image.warnings] == ["pages-missing"]
    lost = bytearray(tiff(stack[0], description="x" * 99, metadata=None))
    struct.pack_into("<I", lost, described + 8, 2**20)
    for source in (bytes(lost), put(tmp_path / "a.tif", bytes(lost))):
        image = read_image(source)
        np.testing.assert_array_equal(image.read(), stack[0])
        assert [one.code for one in image.warnings] == ["metadata-unreadable"]


def tiff_tags(data: bytes) -> list[tifffile.TiffTag]:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return [tag for tag in file.pages.first.tags if tag.code == 270]


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def zipped(folder: Path, top: str = "", compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, top + path.relative_to(folder).as_posix())
    return file.getvalue()


def added(archive: bytes, *members: tuple[zipfile.ZipInfo | str, bytes]) -> bytes:
    file = io.BytesIO(archive)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members:
            opened.writestr(name, data)
    return file.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = 0o120777 << 16
    return made


@pytest.mark.parametrize("top", ["", "a.ome.zarr/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zipped_ome_zarr_is_read_like_its_folder(zarr_folder: Path, top: str, compression: int) -> None:
    data = zipped(zarr_folder, top, compression)
    image = read_image(data, limits=LIMITS, name="a.ozx")
    assert (image.axes, image.pixel_size, image.source) == ("YX", {"Y": 0.25, "X": 0.25}, "a.ozx")
    assert np.array_equal(image.read(), GREY)
    declared = declared_size(data)
    assert (declared.axes, declared.shape, declared.dtype) == ("YX", GREY.shape, GREY.dtype)


def test_nothing_stays_behind(zarr_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    read_image(zipped(zarr_folder), limits=LIMITS)
    with pytest.raises(UnreadableImageError):
        read_image(added(zipped(zarr_folder), ("0/c/0/0x", b"x"), ("../x", b"x")), limits=LIMITS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("../x", "leads out"),
        ("/etc/x", "leads out"),
        ("a/../../x", "leads out"),
        ("a\\x", "leads out"),
        ("c:x", "leads out"),
        ("a\nb", "control"),
        ("x" * 300, "too long"),
        ("zarr.json", "twice"),
    ],
)
def test_archives_with_strange_names_are_refused(zarr_folder: Path, name: str, match: str) -> None:
    with pytest.warns(UserWarning, match="Duplicate") if match == "twice" else nullcontext():
        data = added(zipped(zarr_folder), (name, b"x"))
    for read in (read_image, declared_size):
        with pytest.raises(UnreadableImageError, match=match):
            read(data, limits=LIMITS)


def test_archives_with_links_and_bombs_are_refused(zarr_folder: Path) -> None:
    good = zipped(zarr_folder)
    with pytest.raises(UnreadableImageError, match="link"):
        read_image(added(good, (link("0/link"), b"/etc/passwd")), limits=LIMITS)
    with pytest.raises(ImageTooLargeError, match=r"expected an archive of at most \d+ unpacked bytes, got"):
        read_image(added(good, ("0/blank", bytes(2**28))), limits=LIMITS)
    with pytest.raises(ImageTooLargeError, match="files"):
        read_image(added(good, *((f"0/{number}", b"") for number in range(2000))), limits=LIMITS)
    lying = added(good, ("0/blank", bytes(2**28))).replace(struct.pack("<I", 2**28), struct.pack("<I", 10))
    with pytest.raises(InputError):
        read_image(lying, limits=LIMITS)
    with pytest.raises(UnreadableImageError, match="expected an OME-Zarr"):
        read_image(added(b"", ("a.tif", tiff())), limits=LIMITS)


def test_an_archive_unfolds_to_what_its_images_declare_whatever_else_is_allowed(zarr_folder: Path) -> None:
    generous = Limits(pixels=2**36, decoded_bytes=2**32)
    beside = added(zipped(zarr_folder), ("0/blank", bytes(2**25)))
    assert read_image(beside, limits=generous).read().size > 0
    with pytest.raises(ImageTooLargeError, match=r"expected an archive of at most \d+ unpacked bytes, got"):
        read_image(added(zipped(zarr_folder), ("0/blank", bytes(2**28))), limits=generous)


def test_a_chunk_that_unfolds_to_gigabytes_is_refused(tmp_path: Path) -> None:
    import zarr

    write_image(tmp_path / "a.zarr", image_from_array(GREY, "YX"))
    array = zarr.open_array(tmp_path / "a.zarr" / "0", mode="r")
    zarr.create_array(
        tmp_path / "a.zarr" / "0", shape=array.shape, chunks=(40, 56), dtype="u1", overwrite=True,
        compressors=zarr.codecs.GzipCodec(),
    )  # fmt: skip
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = start + 64 * (packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)) + packer.flush()
    (tmp_path / "a.zarr" / "0" / "c" / "0").mkdir(parents=True)
    (tmp_path / "a.zarr" / "0" / "c" / "0" / "0").write_bytes(bomb)
    before = psutil.Process().memory_info().rss
    with pytest.raises(InputError):
        read_image(zipped(tmp_path / "a.zarr"), limits=LIMITS)
    assert psutil.Process().memory_info().rss - before < 2**28


@pytest.mark.parametrize(
    ("start", "name", "expected"),
    [
        (b"ZISRAWFILE\0\0", "the image", "CZI"),
        (b"\xda\xce\xbe\x0a", "the image", "ND2"),
        (b"\x70\0\0\0\x10\0\0\0\x2a", "the image", "LIF"),
        (b"\x71\0\0\0\x10\0\0\0\x2a", "the image", None),
        (bytes(96) + b"\xa0\xc0", "the image", "DeltaVision"),
        (b"unknown", "old.ND2", "ND2"),
        (b"unknown", "movie.mp4", None),
        (b"#EXTM3U", "list.m3u8", None),
    ],
)
def test_vendor_formats_are_recognised_by_their_first_bytes_and_else_by_name(
    start: bytes, name: str, expected: str | None
) -> None:
    found = format_of(start, name)
    assert (None if found is None else found.name) == expected


@pytest.mark.parametrize("start", [b"ZISRAWFILE", b"\xda\xce\xbe\x0a", bytes(96) + b"\xa0\xc0"])
def test_a_vendor_format_names_what_to_install_or_is_found_damaged(start: bytes) -> None:
    for read in (read_image, declared_size):
        with pytest.raises(UnreadableImageError) as caught:
            read(start.ljust(2000, b"\0"), limits=LIMITS)
        assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "axes", "shape", "dtype"),
    [
        (tiff(), "YX", (40, 56), "u1"),
        (
            tiff(np.zeros((5, 3, 40, 56), np.uint16), metadata={"axes": "TCYX"}, ome=True),
            "TCZYX",
            (5, 3, 1, 40, 56),
            "u2",
        ),
        (png(), "YXS", (40, 56, 1), "u1"),
        (png(np.random.default_rng(0).integers(0, 9, (40, 56, 3), np.uint8)), "YXS", (40, 56, 3), "u1"),
        (jpeg(), "YXS", (40, 56, 1), "u1"),
    ],
)
def test_the_header_says_what_is_declared(data: bytes, axes: str, shape: tuple[int, ...], dtype: str) -> None:
    declared = declared_size(data)
    assert (declared.axes, declared.shape, declared.dtype) == (axes, shape, np.dtype(dtype))
    assert declared.decoded_bytes == int(np.prod(shape)) * np.dtype(dtype).itemsize
    assert declared.pixels == read_image(data).read().size // (3 if 3 in shape else 1)


def test_declared_sizes_take_a_millisecond() -> None:
    array = np.random.default_rng(0).integers(0, 255, (1024, 1024), dtype=np.uint8)
    for data in (tiff(array), tiff(array, compression="zlib", tile=(64, 64)), png(array), jpeg(array)):
        declared_size(data)
        seconds = []
        for _ in range(20):
            begun = time.perf_counter()
            declared_size(data)
            seconds.append(time.perf_counter() - begun)
        assert sorted(seconds)[10] < 2e-3  # twice what it may be: other tests run beside it


def directory(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + tags + struct.pack("<I", following)


PLAIN = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1),
         (278, 4, 1, 8), (279, 4, 1, 64)]  # fmt: skip
ENTITIES = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><OME><Image>&a;</Image></OME>'
SCANS = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 1000 + b"\xff\xd9"
TILE = [(322, 4, 1, 65_536), (323, 4, 1, 65_536), (324, 4, 1, 8), (325, 4, 1, 64)]
HEAD = b"II*\0\x08\0\0\0"


def ome(body: str) -> bytes:
    start = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
    return tiff(description=f"{start}{body}</Pixels></Image></OME>", metadata=None)


def negative_width() -> bytes:
    data = bytearray(tiff())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place = file.pages[0].tags["ImageWidth"].offset  # type: ignore[union-attr]
    struct.pack_into("<Hi", data, place + 2, 9, 1)
    struct.pack_into("<i", data, place + 8, -56)
    return bytes(data)


def zstd_bomb() -> bytes:
    import imagecodecs

    page = tiff(np.zeros((64, 64), np.uint8), compression="zstd")
    bomb = imagecodecs.zstd_encode(bytes(2**30))
    data = bytearray(page + bomb)
    with tifffile.TiffFile(io.BytesIO(page)) as file:
        tags = file.pages[0].tags  # type: ignore[union-attr]
        struct.pack_into("<I", data, tags["StripOffsets"].valueoffset, len(page))
        struct.pack_into("<I", data, tags["StripByteCounts"].valueoffset, len(bomb))
    return bytes(data)


def jpeg_in_tiff_bomb() -> bytes:
    inner = bytearray(jpeg(np.zeros((64, 64), np.uint8)))
    place = inner.index(b"\xff\xc0")
    struct.pack_into(">HH", inner, place + 5, 65_000, 65_000)
    tags = [*PLAIN[:3], (259, 3, 1, 7), *PLAIN[4:5], (273, 4, 1, 200), *PLAIN[6:8], (279, 4, 1, len(inner))]
    return (HEAD + directory(tags)).ljust(200, b"\0") + bytes(inner)


def png_with(kind: bytes, body: bytes) -> bytes:
    good = png()
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return good[:33] + chunk * 200 + good[33:]


BOMBS: dict[str, Callable[[], bytes]] = {
    "directories in a circle": lambda: HEAD + directory(PLAIN, following=8),
    "thousands of directories": lambda: tiff(np.zeros((600, 8, 8), np.uint8), metadata=None, photometric="minisblack"),
    "a thousand tags of a megabyte": lambda: (
        HEAD + directory([*PLAIN, *((270, 2, 2**20, 13_000),) * 1000]) + bytes(2**20 + 13_000)
    ),
    "numbers without end": lambda: (
        HEAD + directory([*PLAIN, *((273, 4, 2**18, 13_000),) * 1000]) + bytes(2**20 + 13_000)
    ),
    "65,535 tags": lambda: HEAD + directory(PLAIN * 7281) + bytes(100),
    "inner directories without end": lambda: (
        HEAD + directory([*PLAIN, (330, 4, 2**16, 200)]).ljust(192, b"\0") + struct.pack("<I", 8) * 2**16
    ),
    "offsets behind everything": lambda: b"II+\0\x08\0\0\0" + struct.pack("<Q", 2**62),
    "a BigTIFF of many tags": lambda: b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2**60) + bytes(1000),
    "a tile larger than everything": lambda: HEAD + directory([*PLAIN[:3], (259, 3, 1, 8), PLAIN[4], PLAIN[6], *TILE]),
    "a page of negative width": negative_width,
    "zstd of a gigabyte": zstd_bomb,
    "a huge JPEG in a TIFF": jpeg_in_tiff_bomb,
    "a billion planes of OME": lambda: ome(
        'DimensionOrder="XYCZT" Type="uint8" SizeX="56" SizeY="40" SizeC="1" SizeZ="1" SizeT="1000000000"><TiffData/>'
    ),
    "a billion planes of TiffData": lambda: ome(
        'DimensionOrder="XYCZT" Type="uint8" SizeX="56" SizeY="40" SizeC="1" SizeZ="1" SizeT="1">'
        '<TiffData IFD="0" PlaneCount="1000000000"/>'
    ),
    "entities of OME": lambda: tiff(description=ENTITIES, metadata=None),
    "a PNG with huge profiles": lambda: png_with(b"iCCP", b"a\0\0" + zlib.compress(bytes(7_900_000))),
    "a PNG with huge texts": lambda: png_with(b"zTXt", b"a\0\0" + zlib.compress(bytes(7_900_000))),
    "a JPEG of a thousand scans": lambda: jpeg().replace(b"\xff\xd9", SCANS),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_take_no_memory_and_no_time(name: str) -> None:
    data = BOMBS[name]()
    process = psutil.Process()
    read_image(tiff(compression="zlib"))
    before, begun = process.memory_info().rss, time.monotonic()
    harmless = "PNG" in name or "TiffData" in name  # what is not decoded, or announced of an image of one plane
    with nullcontext() if harmless else pytest.raises(InputError):
        read_image(data, limits=LIMITS).read()
    assert time.monotonic() - begun < 10
    assert process.memory_info().rss - before < 2**27


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    """Give a valid image of each kind."""
    return valid_images()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**48))
def test_every_mutation_is_an_image_or_an_error_of_the_caller(images: dict[str, bytes], seed: int) -> None:
    fast = {name: data for name, data in images.items() if not name.startswith("zip")}
    for read in (declared_size, _read_whole):
        with suppress(InputError):
            read(mutated(fast, seed).data, limits=LIMITS)


def _read_whole(data: bytes, limits: Limits) -> np.ndarray:
    return read_image(data, limits=limits).read()


def test_mutated_archives_are_an_image_or_an_error_of_the_caller(images: dict[str, bytes]) -> None:
    archives = {name: data for name, data in images.items() if name.startswith("zip")}
    for seed in range(6):
        with suppress(InputError):
            read_image(mutated(archives, seed).data, limits=LIMITS)
