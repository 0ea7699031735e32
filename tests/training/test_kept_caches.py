"""``cytoray cache``: what is kept is listed, and removed unless a process uses it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cytoray_analysis.bundle import ModelInput, TaskChoice
from cytoray_analysis.errors import RequestError
from cytoray_services.datasets import Dataset
from cytoray_services.in_use import use
from cytoray_training.cache_commands import app
from cytoray_training.data.cache import Cache, open_cache

TASK = TaskChoice(name="segmentation")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CYTORAY_HOME", str(tmp_path))
    monkeypatch.delenv("CYTORAY_CACHE", raising=False)
    return tmp_path


def made(home: Path, cells: Dataset, digest: str, *, days: float = 0.0) -> Cache:
    """Decode a data set; its folder was last used so many days ago."""
    cache = open_cache(home / "cache", cells, digest, ModelInput(), TASK)
    for path in (cache.folder, cache.folder.with_name(f"{cache.folder.name}.lock")):
        os.utime(path, (time.time() - days * 86400,) * 2)
    return cache


def let_go(cache: Cache) -> str:
    assert cache.in_use is not None
    cache.in_use.close()
    return cache.folder.name


def asked(*words: str) -> Any:
    result = CliRunner().invoke(app, [*words, "--json"])
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


def test_it_lists_size_data_and_who_uses_it(home: Path, cells: Dataset) -> None:
    kept = made(home, cells, "a")
    (listed,) = asked("list")["caches"]
    assert listed["key"] == kept.folder.name
    assert listed["what"] == "images"
    assert listed["data"] == str(cells.root)
    assert listed["bytes"] == sum(path.stat().st_size for path in kept.folder.iterdir())
    assert listed["in_use"]
    assert os.getpid() in listed["users"]
    let_go(kept)
    assert not asked("list")["caches"][0]["in_use"]
    text = CliRunner().invoke(app, ["list"]).stdout
    assert all(word in text for word in ("LAST USED", kept.folder.name, " -  ", str(cells.root)))


def test_what_is_in_use_stays(home: Path, cells: Dataset) -> None:
    used, unused = made(home, cells, "a"), let_go(made(home, cells, "b"))
    answer = asked("remove", "--older-than", "0")
    assert answer["in_use"] == [used.folder.name]
    assert answer["removed"] == [unused]
    assert used.truth(0).max() > 0
    assert [one["key"] for one in asked("list")["caches"]] == [used.folder.name]
    again = let_go(made(home, cells, "b"))  # a run that needs it makes it again
    assert again == unused


def test_only_what_was_not_used_for_so_long_is_removed_and_nothing_when_it_is_only_asked(
    home: Path, cells: Dataset
) -> None:
    old, new = let_go(made(home, cells, "a", days=40)), let_go(made(home, cells, "b", days=2))
    assert asked("remove", "--older-than", "30", "--dry-run")["removed"] == [old]
    assert asked("remove", new[:8], "--older-than", "30")["removed"] == []
    assert len(asked("list")["caches"]) == 2
    assert asked("remove", "--older-than", "30")["removed"] == [old]
    assert asked("remove", new[:8])["removed"] == [new]
    assert not [path for path in (home / "cache").iterdir() if path.is_dir()]


def test_what_killed_processes_left_is_listed_and_removed_and_what_is_being_written_stays(home: Path) -> None:
    left, written = (home / "cache" / f".{letter * 32}.{'0' * 12}" for letter in "ab")
    shards = home / "shards" / "c-128"
    for folder in (left, written, shards):
        folder.mkdir(parents=True)
    (shards / "000000-000.bin").touch()
    with use(home / "cache" / ("b" * 32)):
        assert {one["key"]: one["what"] for one in asked("list")["caches"]} == {
            left.name: "unfinished",
            written.name: "unfinished",
            "c-128": "shards",
        }
        assert set(asked("remove", "--older-than", "0")["removed"]) == {left.name, "c-128"}
    assert written.is_dir()
    assert not left.exists()
    assert not shards.exists()


@pytest.mark.parametrize("words", [(), ("abc",), ("",)])
def test_it_must_be_clear_what_is_to_be_removed(home: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(RequestError) as raised:
        asked("remove", *words)
    assert "cytoray cache list" in str(raised.value.hint)
