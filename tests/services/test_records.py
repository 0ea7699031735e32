"""A record that is cut off or holds something else is an error that names its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cytoray_analysis.errors import CytorayError, MissingFileError, PlatformError
from cytoray_services.promotion.evaluation_set import recorded_set
from cytoray_services.records import reading
from cytoray_services.registry.offline_run import deliver
from cytoray_services.registry.versions import moves_from_tags
from cytoray_services.tokens.tokens import create_token, read_tokens

GARBAGE = [b"", b"{", b"[1, 2]", b'"text"', b"null", b"\xff\xfe\x00", b'{"other": 1}', b"[" * 100_000]


@pytest.mark.parametrize("content", GARBAGE)
def test_any_content_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(PlatformError, match=r"record\.json") as raised, reading(path, "a number by name"):
        float(json.loads(path.read_text(encoding="utf-8"))["number"])
    assert raised.value.hint
    assert len(raised.value.message) < 500


def test_our_own_errors_pass_and_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError), reading(tmp_path, "a record"):
        raise MissingFileError("there is none")
    with pytest.raises(PlatformError, match=str(tmp_path)), reading(tmp_path, "a record"):
        tmp_path.read_text()


@pytest.mark.parametrize("content", GARBAGE)
def test_a_damaged_file_of_tokens_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokens.json"
    create_token(path, "ada", ("predict",), days=1)
    path.write_bytes(content)
    with pytest.raises(CytorayError, match=r"tokens\.json"):
        read_tokens(path)


@pytest.mark.parametrize("name", ["start.json", "done.json", "calls.jsonl", "model.json"])
@pytest.mark.parametrize("content", [b"{\n", b'{"call": "wipe", "arguments": []}\n', b"[]x\n"])
def test_a_damaged_kept_run_is_named_before_anything_of_it_is_brought_to_mlflow(
    tmp_path: Path, name: str, content: bytes
) -> None:
    folder = tmp_path / "kept-record"
    folder.mkdir()
    start: dict[str, object] = {"experiment": "cells", "name": "first", "params": {}, "tags": {}, "run_id": None}
    (folder / "start.json").write_text(json.dumps(start))
    (folder / "calls.jsonl").write_text('{"call": "end", "arguments": ["FINISHED"]}\n')
    (folder / name).write_bytes(content)
    started: list[Any] = []
    with pytest.raises(PlatformError, match=name):
        deliver(cast(Any, started.append), folder)
    assert started == []
    assert folder.is_dir()


@pytest.mark.parametrize("value", ["", "{", "[]", "{}", '{"when": 1}'])
@pytest.mark.parametrize(
    ("key", "read"),
    [
        ("alias_history.20260101T000000.000000Z.0000", lambda notes: moves_from_tags(notes)),
        (
            "evaluation_set.20260101T000000.000000Z.0000",
            lambda notes: recorded_set(cast(Any, SimpleNamespace(notes=lambda name: notes)), "cells"),
        ),
    ],
)
def test_a_damaged_note_of_a_model_is_named(value: str, key: str, read: Callable[[dict[str, str]], object]) -> None:
    with pytest.raises(PlatformError, match=key):
        read({key: value})
