"""``cytoray data``: what it prints and how it exits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data", "check", "nowhere"), "no data set folder"),
        (("data", "hash", "nowhere"), "no data set folder"),
        (("data", "make", "poetry", "x"), "expected the task segmentation"),
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
