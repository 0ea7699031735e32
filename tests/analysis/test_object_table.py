"""Every object is measured, in pixels and in micrometres."""

from __future__ import annotations

import time

import numpy as np
import pytest

from cytoray_analysis.errors import ImageError
from cytoray_analysis.object_table import measure_objects


def rectangle_and_disc() -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
    labels = np.zeros((60, 90), np.int32)
    labels[10:20, 5:45] = 2
    rows, columns = np.mgrid[:60, :90]
    labels[(rows - 40) ** 2 + (columns - 65) ** 2 <= 144] = 5
    return labels


def test_a_rectangle_and_a_disc_measure_what_they_are() -> None:
    table = measure_objects(rectangle_and_disc())
    assert table["label"].tolist() == [2, 5]
    assert table["area"][0] == 400
    assert (table["centroid_y"][0], table["centroid_x"][0]) == (14.5, 24.5)
    assert [table[f"bbox_{end}_{axis}"][0] for end in ("start", "stop") for axis in "yx"] == [10, 5, 20, 45]
    assert table["extent"][0] == table["solidity"][0] == 1
    assert table["perimeter"][0] == 2 * (9 + 39)  # through the centres of the border's pixels
    assert table["axis_major_length"][0] == pytest.approx(4 * np.sqrt((40**2 - 1) / 12))
    assert abs(table["orientation"][0]) == pytest.approx(np.pi / 2)  # along X
    assert table["eccentricity"][1] == pytest.approx(0, abs=1e-6)
    assert table["equivalent_diameter"][1] == pytest.approx(24, abs=0.5)
    assert 0.93 < table["solidity"][1] < 1


def test_intensities_are_measured_per_channel() -> None:
    labels = rectangle_and_disc()
    image = np.zeros((2, 60, 90), np.uint16)
    image[0][labels == 2], image[1][labels == 5] = 100, 7
    image[0, 15, 7] = 1000
    table = measure_objects(labels, image, channels=["red", "green"])
    assert table["intensity_mean_red"].tolist() == [100 + 900 / 400, 0]
    assert table["intensity_max_red"].tolist() == [1000, 0]
    assert table["intensity_mean_green"].tolist() == [0, 7]
    assert "intensity_max_1" in measure_objects(labels, image)


def test_a_known_pixel_size_gives_micrometres_beside_pixels() -> None:
    pixels = measure_objects(rectangle_and_disc())
    table = measure_objects(rectangle_and_disc(), pixel_size={"Y": 0.5, "X": 0.5})
    assert table["area_um2"].tolist() == (pixels["area"] / 4).tolist()
    for name in ("perimeter", "axis_major_length", "equivalent_diameter", "centroid_y"):
        assert table[f"{name}_um"] == pytest.approx(pixels[name] / 2)
        assert table[name] == pytest.approx(pixels[name])


def test_lengths_across_pixels_that_are_not_square_are_left_out() -> None:
    table = measure_objects(rectangle_and_disc(), pixel_size={"Y": 0.5, "X": 0.25})
    assert table["area_um2"][0] == 50
    assert "perimeter_um" not in table
    assert not [name for name in measure_objects(rectangle_and_disc(), pixel_size={"X": 0.25}) if name.endswith("_um")]


def test_volumes_are_measured_where_a_measure_is_defined() -> None:
    labels = np.zeros((8, 20, 20), np.int32)
    labels[2:5, 4:10, 4:14] = 1
    table = measure_objects(labels, np.full((1, 8, 20, 20), 3.5), {"Z": 2.0, "Y": 0.5, "X": 0.5}, np.array([0, 0.75]))
    assert table["area"].tolist() == [180]
    assert table["volume_um3"].tolist() == [90]
    assert (table["centroid_z"][0], table["centroid_z_um"][0], table["centroid_x_um"][0]) == (3, 6, 4.25)
    assert table["equivalent_diameter_um"][0] == pytest.approx((6 * 90 / np.pi) ** (1 / 3))
    assert table["confidence"].tolist() == [0.75]
    assert table["intensity_mean_0"].tolist() == [3.5]
    assert "perimeter" not in table


def test_confidence_goes_to_the_object_of_its_number() -> None:
    confidence = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5], np.float32)
    assert measure_objects(rectangle_and_disc(), confidence=confidence)["confidence"].tolist() == pytest.approx(
        [0.2, 0.5]
    )


def test_no_object_gives_the_same_columns_without_rows() -> None:
    image = np.zeros((1, 60, 90), np.uint8)
    pixel_size, confidence = {"Y": 1.0, "X": 1.0}, np.zeros(6, np.float32)
    full = measure_objects(rectangle_and_disc(), image, pixel_size, confidence)
    empty = measure_objects(np.zeros((60, 90), np.int32), image, pixel_size, confidence[:1])
    assert list(empty) == list(full)
    assert {len(column) for column in empty.values()} == {0}


def test_an_object_of_one_pixel_or_one_line_is_measured_too() -> None:
    labels = np.zeros((9, 9), np.int32)
    labels[0, 0], labels[4, 2:8] = 1, 2
    table = measure_objects(labels)
    assert table["area"].tolist() == [1, 6]
    assert all(np.isfinite(column).all() for column in table.values())


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match="expected an image"):
        measure_objects(rectangle_and_disc(), np.zeros((1, 60, 80)))
    with pytest.raises(ImageError, match="expected labels"):
        measure_objects(np.zeros(5, np.int32))


@pytest.mark.slow
def test_a_thousand_objects_are_measured_in_seconds() -> None:
    tile = np.zeros((24, 24), np.int32)
    rows, columns = np.mgrid[:24, :24]
    tile[(rows - 12) ** 2 + (columns - 12) ** 2 < 80] = 1
    numbers = np.arange(1, 1025).reshape(32, 32).repeat(24, axis=0).repeat(24, axis=1)
    labels = numbers * np.tile(tile, (32, 32))
    start = time.process_time()
    assert len(measure_objects(labels)["label"]) == 1024
    assert time.process_time() - start < 4  # half a second on a quiet machine
