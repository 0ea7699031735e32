"""One inference path: the same answer whole, in tiles, in batches and streamed to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cytoray_analysis.bundle import Bundle, ModelInput, write_bundle
from cytoray_analysis.devices import Precision
from cytoray_analysis.errors import AxesError, CytorayError, ImageError, RequestError
from cytoray_analysis.images import IntensityScaling, image_from_array, read_image, read_labels
from cytoray_analysis.images.choose import choose
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_analysis.selection import Selection
from random_segmenter import random_segmenter


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    expected = ModelInput(channels=("red", "green", "blue"), grey_as_rgb=True, scaling=IntensityScaling())
    return random_segmenter(tmp_path_factory.mktemp("models"), expected, channels=3)


def picture(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.uint16]:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 4000, tuple(side // 8 + 2 for side in shape))
    fine: NDArray[np.uint16] = coarse.repeat(8, 0).repeat(8, 1)[: shape[0], : shape[1]].astype(np.uint16)
    return fine + random.integers(0, 300, shape).astype(np.uint16)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_answer_does_not_depend_on_the_tile_size(bundle: Bundle, precision: Precision) -> None:
    image = image_from_array(picture((263, 341)), "YX")
    # One thread: how many share a convolution decides how it is summed, and random weights magnify that a thousandfold.
    whole = Predictor(bundle, precision=precision, threads=1).predict(image)
    assert whole.objects > 20
    for budget in (2**23, 2**21):
        tiled = Predictor(bundle, precision=precision, memory_budget=budget, threads=1).predict(image)
        # In fp32, tiles of another size may be summed up in another order, and a pixel be rounded over an edge.
        assert np.count_nonzero(tiled.answer != whole.answer) <= (0 if precision == "bf16" else 4)
        assert tiled.objects == whole.objects


def test_an_image_streamed_to_disk_gets_the_same_answer(bundle: Bundle, tmp_path: Path) -> None:
    image = image_from_array(picture((200, 260)), "YX", pixel_size={"Y": 0.5, "X": 0.5})
    whole = Predictor(bundle).predict(image)
    steps: list[tuple[int, int]] = []
    stored = Predictor(bundle, memory_budget=2**21).predict_to_zarr(
        image, tmp_path / "labels.ome.zarr", progress=lambda done, total: steps.append((done, total))
    )
    assert np.array_equal(read_labels(tmp_path / "labels.ome.zarr"), whole.answer)
    assert stored.objects == whole.objects
    assert len(steps) > 1
    assert steps[-1][0] == steps[-1][1]


def test_a_batch_answers_each_image_as_alone_and_one_bad_image_spoils_only_its_own(bundle: Bundle) -> None:
    predictor = Predictor(bundle)
    pictures = [picture((64, 80), seed) for seed in range(3)]
    images = [image_from_array(pixels, "YX") for pixels in pictures]
    images.insert(1, image_from_array(np.zeros((2, 64, 80), np.uint8), "CYX", source="two.tif"))
    images.append(image_from_array(picture((50, 33)), "YX"))
    answers = predictor.predict_batch(images)
    assert isinstance(answers[1], AxesError)
    for image, answer in zip(images, answers, strict=True):
        if not isinstance(answer, CytorayError):
            assert np.array_equal(answer.answer, predictor.predict(image).answer)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (7, 5), (16, 16), (17, 31)])
def test_any_size_is_answered_in_its_own_shape(bundle: Bundle, shape: tuple[int, int]) -> None:
    assert Predictor(bundle).predict(image_from_array(np.ones(shape, np.uint8), "YX")).answer.shape == shape


def test_grey_and_colour_are_both_taken_where_the_model_says_so(bundle: Bundle) -> None:
    grey = picture((64, 64))
    predictor = Predictor(bundle)
    colour = np.stack((grey, grey, grey))
    one = predictor.predict(image_from_array(grey, "YX"))
    assert np.array_equal(one.answer, predictor.predict(image_from_array(colour, "CYX")).answer)


def with_input(bundle: Bundle, folder: Path, **changes: Any) -> Bundle:
    spec = bundle.spec.model_copy(update={"input": bundle.spec.input.model_copy(update=changes)})
    pixels = np.zeros((3, 32, 32), np.float32)
    return write_bundle(folder, spec, bundle.network().state_dict(), test_input=pixels, card="")


def test_objects_of_a_given_diameter_are_seen_as_wide_as_those_of_the_training(bundle: Bundle, tmp_path: Path) -> None:
    sized = with_input(bundle, tmp_path / "sized", pixel_size={"Y": 1.0, "X": 1.0})
    wide = with_input(bundle, tmp_path / "wide", diameter=12.0)
    image = image_from_array(picture((200, 120)), "YX", pixel_size={"Y": 0.5, "X": 0.5})
    by_size = Predictor(sized).predict(image)
    by_diameter = Predictor(wide).predict(choose(image, Selection(diameter=24)))
    assert by_size.objects > 5
    np.testing.assert_array_equal(by_diameter.answer, by_size.answer)
    unchanged = Predictor(wide).predict(choose(image, Selection(diameter=12)))
    np.testing.assert_array_equal(unchanged.answer, Predictor(bundle).predict(image).answer)


def test_a_resampled_image_in_blocks_gets_the_answer_of_the_whole(bundle: Bundle, tmp_path: Path) -> None:
    wide = with_input(bundle, tmp_path / "wide", diameter=12.0)
    image = choose(image_from_array(picture((300, 260)), "YX"), Selection(diameter=18))
    whole = Predictor(wide, threads=1).predict(image)
    parts = Predictor(wide, threads=1, memory_budget=2**21).predict(image)
    assert whole.answer.shape == (300, 260)
    assert whole.objects > 20
    assert np.count_nonzero(parts.answer != whole.answer) <= 4
    assert parts.objects == whole.objects


def test_a_diameter_can_be_measured(bundle: Bundle, tmp_path: Path) -> None:
    wide = Predictor(with_input(bundle, tmp_path / "wide", diameter=12.0))
    image = image_from_array(picture((200, 120)), "YX")
    answer, batch = wide.predict(choose(image, Selection(diameter="auto"))), [choose(image, Selection(diameter="AUTO"))]
    assert answer.answer.shape == (200, 120)
    assert [one.code for one in answer.warnings] == ["diameter-measured"]
    together = wide.predict_batch(batch)[0]
    assert isinstance(together, Prediction)
    np.testing.assert_array_equal(together.answer, answer.answer)


@pytest.mark.parametrize(("diameter", "said"), [("40", "the model does not state"), ("auto", "cannot be measured")])
def test_a_diameter_needs_a_model_that_states_one(bundle: Bundle, diameter: str, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        Predictor(bundle).predict(choose(image_from_array(picture((64, 64)), "YX"), Selection(diameter=diameter)))


def test_a_diameter_far_from_that_of_the_model_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    wide = Predictor(with_input(bundle, tmp_path / "wide", diameter=12.0))
    with pytest.raises(ImageError, match=r"resampled 16\.7-fold to the 12 pixels"):
        wide.predict(choose(image_from_array(picture((64, 64)), "YX"), Selection(diameter=200)))


def test_an_image_is_brought_to_the_pixel_size_of_the_model(bundle: Bundle, tmp_path: Path) -> None:
    sized = with_input(bundle, tmp_path / "sized", pixel_size={"Y": 1.0, "X": 1.0})
    fine = image_from_array(picture((200, 120)), "YX", pixel_size={"Y": 0.5, "X": 0.5})
    answer = Predictor(sized).predict(fine)
    assert answer.answer.shape == (200, 120)
    assert not np.array_equal(answer.answer, Predictor(bundle).predict(fine).answer)
    Predictor(sized, memory_budget=2**20).predict_to_zarr(fine, tmp_path / "labels.ome.zarr")
    np.testing.assert_array_equal(read_image(tmp_path / "labels.ome.zarr").select("YX").read(), answer.answer)


@pytest.mark.parametrize(
    ("pixels", "axes", "said"),
    [
        (np.zeros((2, 8, 8), np.uint8), "CYX", "expected 3 .* channels, got 2"),
        (np.zeros((4, 8, 8), np.uint8), "ZYX", "Z=4"),
        (np.zeros((2, 3, 8, 8), np.uint8), "TCYX", "T=2"),
        (np.full((8, 8), np.nan, np.float32), "YX", "NaN"),
        (np.zeros((8,), np.uint8), "X", "expected axes as letters"),
    ],
)
def test_an_image_that_does_not_fit_is_refused_in_one_sentence(
    bundle: Bundle, pixels: NDArray[np.generic], axes: str, said: str
) -> None:
    with pytest.raises(ImageError, match=said):
        Predictor(bundle).predict(image_from_array(pixels, axes))


def test_answers_say_which_model_gave_them_and_how_long_it_took(bundle: Bundle) -> None:
    answer = Predictor(bundle, version="3").predict(image_from_array(picture((64, 64)), "YX"))
    assert isinstance(answer, Prediction)
    assert (answer.model.name, answer.model.version, answer.model.digest) == ("random", "3", bundle.digest)
    assert set(answer.seconds) == {"read", "network", "decode"}
    assert all(seconds >= 0 for seconds in answer.seconds.values())


def test_a_device_that_is_not_there_is_refused(bundle: Bundle) -> None:
    with pytest.raises(RequestError, match="cuda:7"):
        Predictor(bundle, device="cuda:7")
