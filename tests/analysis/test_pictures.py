import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as PillowImage
from skimage.segmentation import find_boundaries

from cytoray_analysis.errors import AxesError
from cytoray_analysis.pictures import (
    MATCHED,
    MISSED,
    SPURIOUS,
    SheetEntry,
    comparison,
    display_rgb,
    figure_png,
    matched_objects,
    new_figure,
    outlines,
    overlay,
    png_bytes,
    set_title,
    sheet,
    training_curves,
)

LABELS = hnp.arrays(
    np.int32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12), elements=st.integers(-1, 4)
)


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(PillowImage.open(io.BytesIO(png)))


@given(LABELS)
def test_outlines_are_the_inner_boundaries(labels: np.ndarray) -> None:
    positive = np.maximum(labels, 0)
    expected = find_boundaries(  # type: ignore[no-untyped-call]
        positive, connectivity=1, mode="inner", background=0
    ) & (positive > 0)
    np.testing.assert_array_equal(outlines(positive), expected)


def test_touching_objects_are_outlined_on_both_sides() -> None:
    labels = np.array([[1, 1, 2, 2]] * 3)
    np.testing.assert_array_equal(outlines(labels)[1], [False, True, True, False])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_contrast_is_stretched_to_the_whole_range(dtype: type) -> None:
    ramp: np.ndarray = np.tile(np.linspace(10, 30, 64), (64, 1)).astype(dtype)
    shown = display_rgb(ramp)
    assert shown.shape == (64, 64, 3)
    assert shown.dtype == np.uint8
    assert shown.min() == 0
    assert shown.max() == 255


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 9])
def test_any_number_of_channels_becomes_rgb(channels: int) -> None:
    sample = np.random.default_rng(0).integers(0, 4000, (channels, 9, 7)).astype(np.uint16)
    assert display_rgb(sample).shape == (9, 7, 3)


def test_rgb_keeps_its_hue() -> None:
    sample = np.zeros((3, 8, 8), dtype=np.uint8)
    sample[0] = 200
    sample[1] = np.arange(8) * 10
    shown = display_rgb(sample, low=0, high=100)
    assert (shown[..., 0] == 255).all()
    assert shown[0, 7, 1] == int(255 * 70 / 200)
    assert (shown[..., 2] == 0).all()


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_flat_and_unusable_images_are_black_not_noise(value: float) -> None:
    with np.errstate(invalid="ignore"):
        assert not display_rgb(np.full((4, 4), value, dtype=np.float32)).any()


def test_a_volume_is_refused() -> None:
    with pytest.raises(AxesError, match="4 axes"):
        display_rgb(np.zeros((1, 2, 3, 4)))


def test_overlay_touches_only_the_outlines() -> None:
    labels = np.zeros((10, 10), dtype=np.int32)
    labels[2:8, 2:8] = 5
    picture = np.full((10, 10, 3), 90, dtype=np.uint8)
    drawn = overlay(picture, labels, colour=(1, 2, 3))
    edge = outlines(labels)
    assert (drawn[edge] == (1, 2, 3)).all()
    assert (drawn[~edge] == 90).all()
    assert (picture == 90).all()


def test_neighbouring_objects_get_different_colours() -> None:
    labels = np.arange(1, 65).reshape(8, 8)
    drawn = overlay(np.zeros((8, 8, 3), dtype=np.uint8), labels).reshape(-1, 3).astype(int)
    steps = np.abs(np.diff(drawn, axis=0)).sum(axis=1)
    assert steps.min() > 60
    assert drawn.max(axis=1).min() > 150


def test_overlay_refuses_labels_of_another_size() -> None:
    with pytest.raises(AxesError, match="shape"):
        overlay(np.zeros((4, 4, 3), dtype=np.uint8), np.zeros((4, 5), dtype=np.int32))


def test_comparison_colours_matched_missed_and_spurious_objects() -> None:
    truth = np.zeros((12, 20), dtype=np.int32)
    truth[1:5, 1:5] = 1
    truth[7:11, 1:5] = 2
    prediction = np.zeros_like(truth)
    prediction[1:5, 1:6] = 9
    prediction[1:5, 12:16] = 3
    shown = comparison(np.zeros((12, 20, 3), dtype=np.uint8), truth, prediction, gap=2)
    assert shown.shape == (12, 64, 3)
    middle, right = shown[:, 22:42], shown[:, 44:]
    assert tuple(middle[1, 1]) == MATCHED
    assert tuple(middle[7, 1]) == MISSED
    assert tuple(right[1, 1]) == MATCHED
    assert tuple(right[1, 12]) == SPURIOUS


@pytest.mark.slow
@given(LABELS)
def test_every_object_matches_itself(labels: np.ndarray) -> None:
    truth, prediction = matched_objects(labels, labels)
    np.testing.assert_array_equal(truth, prediction)
    np.testing.assert_array_equal(np.sort(truth), np.unique(labels[labels > 0]))


def test_png_holds_the_very_pixels() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(png_bytes(picture)), picture)


@pytest.mark.slow
def test_training_curves_have_a_panel_for_each_kind_of_number() -> None:
    losses = [{"epoch": float(n), "train/loss": 1 / (n + 1)} for n in range(3)]
    everything = [{**epoch, "val/ap50": 0.5, "lr": 1e-3, "images_per_second": 20.0} for epoch in losses]
    one, three = decoded(training_curves(losses)), decoded(training_curves(everything))
    assert three.shape[1] == 3 * one.shape[1]


@pytest.mark.slow
@pytest.mark.parametrize("history", [[], [{}], [{"loss": float("nan")}], [{"loss": 1.0}, {"ap50": 0.1}]])
def test_training_curves_stand_missing_numbers(history: list[dict[str, float]]) -> None:
    assert training_curves(history).startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_sheet_grows_with_its_rows() -> None:
    entry = SheetEntry("image.tif  ap50 0.50", np.zeros((30, 90, 3), dtype=np.uint8))
    short, tall = decoded(sheet([entry], title="Worst")), decoded(sheet([entry] * 3, title="Worst"))
    assert tall.shape[0] > 2 * short.shape[0]
    assert sheet([]).startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize(("columns", "width"), [(1, 7.0), (2, 12.0), (4, 12.0), (5, 15.0)])
def test_no_title_is_cut_off_at_the_border(columns: int, width: float) -> None:
    figure = new_figure(width=width, height=4.0)
    for axes in figure.subplots(1, columns, squeeze=False)[0]:
        text = "worst: O3_delta_MMMM_pos15.tif   pearson 0.918 over 21 images that count, at most 0.0067 may: input"
        set_title(axes, text, columns=columns)
    figure_png(figure)
    for axes in figure.axes:
        box = axes.title.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
