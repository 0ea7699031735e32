"""An image in blocks that are answered one by one gets the answer of the whole image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from block_answers import joined
from cytoray_analysis.bundle import Bundle, write_bundle
from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.inference.blocks import block_core, chunk_of
from cytoray_analysis.numbering import all_objects, image_numbers, own_numbers
from cytoray_analysis.predictor import Predictor
from serving_samples import write_cell_bundle, write_small_bundle, write_stain_bundle


def easily_torn(folder: Path) -> Bundle:
    """Write a segmentation bundle of random weights whose output is many small objects."""
    small = Bundle.load(write_small_bundle(folder / "small"))
    spec = small.spec.model_copy(update={"decode": {"foreground": -1.5, "reach": 12.0, "votes": 3.0, "smallest": 4.0}})
    inputs = np.zeros((1, 32, 32), np.float32)
    return write_bundle(folder / "torn", spec, small.network().state_dict(), test_input=inputs, card="# random\n")


def picture(shape: tuple[int, ...]) -> NDArray[np.uint16]:
    random = np.random.default_rng(3)
    coarse = random.integers(0, 4000, tuple(side // 8 + 2 for side in shape))
    fine: NDArray[np.uint16] = coarse.repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]].astype(np.uint16)
    return fine + random.integers(0, 300, shape).astype(np.uint16)


@pytest.mark.slow
def test_blocks_by_several_predictors_give_the_objects_of_the_whole_image(tmp_path: Path) -> None:
    bundle = easily_torn(tmp_path)
    image = image_from_array(picture((300, 420)), "YX", pixel_size={"Y": 0.5, "X": 0.5})
    whole = Predictor(bundle, precision="fp32", threads=1).predict(image)
    core = (128, 160)
    answers = {}
    for number in range(2):  # each as a process of its own would, in any order
        predictor = Predictor(bundle, precision="fp32", threads=1)
        blocks = predictor.blocks(image, core)
        assert (blocks.shape, blocks.channels, blocks.numbered) == ((300, 420), (), True)
        for index in reversed(range(number, len(blocks.tiles), 2)):
            answers[index] = predictor.predict_block(blocks, index)
    parts = [answers[index] for index in range(len(blocks.tiles))]
    found, confidence = joined(blocks, parts)
    assert whole.objects > 20
    assert len(confidence) - 1 == whole.objects
    assert np.count_nonzero(found != whole.answer) <= 4
    assert whole.confidence is not None
    assert np.abs(confidence - whole.confidence).max() < 1e-3


def test_blocks_of_a_predicted_stain_are_its_parts(tmp_path: Path) -> None:
    predictor = Predictor(Bundle.load(write_stain_bundle(tmp_path / "stain")), precision="fp32")
    image = image_from_array(picture((150, 200)), "YX")
    whole = predictor.predict(image)
    blocks = predictor.blocks(image, (64, 64))
    assert (blocks.channels, blocks.dtype.name, blocks.numbered) == ((2,), "float32", False)
    found = np.zeros((2, *blocks.shape), np.float32)
    for index, tile in enumerate(blocks.tiles):
        part = predictor.predict_block(blocks, index)
        assert part.identities is None
        found[(slice(None), *tile.core)] = part.values
    np.testing.assert_allclose(found, whole.answer, rtol=1e-4, atol=1e-2)
    written = blocks.create(tmp_path / "stain.ome.zarr")
    assert written.shape == (2, 150, 200)


def test_a_model_of_cells_has_no_blocks(tmp_path: Path) -> None:
    predictor = Predictor(Bundle.load(write_cell_bundle(tmp_path / "cells")))
    with pytest.raises(RequestError, match="answers for every cell"):
        predictor.blocks(image_from_array(picture((64, 64)), "YX"))


@given(
    st.lists(st.integers(1, 9000), min_size=2, max_size=3),
    st.integers(0, 300),
    st.sampled_from([1, 4, 16, 48]),
    st.integers(2**12, 2**26),
)
def test_no_two_blocks_write_one_chunk(sides: list[int], margin: int, cell: int, pixels: int) -> None:
    shape, stride = tuple(sides), (cell,) * len(sides)
    core = block_core(shape, (margin,) * len(shape), stride, pixels)
    for side, size, length, chunk in zip(shape, core, stride, chunk_of(len(shape)), strict=True):
        assert size == side or (size % chunk == 0 and size % length == 0)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.integers(1, 5))
def test_numbers_of_the_image_do_not_depend_on_the_blocks(seed: int, objects: int, parts: int) -> None:
    random = np.random.default_rng(seed)
    names = np.sort(random.choice(10**12, size=objects, replace=False)) + 1
    identities = np.concatenate(([0], names)).astype(np.int64)
    values = random.integers(0, objects + 1, (parts, 20))
    own = [own_numbers(part, identities, identities.astype(np.float32)) for part in values]
    for part, (renamed, _, _) in zip(values, own, strict=True):
        assert renamed.max(initial=0) == len(set(part.tolist()) - {0})
    found, confidence = all_objects([one[1] for one in own], [one[2] for one in own if one[2] is not None])
    shown = sorted(set(values.ravel().tolist()) - {0})
    np.testing.assert_array_equal(found[1:], identities[shown])
    np.testing.assert_array_equal(confidence[1:], identities[shown].astype(np.float32))
    for part, one in zip(values, own, strict=True):
        np.testing.assert_array_equal(identities[part], found[image_numbers(one[0], one[1], found)])
