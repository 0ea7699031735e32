"""``cytoray predict`` over folders: every input is answered or named, and no file is replaced."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import typer
import zarr

from cytoray_analysis.answer_warnings import AnswerWarning
from cytoray_analysis.errors import ImageTooLargeError, RequestError
from cytoray_analysis.images import image_from_array, write_image
from cytoray_services.commands.root import main
from cytoray_serving.commands.predict import predict_inputs
from cytoray_serving.predict.answer_writer import AnswerWriter
from cytoray_serving.predict.given_objects import GivenObjects, InputObjects
from cytoray_serving.predict.input_files import InputFile
from cytoray_serving.predict.predicting import Answerer, Done
from cytoray_serving.schema import ModelAnswered
from serving_samples import answers_in, noise, tiff_bytes

Run = Callable[..., tuple[int, dict[str, Any], str]]
MODEL = ModelAnswered(name="m", version=None, digest="d" * 64)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], cytoray_home: Path, bundle_folder: Path) -> Run:
    """Give a function that runs ``cytoray predict --json``: exit status, answer, standard error."""

    def run_predict(*words: object) -> tuple[int, dict[str, Any], str]:
        with pytest.raises(SystemExit) as ended:
            main(["predict", str(bundle_folder), *map(str, words), "--json"])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(captured.out), captured.err

    return run_predict


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for number, name in enumerate(("a.tif", "below/a.tif", "below/b.svs")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(tiff_bytes(noise(48, 48, seed=number)))
    (folder / "notes.txt").write_text("no image")
    return folder


def test_several_forms_are_written_in_one_pass(run: Run, pictures: Path, tmp_path: Path) -> None:
    forms = ("tif", "csv", "overlay", "png", "json", "geojson", "arrow", "zarr", "arrays")
    words = [word for form in forms for word in ("--format", form)]
    status, answer, _ = run(pictures / "a.tif", "--out", tmp_path / "out", *words)
    assert status == 0, answer
    (output,) = answer["outputs"]
    assert set(output["files"]) == set(forms)
    assert answers_in(tmp_path / "out") == sorted(Path(name).name for name in output["files"].values())
    assert len(answers_in(tmp_path / "out")) == len(forms)
    labels = tifffile.imread(output["files"]["tif"])
    rows = Path(output["files"]["csv"]).read_text().splitlines()
    assert len(rows) - 1 == labels.max() == output["objects"]


def test_the_end_says_what_became_of_everything(run: Run, pictures: Path, tmp_path: Path) -> None:
    (pictures / "bad.tif").write_bytes(b"no image")
    status, answer, said = run(pictures, "--out", tmp_path / "out")
    assert status == 2
    assert (answer["answered"], answer["of"], answer["skipped"]) == (1, 2, [])
    assert {Path(one["path"]).name for one in answer["left_out"]} == {"below", "notes.txt"}
    assert all(one["reason"] for one in answer["left_out"])
    assert "1 of 2 inputs answered, 1 failed, 2 left out" in said
    assert "notes.txt" in said


def test_folders_are_kept_in_the_answers(run: Run, pictures: Path, tmp_path: Path) -> None:
    status, answer, _ = run(pictures, "--recursive", "--out", tmp_path / "out")
    assert status == 0, answer
    outputs = [Path(one["output"]).relative_to(tmp_path / "out").as_posix() for one in answer["outputs"]]
    assert outputs == ["a.tif", "below/a.tif", "below/b.tif"]


def test_nothing_that_exists_is_replaced(run: Run, pictures: Path, tmp_path: Path) -> None:
    assert run(pictures, "--out", tmp_path / "out")[0] == 0
    answer_file = tmp_path / "out" / "a.tif"
    tifffile.imwrite(answer_file, np.ones((48, 48), np.uint16))
    corrected = answer_file.read_bytes()
    status, answer, _ = run(pictures, "--recursive", "--out", tmp_path / "out")
    assert (status, answer["error"]) == (2, "RequestError")
    assert "a.tif" in answer["message"]
    assert "--overwrite" in answer["hint"]
    assert answers_in(tmp_path / "out") == ["a.tif"]
    status, answer, said = run(pictures, "--recursive", "--skip-existing", "--out", tmp_path / "out")
    assert status == 0, answer
    assert (answer["answered"], answer["of"]) == (2, 3)
    (skipped,) = answer["skipped"]
    assert "edited since: kept unchanged" in skipped["reason"]
    assert "2 of 3 inputs answered, 1 skipped" in said
    assert answer_file.read_bytes() == corrected
    status, answer, _ = run(pictures, "--recursive", "--overwrite", "--out", tmp_path / "out")
    assert (status, answer["answered"]) == (0, 3)
    assert (tmp_path / "out" / "a.edited.tif").read_bytes() == corrected


def test_other_options_are_no_answer_to_skip(run: Run, pictures: Path, tmp_path: Path) -> None:
    words = (pictures / "a.tif", "--out", tmp_path / "out", "--skip-existing")
    assert run(*words, "--format", "tif")[0] == 0
    status, answer, _ = run(*words, "--format", "tif", "--format", "csv")
    assert (status, len(answer["skipped"])) == (0, 1)
    assert [Path(one).name for one in answer["outputs"][0]["files"].values()] == ["a.csv"]
    (pictures / "a.tif").write_bytes(tiff_bytes(noise(32, 32)))
    assert run(*words)[1]["error"] == "RequestError"


def test_answers_beside_their_inputs_are_no_inputs(run: Run, pictures: Path) -> None:
    words = (pictures, "--out", pictures, "--format", "png")
    assert run(*words)[0] == 0
    status, answer, _ = run(*words, "--skip-existing")
    assert (status, answer["of"], len(answer["skipped"])) == (0, 1, 1)
    assert "a.png" in {Path(one["path"]).name for one in answer["left_out"]}
    status, answer, _ = run(pictures, "--out", pictures, "--overwrite")
    assert (status, answer["error"]) == (2, "RequestError")
    assert tifffile.imread(pictures / "a.tif").shape == (48, 48)


def test_a_folder_of_answers_below_the_images_is_no_input(run: Run, pictures: Path) -> None:
    words = (pictures, "--recursive", "--out", pictures / "answers")
    assert run(*words)[1]["of"] == 3
    assert run(*words, "--skip-existing")[1]["of"] == 3


def plate_in(folder: Path, *lacking: str) -> Path:
    """Write a plate of two wells with a field each, and leave out some of its parts."""
    path = folder / "plate.ome.zarr"
    wells = {"A/1": noise(48, 48, seed=1), "B/2": noise(48, 48, seed=2)}
    group = zarr.open_group(str(path), mode="w")
    group.attrs.update({"ome": {"version": "0.5", "plate": {"wells": [{"path": well} for well in wells]}}})
    for well, pixels in wells.items():
        zarr.open_group(str(path / well[0]), mode="a")
        member = zarr.open_group(str(path / well), mode="a")
        member.attrs.update({"ome": {"version": "0.5", "well": {"images": [{"path": "0"}]}}})
        write_image(path / well / "0.zarr", image_from_array(pixels, "YX"))
        (path / well / "0.zarr").rename(path / well / "0")
    for part in lacking:
        shutil.rmtree(path / part)
    return path


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder.with_name("plate.zarr.zip"), "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder.parent))
    return folder.with_name("plate.zarr.zip")


@pytest.mark.slow
@pytest.mark.parametrize("pack", [lambda path: path, zipped], ids=["folder", "zip"])
def test_every_field_of_a_plate_is_answered(pack: Callable[[Path], Path], run: Run, tmp_path: Path) -> None:
    plate = pack(plate_in(tmp_path))
    status, answer, _ = run(plate, "--series", "each", "--out", tmp_path / "out")
    assert (status, answer["answered"]) == (0, 2)
    assert answers_in(tmp_path / "out") == ["plate-A_1_0.tif", "plate-B_2_0.tif"]


@pytest.mark.slow
@pytest.mark.parametrize("pack", [lambda path: path, zipped], ids=["folder", "zip"])
def test_a_field_that_is_not_there_keeps_no_other_from_being_answered(
    pack: Callable[[Path], Path], run: Run, tmp_path: Path
) -> None:
    plate = pack(plate_in(tmp_path, "A/1"))
    status, answer, _ = run(plate, "--series", "each", "--out", tmp_path / "out")
    assert (status, answer["answered"], answer["of"]) == (2, 1, 2)
    assert "the image A/1, which is missing" in answer["outputs"][0]["error"]["message"]
    assert answers_in(tmp_path / "out") == ["plate-B_2_0.tif"]


def test_no_answer_is_put_into_an_image(run: Run, tmp_path: Path) -> None:
    field = plate_in(tmp_path) / "A" / "1" / "0"
    before = sorted(field.rglob("*"))
    status, answer, _ = run(field, "--out", field / "answers")
    assert status == 2
    assert "inputs are never replaced" in answer["message"]
    assert sorted(field.rglob("*")) == before


def test_an_empty_folder_that_is_called_zarr_is_no_movie(run: Run, pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.zarr").mkdir()
    status, answer, _ = run(pictures, "--out", tmp_path / "out")
    (failed,) = [output["error"]["message"] for output in answer["outputs"] if "error" in output]
    assert (status, answer["answered"]) == (2, 1)
    assert "expected an image file or an OME-Zarr folder" in failed


def test_replacing_and_skipping_exclude_each_other(run: Run, pictures: Path, tmp_path: Path) -> None:
    status, answer, _ = run(pictures, "--out", tmp_path, "--overwrite", "--skip-existing")
    assert (status, answer["error"]) == (2, "RequestError")


def test_a_place_that_is_a_file_is_refused_before_work(run: Run, pictures: Path) -> None:
    status, answer, _ = run(pictures / "a.tif", "--out", pictures / "notes.txt")
    assert (status, answer["error"]) == (2, "RequestError")


@pytest.mark.slow
def test_one_form_that_fails_does_not_keep_the_others(run: Run, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "large.tif", np.zeros((1500, 1500), np.uint8))
    words = (tmp_path / "large.tif", "--memory", 16, "--format", "tif", "--format", "csv", "--out", tmp_path / "out")
    assert run(*words)[0] == 2
    assert answers_in(tmp_path / "out") == ["large.ome.zarr"]


def answering(answer: Callable[[Path], Done]) -> Answerer:
    def write(source: InputFile, objects: InputObjects, formats: Sequence[str], writer: AnswerWriter) -> Done:
        done = answer(source.path)
        writer.write("tif", ".tif", MODEL, lambda draft: draft.write_bytes(b"answer"))
        return done

    return Answerer("labels", ("tif",), MODEL.digest, {}, write)


def predict(answer: Callable[[Path], Done], folder: Path, out: Path) -> int:
    try:
        predict_inputs(answering(answer), [folder], out, GivenObjects(), model="m", recursive=True, json=True)
    except typer.Exit as ended:
        return ended.exit_code
    return 0


@pytest.mark.parametrize(
    ("error", "status", "name", "words"),
    [
        (MemoryError(), 2, "ImageTooLargeError", "memory"),
        (RuntimeError("CUDA out of memory"), 2, "ImageTooLargeError", "memory"),
        (OSError(28, "No space left on device"), 1, "PlatformError", "No space left"),
        (PermissionError(13, "permission denied", "x"), 1, "PlatformError", "permission denied"),
        (KeyError("odd"), 1, "CytorayError", "KeyError"),
        (RequestError("refused"), 2, "RequestError", "refused"),
        (ImageTooLargeError("large"), 2, "ImageTooLargeError", "large"),
    ],
)
def test_whatever_goes_wrong_with_one_input_the_others_are_answered(
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    name: str,
    words: str,
) -> None:
    def answer(path: Path) -> Done:
        if path.name == "a.tif" and path.parent.name == "below":
            raise error
        return Done(3)

    assert predict(answer, pictures, tmp_path / "out") == status
    captured = capsys.readouterr()
    outputs = json.loads(captured.out)["outputs"]
    assert [one.get("error", {}).get("error") for one in outputs] == [None, name, None]
    assert words in outputs[1]["error"]["message"]
    assert "Traceback" not in captured.err
    assert words in captured.err
    assert answers_in(tmp_path / "out") == ["a.tif", "below"]


def test_a_warning_is_said_once_and_counted(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = AnswerWarning("pixel-size-unknown", "the pixel size is unknown")

    def answer(path: Path) -> Done:
        return Done(1, (same, AnswerWarning("channels", f"{path.name} by position")))

    assert predict(answer, pictures, tmp_path / "out") == 0
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert said["warnings"] == {"channels": 3, "pixel-size-unknown": 3}
    assert said["outputs"][0]["warnings"] == [
        {"code": "pixel-size-unknown", "sentence": "the pixel size is unknown"},
        {"code": "channels", "sentence": "a.tif by position"},
    ]
    assert captured.err.count("the pixel size is unknown") == 1
    assert "a.tif: warning: the pixel size is unknown [pixel-size-unknown]" in captured.err
    assert "warning pixel-size-unknown: 3 answers" in captured.err
