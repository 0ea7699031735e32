"""``cytoray predict`` with models of every kind, in process and by a service in a thread."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cytoray_analysis.cells import cells_from_boxes
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tracking.ctc import read_lineage
from cytoray_services.commands.root import main
from cytoray_serving.client import Client
from serving_samples import answers_in, moving_squares, noise, tiff_bytes

Run = Callable[..., tuple[int, dict[str, Any]]]
MOVIE, MASKS = moving_squares()
CELLS = np.zeros((64, 96), np.uint16)
CELLS[5:15, 10:22], CELLS[30:44, 50:60] = 3, 7


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], registered: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Give a function that runs ``cytoray predict --json`` and returns exit status and answer."""
    monkeypatch.setenv("CYTORAY_HOME", str(registered))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run_predict(*words: object) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main(["predict", *map(str, words), "--json"])
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return int(ended.value.code or 0), answer

    return run_predict


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Make images with masks and boxes, and a movie with masks as folders of frames."""
    for folder in ("images", "masks", "01", "01_masks"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        (tmp_path / "images" / f"{name}.tif").write_bytes(tiff_bytes(noise(64, 96, seed=ord(name))))
        (tmp_path / "masks" / f"{name}.tif").write_bytes(tiff_bytes(CELLS))
    with (tmp_path / "boxes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "xmin", "ymin", "xmax", "ymax"))
        rows.writerows((("a.tif", 10, 5, 22, 15), ("images/b.tif", 0, 0, 9, 9), ("a.tif", 50, 30, 60, 44)))
    for frame in range(len(MOVIE)):
        (tmp_path / "01" / f"t{frame:03d}.tif").write_bytes(tiff_bytes(MOVIE[frame]))
        (tmp_path / "01_masks" / f"mask{frame:03d}.tif").write_bytes(tiff_bytes(MASKS[frame]))
    return tmp_path


@pytest.fixture(params=["here", "there"])
def model(request: pytest.FixtureRequest, folders: Any) -> Callable[[str], tuple[object, ...]]:
    """Give a function that returns the words for a model, in this process and by the service."""

    def words(name: str) -> tuple[object, ...]:
        if request.param == "here":
            return (getattr(folders, name),)
        return (name, "--url", request.getfixturevalue("address"))

    return words


Words = Callable[[str], tuple[object, ...]]


@pytest.mark.slow
def test_a_stain_is_written_with_its_name(run: Run, model: Words, inputs: Path, stainer: Predictor) -> None:
    status, answer = run(*model("stain"), inputs / "images" / "a.tif", "--out", inputs / "out")
    assert status == 0, answer
    (output,) = answer["outputs"]
    assert output["output"] == str(inputs / "out" / "a.ome.tif")
    read = read_image(output["output"])
    assert read.channels == ("DAPI", "DAPI deviation")
    expected = stainer.predict(read_image(inputs / "images" / "a.tif")).answer
    np.testing.assert_allclose(read.read(), expected, rtol=1e-5)


@pytest.mark.slow
def test_cells_of_masks_are_classified(run: Run, model: Words, inputs: Path) -> None:
    words = (inputs / "images", "--masks", inputs / "masks", "--out", inputs / "out")
    status, answer = run(*model("cells"), *words)
    assert status == 0, answer
    assert [one["objects"] for one in answer["outputs"]] == [2, 2]
    table = json.loads((inputs / "out" / "a.json").read_text())
    assert [cell["number"] for cell in table["cells"]] == [3, 7]


def test_cells_of_boxes_are_classified(run: Run, model: Words, inputs: Path, classifier: Predictor) -> None:
    words = (inputs / "images", "--boxes", inputs / "boxes.csv", "--out", inputs / "out")
    status, answer = run(*model("cells"), *words)
    assert status == 0, answer
    assert [one["objects"] for one in answer["outputs"]] == [2, 1]
    cells = cells_from_boxes([((5, 10), (15, 22)), ((30, 50), (44, 60))])
    expected = classifier.predict(read_image(inputs / "images" / "a.tif"), cells).answer.probabilities
    found = [cell["probabilities"] for cell in json.loads((inputs / "out" / "a.json").read_text())["cells"]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_folder_of_frames_is_linked_by_a_folder_of_masks(
    run: Run, model: Words, inputs: Path, linker: Predictor
) -> None:
    status, answer = run(*model("linker"), inputs / "01", "--masks", inputs / "01_masks", "--out", inputs / "out")
    assert status == 0, answer
    (output,) = answer["outputs"]
    assert output["output"] == str(inputs / "out" / "01_RES")
    expected = linker.predict(image_from_array(MOVIE, "TYX"), MASKS).answer
    np.testing.assert_array_equal(read_lineage(inputs / "out" / "01_RES").table, expected.table)
    assert output["objects"] == len(expected.track_id)
    assert answers_in(inputs / "out") == ["01_RES"]


@pytest.mark.slow
def test_frames_and_masks_of_any_name_are_one_lineage(run: Run, model: Words, inputs: Path, linker: Predictor) -> None:
    for folder in ("01", "01_masks"):
        for frame, path in enumerate(sorted((inputs / folder).iterdir())):
            path.rename(path.with_name(f"img_{frame}.TIF"))
    status, answer = run(*model("linker"), inputs / "01", "--masks", inputs / "01_masks", "--out", inputs / "out")
    assert status == 0, answer
    expected = linker.predict(image_from_array(MOVIE, "TYX"), MASKS).answer
    np.testing.assert_array_equal(read_lineage(inputs / "out" / "01_RES").table, expected.table)


def test_an_image_beside_the_frames_is_an_error_that_names_it(run: Run, model: Words, inputs: Path) -> None:
    (inputs / "01" / "overview.tif").write_bytes(tiff_bytes(MOVIE[0]))
    status, answer = run(*model("linker"), inputs / "01", "--masks", inputs / "01_masks", "--out", inputs / "out")
    assert status == 2
    assert "overview.tif" in answer["message"]


@pytest.mark.slow
def test_a_movie_is_linked_through_a_segmentation_model(
    run: Run, model: Words, inputs: Path, linker: Predictor, segmenter: Predictor
) -> None:
    (inputs / "movie.tif").write_bytes(tiff_bytes(MOVIE, metadata={"axes": "TYX"}))
    words = (inputs / "movie.tif", "--segmentation", "nuclei@champion", "--format", "json", "--out", inputs / "out")
    status, answer = run(*model("linker"), *words)
    assert status == 0, answer
    masks = np.stack([segmenter.predict(image_from_array(frame, "YX")).answer for frame in MOVIE])
    expected = linker.predict(image_from_array(MOVIE, "TYX"), masks).answer
    tracks = json.loads((inputs / "out" / "movie.json").read_text())["tracks"]
    assert [row["track"] for row in tracks] == expected.track_id.tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form", "written"),
    [
        ("cells", "csv", "a.csv"),
        ("cells", "overlay", "a.overlay.png"),
        ("cells", "heatmap", "a.heatmap.png"),
        ("nuclei", "csv", "a.csv"),
        ("stain", "png", "a.png"),
        ("stain", "zarr", "a.ome.zarr"),
        ("nuclei", "zarr", "a.ome.zarr"),
    ],
)
def test_answers_come_in_every_form(run: Run, folders: Any, inputs: Path, name: str, form: str, written: str) -> None:
    words = (getattr(folders, name), inputs / "images" / "a.tif", "--out", inputs / "out", "--format", form)
    status, answer = run(*words)
    assert status == 0, answer
    assert answers_in(inputs / "out") == [written]


@pytest.mark.slow
@pytest.mark.parametrize(("form", "written"), [("csv", "01.csv"), ("geff", "01.geff"), ("json", "01.json")])
def test_lineages_come_in_every_form(run: Run, model: Words, inputs: Path, form: str, written: str) -> None:
    words = (inputs / "01", "--masks", inputs / "01_masks", "--out", inputs / "out", "--format", form)
    status, answer = run(*model("linker"), *words)
    assert status == 0, answer
    assert answers_in(inputs / "out") == [written]


@pytest.mark.slow
def test_a_stain_beyond_the_memory_budget_is_written_piece_by_piece(run: Run, folders: Any, inputs: Path) -> None:
    (inputs / "large.tif").write_bytes(tiff_bytes(noise(1100, 1300)))
    status, answer = run(folders.stain, inputs / "large.tif", "--out", inputs / "out", "--memory", 16)
    assert status == 0, answer
    assert answer["outputs"][0]["output"] == str(inputs / "out" / "large.ome.zarr")
    assert read_image(inputs / "out" / "large.ome.zarr").shape == (2, 1100, 1300)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "error"),
    [
        ("linker", ("01",), "RequestError"),
        ("linker", ("01", "--boxes", "boxes.csv"), "RequestError"),
        ("linker", ("01", "--masks", "nowhere"), "MissingFileError"),
        ("linker", ("01", "--masks", "images"), "DatasetError"),
        ("linker", ("01", "--segmentation", "nucleoli"), "ModelNotFoundError"),
        ("linker", ("01", "--masks", "01_masks", "--format", "tif"), "RequestError"),
        ("linker", ("01", "--masks", "01_masks", "--format", "zarr"), "RequestError"),
        ("nuclei", ("images/a.tif", "--masks", "masks/a.tif"), "RequestError"),
        ("cells", ("images/a.tif", "--masks", "masks/a.tif", "--boxes", "boxes.csv"), "RequestError"),
        ("cells", ("images/a.tif", "--boxes", "masks/a.tif"), "RequestError"),
        ("cells", ("images/a.tif", "--boxes", "nowhere.csv"), "MissingFileError"),
        ("cells", ("masks/c.tif", "--boxes", "boxes.csv"), "RequestError"),
    ],
)
def test_mistakes_of_the_caller_end_with_two(
    run: Run, model: Words, inputs: Path, name: str, words: tuple[str, ...], error: str
) -> None:
    (inputs / "masks" / "c.tif").write_bytes(tiff_bytes(CELLS))
    known = {path.name for path in inputs.iterdir()} | {"nowhere", "nowhere.csv"}
    full = [inputs / word if Path(word).parts[0] in known else word for word in words]
    status, answer = run(*model(name), *full, "--out", inputs / "out")
    assert (status, answer["error"]) == (2, error), answer
    assert answer["hint"]


def test_one_file_of_masks_is_not_taken_for_several_images(run: Run, folders: Any, inputs: Path) -> None:
    words = (inputs / "images", "--masks", inputs / "masks" / "a.tif", "--out", inputs / "out")
    status, answer = run(folders.cells, *words)
    assert status == 2
    assert ["folder of masks" in one["error"]["message"] for one in answer["outputs"]] == [True, True]


def test_a_result_folder_is_not_overwritten(run: Run, folders: Any, inputs: Path) -> None:
    words = (folders.linker, inputs / "01", "--masks", inputs / "01_masks", "--out", inputs / "out")
    assert run(*words)[0] == 0
    before = sorted((inputs / "out" / "01_RES").iterdir())
    status, answer = run(*words)
    assert (status, answer["error"]) == (2, "RequestError")
    assert sorted((inputs / "out" / "01_RES").iterdir()) == before


def test_a_missing_frame_is_named(run: Run, folders: Any, inputs: Path) -> None:
    (inputs / "01" / "t002.tif").unlink()
    words = (folders.linker, inputs / "01", "--masks", inputs / "01_masks", "--out", inputs / "out")
    status, answer = run(*words)
    assert status == 2
    assert "missing 2" in answer["message"]


@pytest.mark.slow
def test_the_client_gives_every_kind_of_answer(address: str, inputs: Path, stainer: Predictor) -> None:
    image = inputs / "images" / "a.tif"
    with Client(address) as client:
        assert client.model("stain").kind == "image"
        stain = client.predict(image, model="stain")
        classes = client.predict(image, model="cells", boxes=[(10, 5, 22, 15)])
        lineage = client.predict(inputs / "01", model="linker", masks=inputs / "01_masks", accept="application/json")
        labels = client.predict(image, model="nuclei").labels()
    assert stain.image().channels == ("DAPI", "DAPI deviation")
    assert (classes.kind, classes.objects, len(classes.table()["cells"])) == ("class", 1, 1)
    assert lineage.table()["frames"] == len(MOVIE)
    np.testing.assert_array_equal(labels.shape, tifffile.imread(image).shape)
