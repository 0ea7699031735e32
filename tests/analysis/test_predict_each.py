"""Every plane or frame by itself: one stack, numbered through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.answer_warnings import AnswerWarning
from cytoray_analysis.bundle import Bundle, ModelInput
from cytoray_analysis.cells import cells_from_boxes
from cytoray_analysis.each import predict_each
from cytoray_analysis.errors import AxesError, RequestError
from cytoray_analysis.images import Image, image_from_array
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.selection import Selection
from random_segmenter import random_segmenter
from serving_samples import noise, write_cell_bundle, write_linker_bundle, write_small_bundle, write_stain_bundle

PLANES = Selection(plane="each")
FRAMES = Selection(frame="each")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(random_segmenter(tmp_path_factory.mktemp("models"), ModelInput(axes="CYX"), channels=1))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(Bundle.load(write_cell_bundle(tmp_path_factory.mktemp("b") / "cells")), precision="fp32")


def image_of(axes: str, *shape: int) -> Image:
    return image_from_array(noise(*shape), axes, source="a.tif")


def test_a_stack_of_labels_is_that_of_its_planes_numbered_through(segmenter: Predictor) -> None:
    image = image_of("ZYX", 3, 64, 96)
    stack = predict_each(segmenter, image, PLANES)
    alone = [segmenter.predict(image_from_array(plane, "YX")) for plane in image.read()]
    assert stack.axes == "ZYX"
    assert stack.objects == sum(one.objects for one in alone) > 6
    assert sorted(set(stack.answer[stack.answer > 0])) == list(range(1, stack.objects + 1))
    before = 0
    for plane, one in zip(stack.answer, alone, strict=True):
        np.testing.assert_array_equal(np.where(plane > 0, plane - before, 0), one.answer)
        before += one.objects
    assert stack.confidence is not None
    np.testing.assert_array_equal(
        stack.confidence[1:], np.concatenate([one.confidence[1:] for one in alone if one.confidence is not None])
    )


def test_planes_of_frames_are_one_stack_of_four_axes(segmenter: Predictor) -> None:
    both = Selection(plane="each", frame="each")
    stack = predict_each(segmenter, image_of("TZYX", 2, 3, 32, 32), both)
    assert (stack.axes, stack.answer.shape) == ("TZYX", (2, 3, 32, 32))
    assert len(np.unique(stack.answer[stack.answer > 0])) == stack.objects


def test_an_image_without_the_axis_is_answered_as_it_is(segmenter: Predictor) -> None:
    image = image_of("YX", 48, 48)
    stack = predict_each(segmenter, image, PLANES)
    assert stack.axes == "YX"
    np.testing.assert_array_equal(stack.answer, segmenter.predict(image).answer)


def test_an_axis_that_is_left_names_its_option(segmenter: Predictor) -> None:
    with pytest.raises(AxesError) as caught:
        predict_each(segmenter, image_of("TZYX", 2, 2, 32, 32), PLANES)
    assert "--frame" in (caught.value.hint or "")


def test_a_stack_of_stains_has_its_channels_first(tmp_path: Path) -> None:
    stainer = Predictor(Bundle.load(write_stain_bundle(tmp_path / "stain")), precision="fp32")
    image = image_of("TYX", 2, 32, 48)
    stack = predict_each(stainer, image, FRAMES)
    assert (stack.axes, stack.answer.shape[1:]) == ("TYX", (2, 32, 48))
    for index in range(2):
        one = stainer.predict(image_from_array(image.read()[index], "YX"))
        np.testing.assert_allclose(stack.answer[:, index], one.answer, rtol=1e-5)


def test_cells_of_a_stack_lie_in_their_planes_and_have_numbers_of_their_own(classifier: Predictor) -> None:
    masks = np.zeros((2, 48, 48), np.int32)
    masks[0, 2:10, 2:10], masks[0, 20:30, 20:30], masks[1, 5:15, 5:15] = 1, 2, 1
    stack = predict_each(classifier, image_of("ZYX", 2, 48, 48), PLANES, masks)
    cells = stack.answer.cells
    assert cells.numbers.tolist() == [1, 2, 3]
    assert cells.boxes[:, :, 0].tolist() == [[0, 1], [0, 1], [1, 2]]
    assert cells.boxes[2].tolist() == [[1, 5, 5], [2, 15, 15]]
    assert [one.code for one in stack.warnings] == ["cells-renumbered"]
    masks[1] *= 7  # unique already: the numbers of the masks stay
    kept = predict_each(classifier, image_of("ZYX", 2, 48, 48), PLANES, masks)
    assert kept.answer.cells.numbers.tolist() == [1, 2, 7]
    assert kept.warnings == ()


def test_planes_of_one_cell_each_need_no_masks(classifier: Predictor) -> None:
    stack = predict_each(classifier, image_of("ZYX", 3, 48, 48), PLANES)
    assert stack.answer.cells.numbers.tolist() == [1, 2, 3]
    assert stack.warnings == ()


def test_objects_that_are_not_of_the_stack_are_refused(classifier: Predictor) -> None:
    image = image_of("ZYX", 3, 48, 48)
    for objects in (np.zeros((48, 48), np.int32), cells_from_boxes([((1, 1), (9, 9))])):
        with pytest.raises(RequestError, match="3 planes"):
            predict_each(classifier, image, PLANES, objects)


def test_models_that_take_all_planes_or_frames_refuse_each(tmp_path: Path) -> None:
    for folder, image, chosen, word in (
        (write_small_bundle(tmp_path / "solid", dimensions=3), image_of("ZYX", 8, 32, 32), PLANES, "--plane"),
        (write_stain_bundle(tmp_path / "folded", planes=3), image_of("ZYX", 3, 32, 32), PLANES, "--plane"),
        (write_linker_bundle(tmp_path / "linker"), image_of("TYX", 3, 32, 32), FRAMES, "--frame"),
        (write_linker_bundle(tmp_path / "planes"), image_of("TZYX", 3, 2, 32, 32), PLANES, "--plane"),
    ):
        with pytest.raises(RequestError) as caught:
            predict_each(Predictor(Bundle.load(folder)), image, chosen)
        assert word in (caught.value.hint or "")


def test_warnings_of_all_planes_come_once(segmenter: Predictor) -> None:
    warning = AnswerWarning("pixel-size-unknown", "nobody said")
    stack = predict_each(segmenter, image_of("ZYX", 2, 32, 32).warn(warning), PLANES)
    assert stack.warnings == (warning,)
