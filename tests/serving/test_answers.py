import contextlib
import io
import json
from collections.abc import Sequence

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from cytoray_analysis.errors import NotAcceptableError, RequestError
from cytoray_analysis.images import Image, image_from_array
from cytoray_analysis.predictor import ModelIdentity, Prediction
from cytoray_serving.answers import FORMS, choose_form, form_named, measure_objects
from cytoray_serving.schema import FeatureCollection, ObjectTable

LABELS = np.zeros((20, 30), np.int32)
LABELS[2:8, 3:9] = 1
LABELS[4:6, 5:7] = 0
LABELS[10:18, 12:28] = 2


def prediction(labels: NDArray[np.int32] = LABELS) -> Prediction:
    seconds = {"read": 0.001, "network": 0.2, "decode": 0.01}
    return Prediction(labels, "segmentation", seconds, ModelIdentity("nuclei", "3", "ab" * 32))


def image(shape: Sequence[int] = LABELS.shape, pixel_size: dict[str, float] | None = None) -> Image:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return image_from_array(pixels, "YX", pixel_size=pixel_size)


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        (None, "tif"),
        ("", "tif"),
        ("*/*", "tif"),
        ("image/*", "tif"),
        ("image/tiff", "tif"),
        ("IMAGE/TIFF", "tif"),
        ("application/json", "json"),
        ("application/*", "json"),
        ("application/geo+json", "geojson"),
        ("image/png", "overlay"),
        ("image/png;content=labels", "png"),
        ('image/png; content="labels"', "png"),
        ("application/json;q=0.5, application/geo+json", "geojson"),
        ("application/json;q=0.5, application/geo+json;q=0.4", "json"),
        ("text/html, application/xhtml+xml, image/avif, image/png;q=0.9, */*;q=0.1", "overlay"),
        ("*/*, image/tiff;q=0", "json"),
        ("image/*;q=0.8, image/png;q=0.1", "tif"),
        ("text/html, */*;q=0.01", "tif"),
    ],
)
def test_accept_chooses_the_form_that_is_liked_best(accept: str | None, name: str) -> None:
    assert choose_form(accept).name == name


@pytest.mark.parametrize("accept", ["text/html", "image/tiff;q=0", "*/*;q=0", "image/png;content=scores"])
def test_accept_without_a_form_that_is_written_here_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="image/tiff"):
        choose_form(accept)


@pytest.mark.parametrize(
    "accept", ["image", "*/png", "image/", "image/tiff;q=2", "image/tiff;q=high", "image/tiff;q=nan"]
)
def test_malformed_accept_is_refused(accept: str) -> None:
    with pytest.raises(RequestError):
        choose_form(accept)


@given(st.text(max_size=40))
def test_any_accept_header_is_answered_or_refused(accept: str) -> None:
    with contextlib.suppress(NotAcceptableError, RequestError):
        assert choose_form(accept) in FORMS.values()


def test_forms_are_found_by_name() -> None:
    assert form_named("geojson").media_type == "application/geo+json"
    with pytest.raises(RequestError, match="tif, json"):
        form_named("bmp")


@pytest.mark.parametrize(("largest", "dtype"), [(2, np.uint16), (65_535, np.uint16), (65_536, np.uint32)])
def test_tiff_holds_the_labels_in_the_smallest_type(largest: int, dtype: type) -> None:
    labels = np.where(LABELS == 2, largest, LABELS).astype(np.int32)
    read = tifffile.imread(io.BytesIO(FORMS["tif"].encode(prediction(labels), image())))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, labels)


def test_tiff_keeps_the_pixel_size() -> None:
    body = FORMS["tif"].encode(prediction(), image(pixel_size={"Y": 0.5, "X": 0.25}))
    with tifffile.TiffFile(io.BytesIO(body)) as file:
        page = file.pages[0]
        assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
        assert page.resolution == (40_000, 20_000)


def test_label_png_holds_the_labels() -> None:
    read = imagecodecs.png_decode(FORMS["png"].encode(prediction(), image()))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, LABELS)


def test_label_png_refuses_more_objects_than_it_can_count() -> None:
    with pytest.raises(NotAcceptableError, match="65535"):
        FORMS["png"].encode(prediction(LABELS * 40_000), image())


@pytest.mark.parametrize("name", ["geojson", "png", "overlay"])
def test_planar_forms_refuse_volumes(name: str) -> None:
    with pytest.raises(NotAcceptableError, match="one plane"):
        FORMS[name].encode(prediction(np.ones((3, 20, 30), np.int32)), image())


def test_overlay_is_an_rgb_picture_of_the_image() -> None:
    read = imagecodecs.png_decode(FORMS["overlay"].encode(prediction(), image()))
    assert read.shape == (*LABELS.shape, 3)
    assert read.dtype == np.uint8
    coloured = np.ptp(read.astype(int), axis=2) > 0
    assert coloured.any()
    assert not coloured[LABELS == 0].any()


def test_table_names_the_model_and_its_objects() -> None:
    table = ObjectTable.model_validate_json(FORMS["json"].encode(prediction(), image()))
    assert (table.model.name, table.model.version) == ("nuclei", "3")
    assert table.shape == [20, 30]
    first, second = table.objects
    assert (first.label, first.area, first.bbox) == (1, 32, [2, 3, 8, 9])
    assert (second.area, second.centroid) == (128, [13.5, 19.5])


@given(arrays(np.int32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 5)))
def test_measures_are_those_of_scikit_image(labels: NDArray[np.int32]) -> None:
    rows = measure_objects(labels)
    assert [row.label for row in rows] == [number for number in np.unique(labels) if number > 0]
    if not rows:
        return
    expected = regionprops_table(labels, properties=("num_pixels", "centroid", "bbox"))  # type: ignore[no-untyped-call]
    assert [row.area for row in rows] == expected["num_pixels"].tolist()
    np.testing.assert_allclose([row.centroid for row in rows], np.stack([expected[f"centroid-{k}"] for k in (0, 1)], 1))
    assert [row.bbox for row in rows] == np.stack([expected[f"bbox-{k}"] for k in range(4)], 1).tolist()


def test_volumes_are_measured_along_three_axes() -> None:
    labels = np.zeros((4, 5, 6), np.int32)
    labels[1:3, 2:4, 3:6] = 7
    (row,) = measure_objects(labels)
    assert (row.label, row.area, row.centroid, row.bbox) == (7, 12, [1.5, 2.5, 4.0], [1, 2, 3, 3, 4, 6])


def test_geojson_is_what_qupath_opens() -> None:
    body = FORMS["geojson"].encode(prediction(), image())
    collection = FeatureCollection.model_validate_json(body)
    assert json.loads(body)["type"] == "FeatureCollection"
    first, second = collection.features
    assert first.properties["objectType"] == "detection"
    assert first.geometry.type == "Polygon"
    assert len(first.geometry.coordinates) == 2  # the outline and one hole
    assert second.geometry.coordinates == [[[12, 10], [28, 10], [28, 18], [12, 18], [12, 10]]]


def test_an_object_in_pieces_becomes_one_multipolygon() -> None:
    labels = np.zeros((5, 5), np.int32)
    labels[0, 0] = labels[4, 4] = 1
    (feature,) = FeatureCollection.model_validate_json(FORMS["geojson"].encode(prediction(labels), image())).features
    assert feature.geometry.type == "MultiPolygon"
    assert len(feature.geometry.coordinates) == 2


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_an_answer_without_objects(name: str) -> None:
    assert FORMS[name].encode(prediction(np.zeros_like(LABELS)), image())
