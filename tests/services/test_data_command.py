"""``cytoray data``: what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.images import read_image
from cytoray_services.commands.root import main
from cytoray_services.datasets import hash_dataset, open_dataset


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    status = stopped.value.code
    assert isinstance(status, int)
    return status, capsys.readouterr().out


def answer(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, dict[str, Any]]:
    status, out = run(capsys, *words, "--json")
    return status, json.loads(out)


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    folder = tmp_path / "cells"
    assert run(capsys, "data", "make", "segmentation", folder, "--images", "4", "--size", "64x48")[0] == 0
    return folder


@pytest.mark.slow
def test_a_made_data_set_checks_and_hashes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = answer(capsys, "data", "check", made)
    assert (status, found["errors"], found["findings"]) == (0, 0, [])
    status, hashed = answer(capsys, "data", "hash", made)
    assert (status, hashed["hash"], hashed["items"]) == (0, hash_dataset(open_dataset(made)), 4)
    assert run(capsys, "data", "hash", made) == (0, hashed["hash"] + "\n")


def test_making_says_what_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, made = answer(capsys, "data", "make", "segmentation", tmp_path / "a", "--images", "4", "--size", "64")
    assert (status, made["splits"]) == (0, {"train": 3, "val": 1})
    assert made["hash"] == hash_dataset(open_dataset(tmp_path / "a"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "options", "truth"),
    [
        ("segmentation", "--images 2 --size 64 --bits 16 --transmitted 1", "labels"),
        ("segmentation", "--images 2 --size 40x32 --depth 9 --bits 16", "labels"),
        ("classification", "--images 2 --size 160 --classes 3 --imbalance 2", "class"),
        ("classification", "--images 2 --size 120 --layout folders", "class"),
        ("label-free", "--images 2 --size 64", "image"),
        ("label-free", "--images 2 --size 64x80 --planes 3 --volume --channels 2", "image"),
        ("tracking", "--images 2 --size 96 --frames 8", "lineage"),
    ],
)
def test_every_task_has_data_to_make_that_check_without_an_error(
    task: str, options: str, truth: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, made = answer(capsys, "data", "make", task, tmp_path / "a", "--seed", "4", *options.split())
    assert (status, made["task"]) == (0, task)
    assert made["hash"] == hash_dataset(open_dataset(tmp_path / "a"))
    status, found = answer(capsys, "data", "check", tmp_path / "a")
    assert (status, found["errors"], found["truth"]) == (0, 0, truth)
    assert found["splits"] == made["splits"]
    assert found["items"] == sum(made["splits"].values())


def test_options_may_stand_before_the_task_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", "make", "--images", "2", "--size=64", "segmentation", str(tmp_path / "a")])
    assert stopped.value.code == 0
    assert "write the task first: cytoray data make segmentation" in capsys.readouterr().err
    assert read_image(open_dataset(tmp_path / "a").items[1].image).shape == (64, 64)


def test_volumes_have_the_planes_that_were_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(capsys, "data", "make", "segmentation", tmp_path / "a", "--images", "1", "--size", "40x32", "--depth", "9")
    (item,) = open_dataset(tmp_path / "a").items
    assert read_image(item.image).shape == (9, 40, 32)


def test_making_needs_leave_to_write_into_a_folder_that_holds_something(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("data", "make", "classification", made, "--images", "1", "--size", "80")
    assert answer(capsys, *words)[1]["error"] == "DatasetError"
    assert answer(capsys, *words, "--overwrite")[0] == 0


@pytest.mark.slow
def test_classes_are_counted_per_split_with_their_imbalance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--images", "8", "--size", "320", "--classes", "2", "--imbalance", "4")
    answer(capsys, "data", "make", "classification", tmp_path / "a", *words)
    status, found = answer(capsys, "data", "check", tmp_path / "a")
    assert (status, found["errors"], found["warnings"], found["notes"]) == (0, 0, 0, 1)
    assert found["classes"] == {"train": {"round": 182, "spindle": 46}, "val": {"round": 61, "spindle": 15}}
    assert found["imbalance"] == 4.0
    assert [finding["code"] for finding in found["findings"]] == ["class-imbalance"]
    status, text = run(capsys, "data", "check", tmp_path / "a")
    assert status == 0
    assert "182" in text
    assert "note" in text


def test_data_without_classes_have_no_counts_of_them(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "data", "check", made)[1]
    assert found.keys() == {"dataset", "truth", "items", "splits", "errors", "warnings", "notes", "findings"}


@pytest.mark.slow
def test_data_that_do_not_fit_the_model_exit_with_two(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, code in [(("--axes", "ZYX"), "wrong-axes"), (("--channels", "2"), "wrong-channels")]:
        status, found = answer(capsys, "data", "check", made, *words)
        assert status == 2
        assert {finding["code"] for finding in found["findings"]} == {code}
    status, found = answer(capsys, "data", "check", made, "--truth", "class")
    assert (status, len(found["findings"])) == (2, 1)


def test_a_ruined_data_set_exits_with_two_and_names_file_and_remedy(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (made / "masks" / "0001.tif").write_text("no pixels")
    status, found = answer(capsys, "data", "check", made)
    assert (status, found["errors"]) == (2, 1)
    (finding,) = found["findings"]
    assert (finding["file"], finding["code"], finding["severity"]) == ("masks/0001.tif", "unreadable", "error")
    assert finding["remedy"]
    status, table = run(capsys, "data", "check", made)
    assert status == 2
    assert "masks/0001.tif" in table


def test_warnings_alone_exit_with_nought(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "manifest.csv").unlink()
    status, found = answer(capsys, "data", "check", made, "--require", "train")
    assert (status, found["errors"], found["warnings"]) == (0, 0, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data", "check", "nowhere"), "expected a data set folder, nowhere does not exist"),
        (("data", "hash", "nowhere"), "expected a data set folder, nowhere does not exist"),
        (
            ("data", "make", "poetry", "x"),
            "expected one of the tasks segmentation, classification, tracking, label-free",
        ),
        (("data", "make", "tracking", "x", "--bits", "8"), "No such option: --bits"),
        (("data", "make", "classification", "x", "--volume"), "No such option: --volume"),
        (("data", "make", "classification", "x", "--layout", "heap"), "expected the layout boxes or folders"),
        (("data", "make", "segmentation", "x", "--depth", "9", "--transmitted", "0.5"), "--depth or --transmitted"),
        (("data", "check", ".", "--axes", "XY"), "expected YX or ZYX"),
        (("data", "check", ".", "--truth", "poetry"), "expected labels or image or class or lineage"),
        (("data", "make", "segmentation", "x", "--size", "big"), "expected a size"),
        (("data", "make", "segmentation", "x", "--bits", "12"), "expected 8 or 16 bits"),
        (("data", "check", ".", "--column", "mask"), "expected --column ROLE=NAME"),
    ],
)
def test_mistakes_exit_with_two_and_a_message(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, error = answer(capsys, *words)
    assert status == 2
    assert message in error["message"]
    assert list(tmp_path.iterdir()) == []
