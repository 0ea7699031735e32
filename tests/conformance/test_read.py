"""Every layout is the same image by path and by bytes, and what is not there is an error, never black."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.handmade import page, tiff_of
from conformance.holes import HOLES
from conformance.layout import GREY
from conformance.layouts import LAYOUTS
from conformance.stores import zipped
from cytoray_analysis.errors import CytorayError
from cytoray_analysis.images import Image, read_image


def bytes_of(path: Path) -> bytes:
    """Return the bytes of a file; of a folder those of its archive."""
    return (zipped(path, path.parent / "sent.zip") if path.is_dir() else path).read_bytes()


def check(image: Image, name: str) -> None:
    layout = LAYOUTS[name]
    assert image.axes == layout.axes
    pixels = image.read()
    assert pixels.shape == layout.array.shape
    assert pixels.dtype == layout.array.dtype.newbyteorder("=")
    if layout.tolerance:
        assert np.abs(pixels.astype(float) - layout.array).max() <= layout.tolerance
    else:
        assert np.array_equal(pixels, layout.array)
    if layout.channels is not None:
        assert image.channels == layout.channels
    assert dict(image.pixel_size or {}) == pytest.approx(dict(layout.pixel_size or {}))
    assert {warning.code for warning in image.warnings} == layout.warnings


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_by_its_path(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    check(read_image(layout.write(tmp_path), selection=layout.selection), name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if one.apart or "OME-Zarr" in name else [])
        for name, one in LAYOUTS.items()
        if not one.other_file
    ],
)
def test_every_layout_is_read_by_its_bytes(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    check(read_image(bytes_of(layout.write(tmp_path)), selection=layout.selection), name)


@pytest.mark.parametrize("name", [name for name, one in LAYOUTS.items() if one.other_file])
def test_bytes_that_need_another_file_are_refused_by_its_name(name: str, tmp_path: Path) -> None:
    path = LAYOUTS[name].write(tmp_path)
    for given in (path.read_bytes(), path):
        with pytest.raises(CytorayError, match=re.escape(LAYOUTS[name].other_file)):
            read_image(given, alone=True).read()


@pytest.mark.slow
@pytest.mark.parametrize("name", HOLES)
@pytest.mark.parametrize("by", ["path", pytest.param("bytes", marks=pytest.mark.slow)])
def test_what_is_not_there_is_named_and_can_be_avoided(name: str, by: str, tmp_path: Path) -> None:
    hole = HOLES[name]
    path = hole.write(tmp_path)
    given: Any = path if by == "path" else bytes_of(path)
    with pytest.raises(CytorayError, match=hole.named):
        read_image(given).read()
    if hole.avoiding is not None and hole.array is not None:
        assert np.array_equal(read_image(given, selection=hole.avoiding).read(), hole.array)


def test_the_corpus_says_of_each_layout_what_its_array_is() -> None:
    for name, layout in LAYOUTS.items():
        assert len(layout.axes) == layout.array.ndim, name
        assert layout.channels is None or len(layout.channels) == (
            layout.array.shape[layout.axes.index("C")] if "C" in layout.axes else 1
        ), name


@pytest.mark.parametrize("by", ["path", "bytes"])
def test_directories_in_a_circle_are_an_error_and_not_a_loop(by: str, tmp_path: Path) -> None:
    data = bytearray(tiff_of([(page(GREY.shape), [GREY.tobytes()])]))
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    link = first + 2 + 12 * count
    data[link : link + 4] = first.to_bytes(4, "little")
    path = tmp_path / "circle.tif"
    path.write_bytes(data)
    with pytest.raises(CytorayError, match="circle"):
        read_image(path if by == "path" else bytes(data))
