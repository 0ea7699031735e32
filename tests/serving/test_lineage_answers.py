import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.images import image_from_array
from cytoray_analysis.predictor import Prediction, Predictor
from cytoray_analysis.tracking.ctc import read_lineage
from cytoray_analysis.tracking.formats import read_geff
from cytoray_serving.answers import forms_of
from cytoray_serving.schema import TrackTable
from serving_samples import moving_squares


@pytest.fixture
def answered(linker: Predictor) -> Prediction:
    movie, masks = moving_squares()
    image = image_from_array(movie, "TYX", pixel_size={"Y": 0.5, "X": 0.5})
    return linker.predict(image, masks)


def unzipped(body: bytes, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        archive.extractall(folder)
    return folder


def test_zip_holds_a_result_folder_of_the_challenge(answered: Prediction, tmp_path: Path) -> None:
    folder = unzipped(forms_of("lineage")["zip"].encode(answered), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [*(f"mask{k:03d}.tif" for k in range(5)), "res_track.txt"]
    read = read_lineage(folder)
    np.testing.assert_array_equal(read.table, answered.answer.table)
    assert read.masks is not None
    assert ((read.masks[:] > 0) == (answered.given > 0)).all()


def test_geff_holds_the_same_tracks(answered: Prediction, tmp_path: Path) -> None:
    folder = unzipped(forms_of("lineage")["geff"].encode(answered), tmp_path / "tracks.geff")
    lineage = answered.answer
    np.testing.assert_array_equal(read_geff(folder, lineage.shape, lineage.frames).table, lineage.table)


def test_csv_is_what_the_tracks_layer_of_napari_opens(answered: Prediction) -> None:
    rows = list(csv.reader(io.StringIO(forms_of("lineage")["csv"].encode(answered).decode())))
    assert rows[0][:4] == ["track_id", "t", "y", "x"]
    assert len(rows) - 1 == len(answered.answer.frame)


def test_table_states_tracks_and_parents(answered: Prediction) -> None:
    table = TrackTable.model_validate_json(forms_of("lineage")["json"].encode(answered))
    lineage = answered.answer
    assert (table.frames, table.shape) == (5, [40, 60])
    assert [(row.track, row.begin, row.end, row.parent or 0) for row in table.tracks] == [
        tuple(row) for row in lineage.table.tolist()
    ]
    assert table.divisions == lineage.divisions.tolist()


def test_equal_answers_are_equal_bytes(answered: Prediction) -> None:
    assert forms_of("lineage")["zip"].encode(answered) == forms_of("lineage")["zip"].encode(answered)


@pytest.mark.parametrize("name", forms_of("lineage"))
def test_every_form_holds_a_movie_without_objects(linker: Predictor, name: str) -> None:
    movie, masks = moving_squares(3)
    image = image_from_array(movie, "TYX")
    assert forms_of("lineage")[name].encode(linker.predict(image, 0 * masks))
