import csv
import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.cells import Cells, cells_from_boxes
from cytoray_analysis.images import image_from_array
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_serving.answers import forms_of
from cytoray_serving.schema import ClassTable
from serving_samples import CELL_CLASSES, noise, write_cell_bundle

BOXES = [((4, 6), (16, 20)), ((30, 40), (46, 56)), ((0, 0), (10, 10))]


@pytest.fixture
def answered(classifier: Predictor) -> Prediction:
    image = image_from_array(noise(60, 80), "YX")
    cells = cells_from_boxes(BOXES)
    return classifier.predict(image, cells)


def test_table_states_box_class_and_probabilities(answered: Prediction) -> None:
    table = ClassTable.model_validate_json(forms_of("class")["json"].encode(answered))
    assert table.classes == CELL_CLASSES
    assert [cell.number for cell in table.cells] == [1, 2, 3]
    assert table.cells[1].box == [30, 40, 46, 56]
    for cell, probabilities in zip(table.cells, answered.answer.probabilities, strict=True):
        np.testing.assert_allclose(cell.probabilities, probabilities, rtol=1e-6)
        assert sum(cell.probabilities) == pytest.approx(1, abs=1e-5)
        assert cell.label == CELL_CLASSES[int(probabilities.argmax())] == cell.top[0].label
        assert [one.probability for one in cell.top] == sorted(cell.probabilities, reverse=True)


def test_csv_has_a_row_per_cell(answered: Prediction) -> None:
    rows = list(csv.DictReader(io.StringIO(forms_of("class")["csv"].encode(answered).decode())))
    assert [row["number"] for row in rows] == ["1", "2", "3"]
    sides = ("ymin", "xmin", "ymax", "xmax")
    assert [float(rows[1][side]) for side in sides] == [30, 40, 46, 56]
    assert [row["label"] for row in rows] == list(answered.answer.labels)
    assert float(rows[0]["probability"]) == max(float(rows[0][f"probability_{name}"]) for name in CELL_CLASSES)


def test_overlay_draws_boxes_on_the_image_enlarged_until_words_can_be_read(answered: Prediction) -> None:
    read = imagecodecs.png_decode(forms_of("class")["overlay"].encode(answered))
    assert read.shape[:2] == (60 * 7, 80 * 7)
    coloured = np.ptp(read[..., :3].astype(int), axis=2) > 60
    assert coloured[30 * 7 - 2 : 30 * 7 + 3, 42 * 7 : 54 * 7].any()  # the upper edge of the second box
    assert not coloured[50 * 7 :, :].any()


def test_heat_map_shows_a_picture_per_cell(answered: Prediction, classifier: Predictor) -> None:
    three = imagecodecs.png_decode(forms_of("class")["heatmap"].encode(answered))
    one_cell = Cells(answered.given.boxes[:1], answered.given.numbers[:1])
    one = classifier.predict(answered.image, one_cell)
    assert three.shape[1] == 3 * imagecodecs.png_decode(forms_of("class")["heatmap"].encode(one)).shape[1]


def test_an_image_without_cells_given_is_one_cell(classifier: Predictor) -> None:
    image = image_from_array(noise(60, 80), "YX")
    answered = classifier.predict(image)
    (cell,) = ClassTable.model_validate_json(forms_of("class")["json"].encode(answered)).cells
    assert cell.box == [0, 0, 60, 80]
    assert forms_of("class")["heatmap"].encode(answered).startswith(b"\x89PNG")


def test_boxes_are_in_pixels_of_the_image_that_was_sent(tmp_path: Path) -> None:
    predictor = Predictor(Bundle.load(write_cell_bundle(tmp_path / "cells", pixel_size={"Y": 1.0, "X": 1.0})))
    image = image_from_array(noise(60, 80), "YX", pixel_size={"Y": 0.5, "X": 0.5})
    answered = predictor.predict(image, cells_from_boxes(BOXES))
    table = ClassTable.model_validate_json(forms_of("class")["json"].encode(answered))
    assert table.cells[1].box == [30, 40, 46, 56]


@pytest.mark.parametrize("name", forms_of("class"))
def test_every_form_holds_an_answer_without_cells(classifier: Predictor, name: str) -> None:
    image = image_from_array(noise(60, 80), "YX")
    none = Cells(np.zeros((0, 2, 2)), np.zeros(0, np.int64))
    assert forms_of("class")[name].encode(classifier.predict(image, none))
