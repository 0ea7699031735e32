"""An image that is resampled region by region is the image that is resampled whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import resize

from block_answers import joined
from cytoray_analysis.bundle import Bundle, ModelInput
from cytoray_analysis.errors import ImageError
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.images.resample import resample_image_to
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.resampled_pixels import ResampledPixels
from random_segmenter import random_segmenter
from serving_samples import noise, write_stain_bundle

SIDES = st.tuples(st.integers(3, 40), st.integers(3, 60))


@given(SIDES, SIDES, st.sampled_from(["uint8", "uint16", "float32", "float64"]), st.integers(0, 99), st.data())
def test_a_region_has_the_values_of_the_whole(
    own: tuple[int, int], size: tuple[int, int], dtype: str, seed: int, data: st.DataObject
) -> None:
    pixels = (np.random.default_rng(seed).random((2, *own)) * 200).astype(dtype)
    whole = resample_image_to(pixels, size)
    lazy = ResampledPixels(image_from_array(pixels, "CYX"), size)
    assert (lazy.shape, lazy.dtype) == (whole.shape, whole.dtype)
    starts = [data.draw(st.integers(0, length - 1)) for length in size]
    stops = [data.draw(st.integers(start + 1, length)) for start, length in zip(starts, size, strict=True)]
    region = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    np.testing.assert_array_equal(lazy[(slice(1, 2), *region)], whole[(slice(1, 2), *region)])
    np.testing.assert_array_equal(lazy[(slice(None),) * 3], whole)


@given(SIDES, SIDES, st.integers(0, 99))
def test_intensities_are_those_of_scikit_image(own: tuple[int, int], size: tuple[int, int], seed: int) -> None:
    pixels = np.random.default_rng(seed).random((1, *own), np.float32)
    smaller = any(after < before for before, after in zip(own, size, strict=True))
    expected = resize(pixels[0], size, order=1, mode="edge", anti_aliasing=smaller)  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(resample_image_to(pixels, size)[0], expected, atol=1e-5)


def test_float64_keeps_its_precision() -> None:
    pixels = np.float64(1e9) + np.arange(8.0).reshape(1, 2, 4) / 16
    resampled = resample_image_to(pixels, (2, 8))
    assert resampled.dtype == np.float64
    np.testing.assert_allclose(np.diff(resampled[0, 0, 1:-1]), 1 / 32, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("diameter", [6.0, 25.0])
def test_an_image_larger_than_memory_gets_the_objects_of_the_whole(tmp_path: Path, diameter: float) -> None:
    bundle = random_segmenter(tmp_path, ModelInput(axes="CYX", diameter=10.0), channels=1)
    image = replace(image_from_array(noise(300, 420), "YX", pixel_size={"Y": 0.5, "X": 0.5}), diameter=diameter)
    whole = Predictor(bundle, precision="fp32").predict(image)
    assert whole.objects > 20
    small = Predictor(bundle, precision="fp32", memory_budget=2**20)
    stored = small.predict_to_zarr(image, tmp_path / "labels.ome.zarr")
    found = read_image(tmp_path / "labels.ome.zarr")
    np.testing.assert_array_equal(found.select("YX").read(), whole.answer)
    assert (stored.objects, found.pixel_size) == (whole.objects, {"Y": 0.5, "X": 0.5})

    blocks = small.blocks(image, (128, 160))
    assert blocks.shape == (300, 420)
    assert len(blocks.tiles) > 4
    parts = [small.predict_block(blocks, index) for index in range(len(blocks.tiles))]
    np.testing.assert_array_equal(joined(blocks, parts)[0], whole.answer)


def test_a_predicted_stain_that_large_is_refused(tmp_path: Path) -> None:
    bundle = Bundle.load(write_stain_bundle(tmp_path / "stain"))
    sized = bundle.spec.input.model_copy(update={"pixel_size": {"Y": 1.0, "X": 1.0}})
    spec = bundle.spec.model_copy(update={"input": sized})
    predictor = Predictor(type(bundle)(bundle.folder, spec, bundle.digest))
    image = image_from_array(noise(64, 96), "YX", pixel_size={"Y": 0.5, "X": 0.5})
    with pytest.raises(ImageError, match="too large to be resampled in memory"):
        predictor.predict_to_zarr(image, tmp_path / "stain.ome.zarr")
    assert not (tmp_path / "stain.ome.zarr").exists()
