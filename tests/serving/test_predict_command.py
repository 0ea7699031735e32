import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.images import Image, image_from_array, read_image, write_image
from cytoray_analysis.predictor import Predictor
from cytoray_services.commands.root import main
from serving_samples import NOT_A_NUMBER, answers_in, noise, tiff_bytes

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], cytoray_home: Path) -> Run:
    """Give a function that runs ``cytoray predict --json`` and returns exit status and answer."""

    def run_predict(*words: object) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main(["predict", *map(str, words), "--json"])
        output = capsys.readouterr().out
        answer: dict[str, Any] = json.loads(output)
        assert output.count("\n") == 1
        return int(ended.value.code or 0), answer

    return run_predict


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Make a folder of three images, one of them no image."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.tif").write_bytes(tiff_bytes(noise(64, 64)))
    (folder / "b.ome.tif").write_bytes(tiff_bytes(noise(64, 80), ome=True))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_the_answer_is_that_of_the_predictor(run: Run, bundle_folder: Path, pictures: Path, tmp_path: Path) -> None:
    status, answer = run(bundle_folder, pictures / "a.tif", "--out", tmp_path / "out")
    expected = Predictor(Bundle.load(bundle_folder)).predict(read_image(pictures / "a.tif"))
    assert status == 0
    (output,) = answer["outputs"]
    assert output["output"] == str(tmp_path / "out" / "a.tif")
    assert output["objects"] == expected.objects
    np.testing.assert_array_equal(tifffile.imread(output["output"]), expected.answer)


def test_a_folder_stands_for_its_images(run: Run, bundle_folder: Path, pictures: Path, tmp_path: Path) -> None:
    status, answer = run(bundle_folder, pictures, "--out", tmp_path / "out")
    assert status == 0
    assert [Path(one["output"]).name for one in answer["outputs"]] == ["a.tif", "b.tif"]
    assert set(answer["outputs"][0]) == {"input", "output", "files", "objects", "seconds", "warnings"}


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("tif", "tif"), ("png", "png"), ("overlay", "overlay.png"), ("geojson", "geojson"), ("json", "json")],
)
def test_answers_come_in_every_form(
    run: Run, bundle_folder: Path, pictures: Path, tmp_path: Path, form: str, suffix: str
) -> None:
    status, answer = run(bundle_folder, pictures / "a.tif", "--out", tmp_path, "--format", form)
    assert status == 0
    assert (tmp_path / f"a.{suffix}").stat().st_size > 0
    assert answer["outputs"][0]["output"] == str(tmp_path / f"a.{suffix}")


def test_one_bad_image_does_not_lose_the_others(run: Run, bundle_folder: Path, pictures: Path, tmp_path: Path) -> None:
    (pictures / "aa.tif").write_bytes(b"no image")
    (pictures / "ab.tif").write_bytes(tiff_bytes(NOT_A_NUMBER))
    status, answer = run(bundle_folder, pictures, tmp_path / "gone.tif", "--out", tmp_path / "out")
    assert status == 2
    errors = [one["error"]["error"] if "error" in one else None for one in answer["outputs"]]
    assert errors == [None, "UnreadableImageError", "ImageError", None, "MissingFileError"]
    assert answers_in(tmp_path / "out") == ["a.tif", "b.tif"]


def test_inputs_of_one_name_get_answers_of_their_own(
    run: Run, bundle_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.tif").write_bytes(tiff_bytes(noise(32, 32)))
    _, answer = run(bundle_folder, pictures / "a.tif", other / "a.tif", "--out", tmp_path / "out")
    assert [Path(one["output"]).name for one in answer["outputs"]] == ["a.tif", "a-2.tif"]


def test_an_answer_never_replaces_its_input(run: Run, bundle_folder: Path, pictures: Path) -> None:
    before = (pictures / "a.tif").read_bytes()
    status, answer = run(bundle_folder, pictures / "a.tif", "--out", pictures)
    assert (status, answer["error"]) == (2, "RequestError")
    assert (pictures / "a.tif").read_bytes() == before


@pytest.mark.slow
def test_an_image_beyond_the_memory_budget_is_answered_piece_by_piece(
    run: Run, bundle_folder: Path, tmp_path: Path
) -> None:
    large: Image = image_from_array(np.zeros((1500, 1500), np.uint8), "YX")
    write_image(tmp_path / "large.ome.zarr", large)
    status, answer = run(bundle_folder, tmp_path / "large.ome.zarr", "--out", tmp_path / "out", "--memory", 16)
    assert status == 0
    assert answer["outputs"][0]["output"] == str(tmp_path / "out" / "large.ome.zarr")
    assert read_image(tmp_path / "out" / "large.ome.zarr").spatial_shape == (1500, 1500)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nothing.tif"], "MissingFileError"),
        (["empty"], "MissingFileError"),
        (["a.tif", "--format", "bmp"], "RequestError"),
        (["a.tif", "--memory", "1"], "RequestError"),
    ],
)
def test_mistakes_of_the_caller_end_with_two(
    run: Run, bundle_folder: Path, pictures: Path, words: list[str], error: str
) -> None:
    (pictures / "empty").mkdir()
    status, answer = run(bundle_folder, pictures / words[0], *words[1:], "--out", pictures / "out")
    assert (status, answer["error"]) == (2, error)
    assert answer["message"]


@pytest.mark.parametrize("model", ["nothing-here", "/no/such/folder"])
def test_an_unknown_model_ends_with_two(
    run: Run, registered: Path, pictures: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYTORAY_HOME", str(registered))
    status, answer = run(model, pictures / "a.tif", "--out", pictures / "out")
    assert (status, answer["error"]) == (2, "ModelNotFoundError")


def test_a_service_that_is_not_there_ends_with_one(run: Run, pictures: Path) -> None:
    status, answer = run("nuclei", pictures / "a.tif", "--out", pictures / "out", "--url", "http://127.0.0.1:9")
    assert (status, answer["error"]) == (1, "PlatformError")
