import json

import imagecodecs
import numpy as np
import pytest

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_serving.answers import forms_of
from cytoray_serving.schema import ImageTable
from serving_samples import noise, write_stain_bundle


@pytest.fixture
def answered(stainer: Predictor) -> Prediction:
    image = image_from_array(noise(40, 56), "YX", pixel_size={"Y": 0.5, "X": 0.25})
    return stainer.predict(image)


def test_tiff_holds_the_channels_with_names_and_pixel_size(answered: Prediction) -> None:
    read = read_image(forms_of("image")["tif"].encode(answered))
    assert read.axes == "CYX"
    assert read.channels == ("DAPI", "DAPI deviation")
    assert read.pixel_size == {"Y": 0.5, "X": 0.25}
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read.read(), answered.answer)


def test_png_shows_the_first_channel(answered: Prediction) -> None:
    read = imagecodecs.png_decode(forms_of("image")["png"].encode(answered))
    assert read.shape == (40, 56)
    assert read.dtype == np.uint8
    stain = answered.answer[0]
    assert read[np.unravel_index(stain.argmax(), stain.shape)] == 255
    assert np.corrcoef(read.ravel(), stain.ravel())[0, 1] > 0.98


def test_table_states_range_and_mean_of_every_channel(answered: Prediction) -> None:
    table = ImageTable.model_validate_json(forms_of("image")["json"].encode(answered))
    assert (table.axes, table.shape) == ("CYX", [2, 40, 56])
    for row, values in zip(table.channels, answered.answer, strict=True):
        assert (row.min, row.max) == (float(values.min()), float(values.max()))
        assert row.mean == pytest.approx(float(values.mean()))


def test_a_stack_may_be_answered_with_a_plane(tmp_path_factory: pytest.TempPathFactory) -> None:
    predictor = Predictor(Bundle.load(write_stain_bundle(tmp_path_factory.mktemp("stack") / "stain", planes=3)))
    image = image_from_array(noise(3, 40, 56), "ZYX")
    answered = predictor.predict(image)
    assert read_image(forms_of("image")["tif"].encode(answered)).axes == "CYX"
    assert json.loads(forms_of("image")["json"].encode(answered))["shape"] == [2, 40, 56]
