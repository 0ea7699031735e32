"""Codecs in strangers' files by their path: decoded in a limited process, bounded by their header, or refused."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from conformance.handmade import SHORT, page, tiff_of
from cytoray_analysis.errors import ImageTooLargeError, UnreadableImageError
from cytoray_analysis.images import read_image

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
    with pytest.raises(ImageTooLargeError, match=r"WEBP.*cannot be bounded"):
        read_image(path, alone=True)


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
