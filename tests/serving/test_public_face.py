"""``import cytoray``: a model in this process and one behind a service give the same answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import cytoray
from cytoray.answer import suffixes_of
from cytoray_analysis.errors import AxesError, ModelNotFoundError, NotAcceptableError, RequestError
from cytoray_serving.answers import answer_kinds, forms_of
from serving_samples import moving_squares, noise

PICTURE = noise(64, 96)
MOVIE, MASKS = moving_squares()
CELLS = np.zeros((64, 96), np.uint16)
CELLS[5:15, 10:22], CELLS[30:44, 50:60] = 3, 7
QUESTIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "nuclei": (PICTURE, {}),
    "stain": (PICTURE, {}),
    "cells": (PICTURE, {"masks": CELLS}),
    "linker": (MOVIE, {"axes": "TYX", "masks": MASKS}),
}


@pytest.fixture(scope="module", params=list(QUESTIONS))
def both(request: pytest.FixtureRequest, folders: Any, address: str) -> tuple[cytoray.Answer, cytoray.Answer]:
    """Give the answer of a model of each kind in this process, and that of a service."""
    image, others = QUESTIONS[request.param]
    folder = getattr(folders, request.param)
    here = cytoray.load_model(folder).predict(image, **others)
    with cytoray.Client(address) as client:
        there = client.predict(image, model=here.model, **others)
        for media_type in set(suffixes_of(there.kind).values()):
            there.encoded(media_type)
    return here, there


@pytest.mark.slow
def test_a_service_answers_as_a_model_here(both: tuple[cytoray.Answer, cytoray.Answer]) -> None:
    here, there = both
    assert repr(here) == repr(there)
    assert here.table().equals(there.table())
    for name in ("labels", "image", "tracks", "geojson"):
        values = []
        for answer in both:
            try:
                found = getattr(answer, name)
                values.append(found() if callable(found) else found)
            except RequestError as error:
                values.append(str(error))
        assert np.array_equal(*values) if isinstance(values[0], np.ndarray) else values[0] == values[1]


@pytest.mark.slow
def test_an_answer_is_shown_as_a_picture_in_a_notebook(both: tuple[cytoray.Answer, cytoray.Answer]) -> None:
    for answer in both:
        assert answer._repr_png_().startswith(b"\x89PNG")


def test_answers_are_saved_in_each_form_of_their_kind(
    both: tuple[cytoray.Answer, cytoray.Answer], tmp_path: Path
) -> None:
    here, there = both
    for suffix in suffixes_of(here.kind):
        for side, answer in (("here", here), ("there", there)):
            assert answer.save(tmp_path / side / f"cells{suffix}").stat().st_size > 0
    with pytest.raises(RequestError, match=r"ends in .*\.json.*, got cells\.doc"):
        here.save(tmp_path / "cells.doc")


def test_the_forms_that_can_be_saved_are_those_that_are_answered() -> None:
    for kind in answer_kinds():
        assert set(suffixes_of(kind).values()) == {form.media_type for form in forms_of(kind).values()}


def test_files_arrays_and_images_are_the_same_question(folders: Any, tmp_path: Path) -> None:
    model = cytoray.load_model(folders.nuclei)
    tifffile.imwrite(tmp_path / "cells.tif", PICTURE)
    from_file = model.predict(tmp_path / "cells.tif")
    from_image = model.predict(cytoray.read_image(tmp_path / "cells.tif"))
    from_array = model.predict(PICTURE)
    stacked = model.predict(np.stack([PICTURE, PICTURE[::-1]]), axes="ZYX", plane=0)
    for other in (from_image, from_array, stacked):
        assert np.array_equal(other.labels, from_file.labels)
    assert from_file.labels.max() == from_file.objects == len(from_file.table()) == len(from_file.geojson()["features"])


def test_axes_of_arrays_are_asked_for_where_they_can_be_several(folders: Any) -> None:
    model = cytoray.load_model(folders.nuclei)
    with pytest.raises(AxesError, match=r"axes of an array of shape \(7, 64, 96\)") as caught:
        model.predict(np.zeros((7, 64, 96)))
    assert "axes='ZYX'" in str(caught.value.hint)
    for wrong in ("YX", "YYX", "ABC"):
        with pytest.raises(AxesError, match="3 different letters"):
            model.predict(np.zeros((7, 64, 96)), axes=wrong)
    with pytest.raises(RequestError, match="expected a path, an array or an image, got 5"):
        model.predict(5)


def test_a_model_of_the_registry_answers_under_its_name(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTORAY_HOME", str(registered))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    model = cytoray.load_model("nuclei@champion")
    assert (model.name, model.version) == ("nuclei", "1")
    assert repr(model.predict(PICTURE)).startswith("<Answer of nuclei/1: ")
    with pytest.raises(ModelNotFoundError):
        cytoray.load_model("nuclei/17")


def test_a_segmentation_finds_the_objects(folders: Any) -> None:
    model, nuclei = cytoray.load_model(folders.cells), cytoray.load_model(folders.nuclei)
    by_name = model.predict(PICTURE, segmentation=str(folders.nuclei))
    assert by_name.table().equals(model.predict(PICTURE, segmentation=nuclei).table())
    assert by_name.objects == nuclei.predict(PICTURE).objects


def test_what_an_answer_lacks_is_said(folders: Any) -> None:
    answer = cytoray.load_model(folders.stain).predict(PICTURE)
    with pytest.raises(RequestError, match="answer with labels, got one of the kind 'image'") as caught:
        _ = answer.labels
    assert caught.value.hint == "it has image and table()"
    with pytest.raises(NotAcceptableError):
        answer.encoded("text/csv")


def imported_by(statement: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded after a statement."""
    code = (
        f"import json, sys\n{statement}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_nothing_is_imported_before_it_is_used() -> None:
    assert not imported_by("import cytoray") & {"numpy", "cytoray_analysis", "cytoray_serving"}
