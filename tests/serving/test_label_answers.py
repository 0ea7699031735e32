import csv
import io
import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import imagecodecs
import numpy as np
import pyarrow
import pyarrow.ipc
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import NotAcceptableError
from cytoray_analysis.images import Image, image_from_array, read_image
from cytoray_analysis.predictor import ModelIdentity, Prediction, Predictor
from cytoray_serving.answers import forms_of
from cytoray_serving.answers.labels import object_rows, seen_from_above
from cytoray_serving.schema import FeatureCollection, ObjectTable
from serving_samples import write_small_bundle

LABELS = np.zeros((20, 30), np.int32)
LABELS[2:8, 3:9] = 1
LABELS[4:6, 5:7] = 0
LABELS[10:18, 12:28] = 2
CONFIDENCE = np.array([0.0, 0.25, 0.75], np.float32)

Encode = Callable[..., bytes]


def image_of(shape: Sequence[int] = LABELS.shape, pixel_size: dict[str, float] | None = None) -> Image:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return image_from_array(pixels, "ZYX"[-len(shape) :], pixel_size=pixel_size)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Give a model whose answers are labels of volumes."""
    return Predictor(Bundle.load(write_small_bundle(tmp_path_factory.mktemp("volumes") / "nuclei", dimensions=3)))


@pytest.fixture
def encode(segmenter: Predictor, volumes: Predictor) -> Encode:
    """Give a function that encodes labels in a form."""

    def encode_labels(
        form: str,
        labels: NDArray[np.int32] = LABELS,
        image: Image | None = None,
        confidence: NDArray[np.float32] | None = None,
    ) -> bytes:
        seconds = {"read": 0.001, "network": 0.2, "decode": 0.01}
        identity = ModelIdentity("nuclei", "3", "ab" * 32)
        predictor = segmenter if labels.ndim == 2 else volumes
        model: Any = SimpleNamespace(task=predictor.task, spec=predictor.bundle.spec, identity=identity)
        image, axes = image or image_of(labels.shape), "ZYX"[-labels.ndim :]
        objects = int(labels.max())
        prediction = Prediction(labels, objects, seconds, image, model, confidence=confidence, axes=axes)
        return forms_of("labels")[form].encode(prediction)

    return encode_labels


@pytest.mark.parametrize(("largest", "dtype"), [(2, np.uint16), (65_535, np.uint16), (65_536, np.uint32)])
def test_tiff_holds_the_labels_in_the_smallest_type(encode: Encode, largest: int, dtype: type) -> None:
    labels = np.where(LABELS == 2, largest, LABELS).astype(np.int32)
    read = tifffile.imread(io.BytesIO(encode("tif", labels)))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, labels)


def test_tiff_keeps_the_pixel_size(encode: Encode) -> None:
    body = encode("tif", image=image_of(pixel_size={"Y": 0.5, "X": 0.25}))
    with tifffile.TiffFile(io.BytesIO(body)) as file:
        page = file.pages[0]
        assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
        assert page.resolution == (40_000, 20_000)


def test_label_png_holds_the_labels(encode: Encode) -> None:
    read = imagecodecs.png_decode(encode("png"))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, LABELS)


def test_label_png_refuses_more_objects_than_it_can_count(encode: Encode) -> None:
    with pytest.raises(NotAcceptableError, match="65535"):
        encode("png", LABELS * 40_000)


@pytest.mark.parametrize("name", ["geojson", "png"])
def test_planar_forms_refuse_volumes(encode: Encode, name: str) -> None:
    with pytest.raises(NotAcceptableError, match="one plane"):
        encode(name, np.ones((3, 20, 30), np.int32))


def test_overlay_is_an_rgb_picture_of_the_image(encode: Encode) -> None:
    read = imagecodecs.png_decode(encode("overlay"))
    assert read.shape == (*LABELS.shape, 3)
    assert read.dtype == np.uint8
    coloured = np.ptp(read.astype(int), axis=2) > 0
    assert coloured.any()
    assert not coloured[LABELS == 0].any()


def test_table_names_the_model_and_its_objects(encode: Encode) -> None:
    table = ObjectTable.model_validate_json(encode("json"))
    assert (table.model.name, table.model.version) == ("nuclei", "3")
    assert table.shape == [20, 30]
    first, second = table.objects
    assert (first.label, first.area, first.bbox) == (1, 32, [2, 3, 8, 9])
    assert (first.xmin, first.ymin, first.zmin, first.xmax, first.ymax, first.zmax) == (3, 2, None, 9, 8, None)
    assert (second.area, second.centroid) == (128, [13.5, 19.5])


@given(arrays(np.int32, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 5)))
def test_measures_are_those_of_scikit_image(labels: NDArray[np.int32]) -> None:
    rows = object_rows(labels)
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
    (row,) = object_rows(labels)
    assert (row.label, row.area, row.centroid, row.bbox) == (7, 12, [1.5, 2.5, 4.0], [1, 2, 3, 3, 4, 6])
    assert (row.xmin, row.ymin, row.zmin, row.xmax, row.ymax, row.zmax) == (3, 2, 1, 6, 4, 3)


def test_geojson_is_what_qupath_opens(encode: Encode) -> None:
    body = encode("geojson")
    collection = FeatureCollection.model_validate_json(body)
    assert json.loads(body)["type"] == "FeatureCollection"
    first, second = collection.features
    assert first.properties["objectType"] == "detection"
    assert first.geometry.type == "Polygon"
    assert len(first.geometry.coordinates) == 2  # the outline and one hole
    assert second.geometry.coordinates == [[[12, 10], [28, 10], [28, 18], [12, 18], [12, 10]]]


def test_an_object_in_pieces_becomes_one_multipolygon(encode: Encode) -> None:
    labels = np.zeros((5, 5), np.int32)
    labels[0, 0] = labels[4, 4] = 1
    (feature,) = FeatureCollection.model_validate_json(encode("geojson", labels)).features
    assert feature.geometry.type == "MultiPolygon"
    assert len(feature.geometry.coordinates) == 2


@pytest.mark.parametrize("name", forms_of("labels"))
def test_every_form_holds_an_answer_without_objects(encode: Encode, name: str) -> None:
    assert encode(name, np.zeros_like(LABELS))


def test_table_states_brightness_and_confidence(encode: Encode) -> None:
    pixels = np.stack([np.full(LABELS.shape, 10, np.uint8), np.where(LABELS == 2, 9, 1).astype(np.uint8)])
    body = encode("json", image=image_from_array(pixels, "CYX"), confidence=CONFIDENCE)
    first, second = ObjectTable.model_validate_json(body).objects
    assert (first.intensity_mean, second.intensity_mean) == ([10, 1], [10, 9])
    assert (first.confidence, second.confidence) == (0.25, 0.75)
    first, _ = ObjectTable.model_validate_json(encode("json")).objects
    assert first.confidence is None


def test_csv_has_a_row_of_measurements_per_object(encode: Encode) -> None:
    body = encode("csv", image=image_of(pixel_size={"Y": 0.5, "X": 0.5}), confidence=CONFIDENCE)
    first, second = csv.DictReader(io.StringIO(body.decode()))
    assert (first["label"], second["label"]) == ("1", "2")
    assert (float(second["area"]), float(second["area_um2"])) == (128, 32)
    assert (float(second["centroid_y"]), float(second["bbox_stop_x"])) == (13.5, 28)
    assert float(second["confidence"]) == 0.75
    assert {"intensity_mean_grey", "solidity", "perimeter_um"} <= set(first)


def test_arrow_holds_the_same_measurements_with_their_types(encode: Encode) -> None:
    body = encode("arrow", image=image_of(pixel_size={"Y": 0.5, "X": 0.5}), confidence=CONFIDENCE)
    table = pyarrow.ipc.open_stream(body).read_all()
    rows = list(csv.DictReader(io.StringIO(encode("csv", image=image_of(), confidence=CONFIDENCE).decode())))
    assert table.column("label").to_pylist() == [int(row["label"]) for row in rows] == [1, 2]
    assert table.column("area_um2").to_pylist()[1] == 32
    assert {str(table.schema.field(name).type) for name in ("label", "area")} <= {"int64", "int32", "double"}


VOLUME = np.zeros((4, 20, 30), np.int32)
VOLUME[0:2, 2:8, 3:9] = 1
VOLUME[1:4, 4:10, 5:12] += np.where(VOLUME[1:4, 4:10, 5:12] == 0, 2, 0)


@pytest.mark.parametrize("name", ["tif", "json", "csv", "overlay"])
def test_volumes_come_in_forms_that_hold_them(encode: Encode, name: str) -> None:
    body = encode(name, VOLUME)
    if name == "tif":
        np.testing.assert_array_equal(read_image(body).select("ZYX").read(), VOLUME)
    elif name == "json":
        assert ObjectTable.model_validate_json(body).shape == [4, 20, 30]
    elif name == "csv":
        first, _ = csv.DictReader(io.StringIO(body.decode()))
        assert (first["area"], first["centroid_z"]) == ("72.0", "0.5")
    else:
        assert imagecodecs.png_decode(body).shape == (20, 30, 3)


def test_volumes_are_seen_from_above() -> None:
    seen = seen_from_above(VOLUME)
    assert seen[5, 6] == 1  # object 2 lies below
    assert seen[9, 11] == 2
    assert seen[0, 0] == 0


def test_a_plane_for_a_stack_has_no_brightness(encode: Encode) -> None:
    first, _ = ObjectTable.model_validate_json(encode("json", image=image_of((5, 20, 30)))).objects
    assert first.intensity_mean is None
    assert encode("csv", image=image_of((5, 20, 30)))
    assert encode("overlay", image=image_of((5, 20, 30)))
