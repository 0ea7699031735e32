"""What a network is given: channels by name, pixel sizes within reason, and a word on what was assumed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.errors import AxesError, ImageError, ImageTooLargeError
from cytoray_analysis.images import Image, IntensityScaling, IntensityStatistics, fit_statistics, image_from_array
from cytoray_analysis.model_input import match_channels, prepare

COLOURS = ("red", "green", "blue")


def image_of(names: tuple[str, ...] | None, count: int = 3) -> Image:
    """Return an image whose channels hold their own numbers."""
    count = len(names) if names else count
    pixels = np.zeros((count, 40, 40), np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None]
    return image_from_array(pixels, "CYX", channels=names, source="cells.tif")


def order_of(image: Image) -> list[int]:
    return [int(value) for value in image.read()[:, 0, 0]]


class TestChannels:
    @given(st.permutations(["dna", "actin", "tubulin", "lamin"]), st.booleans())
    def test_names_of_the_model_are_put_in_its_order(self, names: list[str], loud: bool) -> None:
        wanted = ("dna", "actin", "tubulin", "lamin")
        image = image_of(tuple(name.upper() if loud else name for name in names))
        found, copies, warnings = match_channels(image, ModelInput(channels=wanted))
        assert order_of(found) == [names.index(name) for name in wanted]
        assert (copies, warnings) == (1, ())

    def test_a_stack_of_planes_as_channels_is_put_in_order_too(self) -> None:
        pixels = np.arange(6, dtype=np.uint8).reshape(2, 3, 1, 1) + np.zeros((2, 3, 40, 40), np.uint8)
        image = image_from_array(pixels, "CZYX", channels=["actin", "dna"])
        found, _, _ = match_channels(image, ModelInput(channels=("dna", "actin"), planes=3))
        assert order_of(found) == [3, 4, 5, 0, 1, 2]
        assert found.channels[0] == "dna z0"

    @pytest.mark.parametrize(
        ("names", "wanted", "warned"),
        [
            (("dna", "actin"), ("dna", "actin"), False),
            (("dna", "tubulin"), ("dna", "actin"), True),
            (("DAPI", "phalloidin"), ("dna", "actin"), True),
            (None, ("dna", "actin", "tubulin"), True),
            (("dna", "channel 1"), ("dna", "actin"), True),
            (("DAPI", "GFP"), ("channel 0", "channel 1"), False),
            (None, ("channel 0", "channel 1", "channel 2"), False),
            (("grey",), ("nuclei",), False),
            (("DAPI",), ("grey",), False),
            (("DAPI",), ("phase",), True),
            (COLOURS, ("dna", "actin", "tubulin"), True),
            (COLOURS, COLOURS, False),
            (None, COLOURS, True),
        ],
    )
    def test_channels_by_position_are_reported_where_that_may_be_wrong(
        self, names: tuple[str, ...] | None, wanted: tuple[str, ...], warned: bool
    ) -> None:
        found, _, warnings = match_channels(image_of(names), ModelInput(channels=wanted))
        assert order_of(found) == list(range(len(wanted)))
        assert [warning.code for warning in warnings] == ["channels-by-position"] * warned

    @pytest.mark.parametrize(
        ("names", "wanted"),
        [
            (("actin", "tubulin"), ("dna", "actin")),
            (("DNA", "actin", "dna"), ("actin", "dna", "lamin")),
            (("DAPI", "GFP", "Cy5"), COLOURS),
            (("green", "red", "far red"), COLOURS),
        ],
    )
    def test_names_that_contradict_the_model_are_refused_by_name(
        self, names: tuple[str, ...], wanted: tuple[str, ...]
    ) -> None:
        with pytest.raises(AxesError, match=f"cells.tif.*{names[0]}") as caught:
            match_channels(image_of(names), ModelInput(channels=wanted))
        assert "--channel" in str(caught.value.hint)

    @pytest.mark.parametrize("names", [("Blue", "GREEN", "Red"), ("b", "g", "r")])
    def test_colours_are_colours_in_any_order_and_by_initials(self, names: tuple[str, ...]) -> None:
        found, _, warnings = match_channels(image_of(names), ModelInput(channels=COLOURS))
        assert (order_of(found), warnings) == ([2, 1, 0], ())

    def test_grey_is_repeated_for_a_model_of_colours_that_takes_it(self) -> None:
        model = ModelInput(channels=COLOURS, grey_as_rgb=True)
        assert match_channels(image_of(("DAPI",)), model)[1:] == (3, ())

    @pytest.mark.parametrize(
        ("axes", "model", "words"),
        [
            ("TYX", "CZYX", "--input-axes ZYX"),
            ("ZYX", "CYX", "--plane"),
            ("TYX", "CYX", "--frame"),
            ("YX", "CZYX", "Z"),
        ],
    )
    def test_other_axes_are_refused_with_the_options_that_help(self, axes: str, model: str, words: str) -> None:
        image = image_from_array(np.zeros((5, 40, 40)[-len(axes) :], np.uint8), axes)
        with pytest.raises(AxesError, match=axes) as caught:
            match_channels(image, ModelInput(axes=model))
        assert words in str(caught.value.hint)


def sized(size: dict[str, float] | None, axes: str = "YX", side: int = 40) -> Image:
    pixels = np.random.default_rng(0).integers(0, 9, (side,) * len(axes)).astype(np.uint8)
    pixels[..., 10:20, 10:20] += 200
    return image_from_array(pixels, axes, pixel_size=size, source="cells.tif")


class TestPixelSize:
    model = ModelInput(pixel_size={"Y": 0.5, "X": 0.5})

    @pytest.mark.parametrize(("size", "side"), [(0.5, 40), (0.52, 40), (1.0, 80), (0.25, 20), (4.0, 320), (0.0625, 5)])
    def test_images_are_resampled_up_to_8_fold(self, size: float, side: int) -> None:
        source = prepare(sized({"Y": size, "X": size}), self.model)
        assert source.shape == (side, side)
        assert (source.original_shape, source.warnings) == ((40, 40), ())

    @pytest.mark.parametrize("sizes", [{"Y": 4.1, "X": 0.5}, {"Y": 0.5, "X": 352.78}, {"Y": 0.06, "X": 0.06}])
    def test_a_change_of_more_than_8_fold_is_refused_with_both_sizes(self, sizes: dict[str, float]) -> None:
        with pytest.raises(ImageError, match=f"{sizes['X']:g} µm.*0.5 x 0.5 µm.*-fold") as caught:
            prepare(sized(sizes), self.model)
        assert "--pixel-size none" in str(caught.value.hint)

    @pytest.mark.parametrize("in_memory", [True, False])
    def test_an_unknown_size_is_reported(self, in_memory: bool) -> None:
        source = prepare(sized(None), self.model, in_memory=in_memory)
        assert [warning.code for warning in source.warnings] == ["pixel-size-unknown"]
        assert "0.5 x 0.5 µm" in source.warnings[0].sentence
        assert prepare(sized(None), ModelInput()).warnings == ()

    def test_an_unknown_distance_of_planes_leaves_the_planes(self) -> None:
        model = ModelInput(axes="CZYX", pixel_size={"Z": 2.0, "Y": 0.5, "X": 0.5})
        source = prepare(sized({"Y": 1.0, "X": 1.0}, "ZYX"), model)
        assert source.shape == (40, 80, 80)
        assert [warning.code for warning in source.warnings] == ["pixel-size-unknown"]

    def test_a_small_file_cannot_grow_beyond_memory(self) -> None:
        data = np.broadcast_to(np.zeros(1, np.uint8), (400, 400, 400))
        image = image_from_array(data, "ZYX", pixel_size={"Z": 4.0, "Y": 4.0, "X": 4.0}, source="cells.tif")
        model = ModelInput(axes="CZYX", pixel_size={"Z": 0.5, "Y": 0.5, "X": 0.5})
        with pytest.raises(ImageTooLargeError, match="3200 × 3200 × 3200"):
            prepare(image, model)

    def test_enlarged_noise_is_still_noise(self) -> None:
        noise = np.random.default_rng(0).normal(100, 3, (80, 80)).astype(np.uint16)
        source = prepare(image_from_array(noise, "YX", pixel_size={"Y": 2.0, "X": 2.0}), self.model)
        assert not source.read((slice(None), slice(None))).any()
        assert [warning.code for warning in source.warnings] == ["no-contrast"]

    def test_large_integers_survive_being_resampled(self) -> None:
        image = sized({"Y": 1.0, "X": 1.0})
        large = image_from_array(image.read().astype(np.uint32) + (2**32 - 300), "YX", pixel_size=image.pixel_size)
        whole = (slice(None), slice(None))
        np.testing.assert_allclose(
            prepare(large, self.model).read(whole), prepare(image, self.model).read(whole), atol=1e-4
        )


class TestTrainingSetsScale:
    statistics = IntensityStatistics(low=(0.0,), high=(200.0,), mean=(20.0,), std=(40.0,), smallest_range=(50.0,))

    @pytest.mark.parametrize("method", ["percentile", "zscore"])
    @pytest.mark.parametrize(("factor", "warned"), [(1, False), (3, False), (0.4, False), (257, True), (1 / 256, True)])
    def test_a_range_far_from_the_training_is_reported(self, method: Any, factor: float, warned: bool) -> None:
        model = ModelInput(scaling=IntensityScaling(method=method, scope="dataset"), statistics=self.statistics)
        image = image_from_array(sized(None).read().astype(np.float32) * factor, "YX")
        codes = [warning.code for warning in prepare(image, model).warnings]
        assert codes == ["intensity-range"] * warned

    @pytest.mark.parametrize("method", ["percentile", "zscore"])
    def test_an_image_like_those_of_training_sets_of_unlike_brightness_is_not_reported(self, method: Any) -> None:
        scaling, one = IntensityScaling(method=method, scope="dataset"), sized(None).read()[None].astype(np.float32)
        statistics = fit_statistics([one + 10 * index * one.std() for index in range(5)], scaling)
        model = ModelInput(scaling=scaling, statistics=statistics)
        assert prepare(image_from_array(one[0], "YX"), model).warnings == ()
        far = prepare(image_from_array(one[0] * 257, "YX"), model).warnings
        assert [warning.code for warning in far] == ["intensity-range"]

    def test_a_constant_image_is_reported(self) -> None:
        image = image_from_array(np.full((40, 40), 7, np.uint8), "YX")
        model = ModelInput(scaling=IntensityScaling(scope="dataset"), statistics=self.statistics)
        assert [warning.code for warning in prepare(image, model).warnings] == ["intensity-range"]
        assert [warning.code for warning in prepare(image, ModelInput()).warnings] == ["no-contrast"]

    def test_statistics_that_change_nothing_have_no_range(self) -> None:
        model = ModelInput(scaling=IntensityScaling(scope="dataset"), statistics=IntensityStatistics.identity(1))
        source = prepare(sized(None), model)
        assert source.warnings == ()
        assert np.array_equal(source.read((slice(None), slice(None)))[0], sized(None).read())
