"""Reading: every format gives the same image, lazily."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import imagecodecs
import imageio.v3
import numpy as np
import PIL.Image
import pytest
import tifffile

from cytoray_analysis.images import Image, create_zarr, image_from_array, read_image, read_labels, write_image

GREY = (np.add.outer(np.arange(40) * 3, np.arange(56)) % 251).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY // 2], axis=-1)
STACK = np.stack([GREY, GREY + 1, GREY + 2]).astype(np.uint16)


def tiff(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def picture(array: np.ndarray, extension: str, **options: Any) -> bytes:
    return bytes(imageio.v3.imwrite("<bytes>", array, extension=extension, **options) or b"")


def pillow_png(array: np.ndarray, **options: Any) -> bytes:
    """Encode with Pillow, which writes one bit per pixel, palettes and transparent colours."""
    file = io.BytesIO()
    PIL.Image.fromarray(array).save(file, "PNG", **options)
    return file.getvalue()


def both_ways(data: bytes, folder: Path) -> tuple[Image, Image]:
    """Read the same bytes from memory and from a file whose name says nothing."""
    path = folder / "image.bin"
    path.write_bytes(data)
    return read_image(data), read_image(path)


OME = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "RFP"]}}
CASES: dict[str, tuple[bytes, str, np.ndarray]] = {
    "plain TIFF": (tiff(GREY), "YX", GREY),
    "big-endian 16-bit TIFF": (tiff(STACK[0], byteorder=">"), "YX", STACK[0]),
    "BigTIFF": (tiff(GREY, bigtiff=True), "YX", GREY),
    "deflate": (tiff(GREY, compression="deflate", predictor=True), "YX", GREY),
    "LZW tiles": (tiff(GREY, tile=(16, 16), compression="lzw"), "YX", GREY),
    "zstd": (tiff(STACK[0], compression="zstd"), "YX", STACK[0]),
    "pages without metadata": (tiff(STACK, metadata=None, photometric="minisblack"), "ZYX", STACK),
    "float": (tiff(GREY.astype(np.float32) / 7), "YX", GREY.astype(np.float32) / 7),
    "RGB TIFF": (tiff(COLOUR, photometric="rgb"), "CYX", COLOUR.transpose(2, 0, 1)),
    "RGBA TIFF": (
        tiff(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=["unassalpha"]),
        "CYX",
        COLOUR.transpose(2, 0, 1),
    ),
    "planar RGB": (
        tiff(COLOUR.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        "CYX",
        COLOUR.transpose(2, 0, 1),
    ),
    "ImageJ hyperstack": (
        tiff(np.stack([STACK, STACK + 9], axis=1), imagej=True, metadata={"axes": "ZCYX"}),
        "CZYX",
        np.stack([STACK, STACK + 9]),
    ),
    "OME-TIFF": (tiff(STACK, ome=True, metadata=OME), "CYX", STACK),
    "OME-TIFF of one plane": (tiff(GREY, ome=True, metadata={"axes": "YX"}), "YX", GREY),
    "OME-TIFF in the order TZC": (
        tiff(np.stack([STACK] * 2)[:, :, None], ome=True, metadata={"axes": "TZCYX"}),
        "TZYX",
        np.stack([STACK] * 2),
    ),
    "PNG": (picture(GREY, ".png"), "YX", GREY),
    "16-bit PNG": (picture(STACK[0] * 200, ".png"), "YX", STACK[0] * 200),
    "RGB PNG": (picture(COLOUR, ".png"), "CYX", COLOUR.transpose(2, 0, 1)),
    "RGBA PNG": (picture(np.dstack([COLOUR, GREY]), ".png"), "CYX", COLOUR.transpose(2, 0, 1)),
    "grey PNG with a transparent value": (pillow_png(GREY, transparency=5), "YX", GREY),
    "PNG of two values": (pillow_png(GREY > 100), "YX", (GREY > 100) * np.uint8(1)),
    "grey PNG with transparency": (picture(np.dstack([GREY, GREY]), ".png", mode="LA"), "YX", GREY),
    "16-bit RGB PNG": (
        bytes(imagecodecs.png_encode(COLOUR.astype(np.uint16) * 250)),
        "CYX",
        COLOUR.transpose(2, 0, 1).astype(np.uint16) * 250,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bytes_and_files_give_the_same_image(name: str, tmp_path: Path) -> None:
    data, axes, pixels = CASES[name]
    for image in both_ways(data, tmp_path):
        assert image.axes == axes
        assert image.dtype == pixels.dtype
        assert np.array_equal(image.read(), pixels)
        assert len(image.channels) == image.size("C")
    in_memory, on_disk = both_ways(data, tmp_path)
    assert in_memory.channels == on_disk.channels
    assert in_memory.pixel_size == on_disk.pixel_size


def test_colour_pictures_name_their_channels() -> None:
    assert read_image(picture(COLOUR, ".jpg")).channels == ("red", "green", "blue")


def test_ome_tiff_keeps_channel_names(tmp_path: Path) -> None:
    for image in both_ways(tiff(STACK, ome=True, metadata=OME), tmp_path):
        assert image.channels == ("DAPI", "GFP", "RFP")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.65, "PhysicalSizeY": 0.7}}, {"Y": 0.7, "X": 0.65}),
        (
            {
                "ome": True,
                "metadata": {
                    "PhysicalSizeX": 650.0,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 0.0007,
                    "PhysicalSizeYUnit": "mm",
                },
            },
            {"Y": 0.7, "X": 0.65},
        ),
        ({"imagej": True, "resolution": (2.0, 4.0), "metadata": {"unit": "um"}}, {"Y": 0.25, "X": 0.5}),
        ({"imagej": True, "resolution": (2.0, 4.0), "metadata": {"unit": "pixel"}}, None),
        ({"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}, {"Y": 0.5, "X": 0.5}),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (2, 2), "resolutionunit": "NONE"}, None),
        ({}, None),
    ],
)
def test_the_pixel_size_is_known_where_its_unit_is(
    options: dict[str, Any], expected: dict[str, float] | None, tmp_path: Path
) -> None:
    for image in both_ways(tiff(GREY, **options), tmp_path):
        assert image.pixel_size == (None if expected is None else pytest.approx(expected))


def test_a_stack_of_imagej_knows_its_depth() -> None:
    data = tiff(STACK, imagej=True, resolution=(2.0, 2.0), metadata={"axes": "ZYX", "unit": "micron", "spacing": 3.0})
    assert read_image(data).pixel_size == pytest.approx({"Z": 3.0, "Y": 0.5, "X": 0.5})


def peak_memory_of_reading(image: Image, region: tuple[slice, ...]) -> tuple[np.ndarray, int]:
    image.read(region)  # imports and caches are not what is measured
    tracemalloc.start()
    pixels = image.read(region)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return pixels, peak


def test_a_region_of_a_huge_zarr_takes_the_memory_of_its_chunks(tmp_path: Path) -> None:
    array = create_zarr(tmp_path / "huge.ome.zarr", "YX", (20_000, 20_000), dtype="uint32", chunks=(512, 512))
    array[10_000:10_100, 10_000:10_100] = 7
    image = read_image(tmp_path / "huge.ome.zarr")
    assert image.shape == (20_000, 20_000)
    pixels, peak = peak_memory_of_reading(image, (slice(9_900, 10_100), slice(9_900, 10_100)))
    assert int((pixels == 7).sum()) == 10_000
    assert peak < 2**24


def test_a_region_of_a_huge_tiff_decodes_only_its_tiles(tmp_path: Path) -> None:
    plane = np.zeros((6_000, 6_000), np.uint16)
    plane[3_000:3_010, 4_000:4_010] = 5
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, plane, tile=(256, 256), compression="zstd")
    pixels, peak = peak_memory_of_reading(read_image(path), (slice(2_990, 3_020), slice(3_990, 4_020)))
    assert np.array_equal(pixels, plane[2_990:3_020, 3_990:4_020])
    assert peak < 2**24


def test_a_zarr_image_keeps_axes_names_and_pixel_size(tmp_path: Path) -> None:
    image = image_from_array(STACK, "CYX", channels=("a", "b", "c"), pixel_size={"Y": 0.7, "X": 0.6})
    write_image(tmp_path / "image.ome.zarr", image)
    back = read_image(tmp_path / "image.ome.zarr")
    assert (back.axes, back.channels, back.pixel_size) == ("CYX", ("a", "b", "c"), {"Y": 0.7, "X": 0.6})
    assert np.array_equal(back.read(), STACK)


def test_real_images_are_read_as_tifffile_reads_them(shared_data: Path) -> None:
    for name in ("dsb2018", "bbbc039", "usiigaci_t98g"):
        for path in sorted((shared_data / "segmentation" / name / "images").glob("*.tif"))[:3]:
            expected = tifffile.imread(path)
            image = read_image(path)
            pixels = image.read()
            assert np.array_equal(pixels if image.axes == "YX" else pixels.transpose(1, 2, 0), expected)
            assert read_labels(path.parents[1] / "masks" / path.name).shape == image.spatial_shape
