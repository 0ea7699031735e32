"""Objects of planes become objects of a volume where they overlap from one plane to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cytoray_analysis.bundle import Bundle, ModelInput
from cytoray_analysis.each import predict_each
from cytoray_analysis.errors import RequestError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.selection import Selection
from cytoray_analysis.stitching import stitch
from random_segmenter import random_segmenter
from serving_samples import noise, write_stain_bundle

STITCH = Selection(plane="stitch")


def of_planes(volume: NDArray[np.int32]) -> NDArray[np.int32]:
    """Number the objects of each plane by themselves, as a model of planes does."""
    planes, before = np.zeros_like(volume), 0
    for plane, own in zip(volume, planes, strict=True):
        numbers, index = np.unique(plane, return_inverse=True)
        of = np.arange(len(numbers)) + before + int(numbers[0] != 0)
        of[numbers == 0] = 0
        own[...] = of[index].reshape(plane.shape)
        before = max(before, int(own.max()))
    return planes


@st.composite
def balls(draw: st.DrawFn) -> NDArray[np.int32]:
    volume = np.zeros((12, 32, 32), np.int32)
    z, y, x = np.indices(volume.shape)
    for number, corner in enumerate(draw(st.sets(st.tuples(*[st.integers(0, 1)] * 3), min_size=1)), start=1):
        centre = [3 + 6 * corner[0], 8 + 16 * corner[1], 8 + 16 * corner[2]]
        radius = draw(st.floats(2.0, 7.0))
        inside = (2.3 * (z - centre[0])) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
        volume[inside & (volume == 0)] = number
    return volume


@pytest.mark.slow
@given(balls())
def test_balls_that_were_cut_into_planes_are_whole_again(volume: NDArray[np.int32]) -> None:
    planes = of_planes(volume)
    joined = stitch(planes)[planes]
    assert ((joined > 0) == (volume > 0)).all()
    pairs = np.unique(np.stack([joined.ravel(), volume.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(volume)), "an object fell apart, or two became one"
    assert sorted(set(joined.ravel()) - {0}) == list(range(1, joined.max() + 1))


def test_two_cells_over_one_are_not_joined_to_each_other() -> None:
    planes = np.zeros((2, 8, 20), np.int32)
    planes[0, 2:6, 1:19] = 1
    planes[1, 2:6, 1:13], planes[1, 2:6, 14:19] = 2, 3
    assert stitch(planes).tolist() == [0, 1, 1, 2]


def test_what_hardly_overlaps_is_another_object() -> None:
    planes = np.zeros((2, 8, 20), np.int32)
    planes[0, 2:6, 0:8], planes[1, 2:6, 5:15] = 1, 2
    assert stitch(planes).tolist() == [0, 1, 2]


def test_an_empty_volume_stays_empty() -> None:
    assert stitch(np.zeros((3, 4, 4), np.int32)).tolist() == [0]
    assert stitch(np.zeros((0, 4, 4), np.int32)).tolist() == [0]


def test_a_model_of_planes_answers_with_objects_of_the_volume(tmp_path: Path) -> None:
    segmenter = Predictor(random_segmenter(tmp_path, ModelInput(axes="CYX"), channels=1))
    plane = noise(64, 96)
    image = image_from_array(np.stack([plane, plane, noise(64, 96, seed=3)]), "ZYX")
    each = predict_each(segmenter, image, Selection(plane="each"))
    found = predict_each(segmenter, image, STITCH)
    np.testing.assert_array_equal(found.answer, stitch(each.answer)[each.answer])
    np.testing.assert_array_equal(found.answer[0], found.answer[1])
    assert found.objects == found.answer.max() < each.objects
    assert (found.axes, found.stacked, each.stacked) == ("ZYX", "", "Z")
    assert found.confidence is not None
    assert found.confidence.shape == (found.objects + 1,)
    alone = segmenter.predict(image_from_array(plane, "YX"))
    assert alone.confidence is not None
    ends = np.setdiff1d(found.answer[1], found.answer[2])
    ends = ends[ends > 0]
    np.testing.assert_allclose(found.confidence[ends], alone.confidence[ends], rtol=1e-5)


def test_frames_are_not_joined(tmp_path: Path) -> None:
    segmenter = Predictor(random_segmenter(tmp_path, ModelInput(axes="CYX"), channels=1))
    volume = np.stack([noise(48, 48)] * 3)
    found = predict_each(
        segmenter, image_from_array(np.stack([volume, volume]), "TZYX"), Selection(frame="each", plane="stitch")
    )
    assert (found.axes, found.stacked) == ("TZYX", "T")
    assert found.objects == 2 * found.answer[0].max() == found.answer.max()
    np.testing.assert_array_equal(found.answer[0] > 0, found.answer[1] > 0)
    assert not set(found.answer[0].ravel()) & set(found.answer[1].ravel()) - {0}


def test_answers_that_are_no_objects_are_not_joined(tmp_path: Path) -> None:
    stainer = Predictor(Bundle.load(write_stain_bundle(tmp_path / "stain")))
    with pytest.raises(RequestError, match="objects for plane=stitch") as caught:
        predict_each(stainer, image_from_array(noise(3, 32, 32), "ZYX"), STITCH)
    assert caught.value.field == "plane"
