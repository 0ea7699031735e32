"""The kustomization says what the chart says, for those without Helm."""

from __future__ import annotations

import importlib.util
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deploy import charts

FOLDER = charts.REPOSITORY / "deploy" / "kustomize"
OVERLAYS = sorted(path.stem for path in charts.VALUE_FILES)


@cache
def render() -> ModuleType:
    specification = importlib.util.spec_from_file_location("kustomize_render", FOLDER / "render.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@cache
def built(folder: str) -> dict[tuple[str, str, str], Any]:
    build = [charts.tool("kubectl"), "kustomize", str(FOLDER / folder)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {
        (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one
        for one in charts.load_all(done.stdout)
    }


@cache
def wanted(name: str | None) -> dict[tuple[str, str, str], Any]:
    manifests: dict[tuple[str, str, str], Any] = render().rendered(render().value_files()[name] if name else {})
    return manifests


@pytest.mark.slow
def test_the_files_are_what_the_chart_gives() -> None:
    wanted = render().all_files()
    found = {path for part in ("base", "overlays") for path in (FOLDER / part).rglob("*") if path.is_file()}
    assert found == set(wanted), "run python deploy/kustomize/render.py"
    for path, text in wanted.items():
        assert path.read_text(encoding="utf-8") == text, "run python deploy/kustomize/render.py"


def test_the_base_is_the_chart_with_its_defaults() -> None:
    assert built("base") == wanted(None)


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_the_chart_with_its_value_file(name: str) -> None:
    assert built(f"overlays/{name}") == wanted(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
def test_an_api_server_would_take_an_overlay(name: str) -> None:
    if not charts.CRDS.is_dir():
        pytest.skip("KubeRay's definitions are not beside this checkout")
    assert [wrong for manifest in built(f"overlays/{name}").values() for wrong in charts.validate(manifest)] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, *OVERLAYS])
def test_no_password_is_in_a_file(name: str | None) -> None:
    assert [key for key in wanted(name) if key[0] == "Secret"] == []


@pytest.mark.parametrize(
    ("before", "after", "operations"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, {"a": 2}, [{"op": "replace", "path": "/a", "value": 2}]),
        ({"a": 1}, {"b/c": 2}, [{"op": "remove", "path": "/a"}, {"op": "add", "path": "/b~1c", "value": 2}]),
        ({"a": [{"b": 1}, 2]}, {"a": [{"b": 3}, 2]}, [{"op": "replace", "path": "/a/0/b", "value": 3}]),
        ({"a": [1]}, {"a": [1, 2]}, [{"op": "replace", "path": "/a", "value": [1, 2]}]),
        ({"a": {}}, {"a": []}, [{"op": "replace", "path": "/a", "value": []}]),
        ({"a": "1"}, {"a": 1}, [{"op": "replace", "path": "/a", "value": 1}]),
    ],
)
def test_a_patch_says_what_differs(before: Any, after: Any, operations: list[Any]) -> None:
    found = list(render().difference(before, after))
    assert sorted(found, key=str) == sorted(operations, key=str)


def test_every_overlay_has_a_value_file_and_every_value_file_an_overlay() -> None:
    assert sorted(path.name for path in Path(FOLDER / "overlays").iterdir()) == OVERLAYS
