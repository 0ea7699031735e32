"""``cytoray jobs`` with recipes: dry runs, the service as a place, and what is refused before anything is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cytoray_services.commands.root import main
from cytoray_services.free_ports import free_port
from cytoray_services.jobs.service.audit import read_audit
from cytoray_services.tokens.tokens import create_token
from services.jobs.jobs_service import RECIPE
from services.jobs.kubernetes.api_server import ApiServer

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], cytoray_home: Path) -> Run:
    """Return a function that runs a command and gives its exit status and its output."""

    def run(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["jobs", *words])
        return int(str(ended.value.code)), capsys.readouterr().out

    return run


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "nuclei.yaml"
    path.write_text(RECIPE)
    return str(path)


@pytest.mark.slow
def test_a_dry_run_prints_the_manifest(run: Run, recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    for on in ("kubernetes", "local", "http://head:8265", "ray://head:10001"):
        status, text = run("submit", recipe, "--on", on, "--dry-run", "--set", "training.epochs=7", "--team", "lab")
        assert status == 0
        documents = [one for one in yaml.safe_load_all(text) if one]
        assert "epochs: 7" in text
        assert "cytoray.io/team: lab" in text
        status, text = run("submit", recipe, "--on", on, "--dry-run", "--json")
        told = json.loads(text)
        assert len(told.get("items", [told])) == len(documents)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nuclei.yaml"]


def test_code_travels_where_it_is_asked_for(run: Run, recipe: str) -> None:
    _, plain = run("submit", recipe, "--on", "http://head:8265", "--dry-run", "--json")
    assert "py_modules" not in json.loads(plain)["runtime_env"]
    _, sent = run("submit", recipe, "--on", "http://head:8265", "--dry-run", "--json", "--code")
    folders = json.loads(sent)["runtime_env"]["py_modules"]
    assert {Path(folder).name for folder in folders} >= {"cytoray_analysis", "cytoray_services", "cytoray_training"}
    assert json.loads(sent)["entrypoint"] == "cytoray train recipe.yaml --on auto --json"


def test_a_registry_that_others_can_reach_is_passed_on(run: Run, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for uri, passed in (("http://mlflow:5000", {"MLFLOW_TRACKING_URI": "http://mlflow:5000"}), ("sqlite:///a.db", {})):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        _, text = run("submit", recipe, "--on", "http://head:8265", "--dry-run", "--json")
        assert json.loads(text)["runtime_env"]["env_vars"] == passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("submit", "RECIPE", "--set", "training.epochs=many"), "training.epochs"),
        (("submit", "RECIPE", "--set", "trainings.epochs=1"), "trainings"),
        (("submit", "nowhere.yaml"), "recipe"),
        (("submit", "RECIPE", "--command", "dance"), "--command"),
        (("submit", "RECIPE", "--command", "tune"), "tune"),
        (("submit", "RECIPE", "--on", "elsewhere"), "--on"),
        (("submit", "RECIPE", "--on", "service:http://127.0.0.1:1", "--code"), "--code"),
        (("submit", "nuclei"), "INPUT"),
        (("submit", "nuclei", "in", "out", "--on", "local"), "--on"),
        (("list", "--on", "elsewhere"), "--on"),
    ],
)
def test_what_is_wrong_is_reported_before_anything_is_asked(
    run: Run, recipe: str, words: tuple[str, ...], field: str
) -> None:
    status, text = run(*(recipe if word == "RECIPE" else word for word in words), "--json")
    error: dict[str, Any] = json.loads(text)
    assert (status, error["field"]) == (2, field)


@pytest.fixture
def served(cluster: ApiServer, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Start ``cytoray jobs serve`` in front of a Kubernetes; give its address and its folder."""
    config = {"place": "kubernetes", "audit": str(tmp_path / "audit.jsonl"), "teams": {"lab": {"jobs": 1}}}
    (tmp_path / "jobs.yaml").write_text(yaml.safe_dump(config | {"tokens": str(tmp_path / "tokens.json")}))
    create_token(tmp_path / "tokens.json", "old", ("submit",), days=1)
    port = free_port()
    program = "from cytoray_services.commands.root import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "jobs", "serve", "--config", str(tmp_path / "jobs.yaml"), f"--port={port}"],
        env=os.environ | {"KUBECONFIG": str(cluster.kubeconfig(tmp_path)), "CYTORAY_HOME": str(tmp_path / "home")},
    )
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while not _ready(url):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    yield url, tmp_path
    process.terminate()
    assert process.wait(30) in (0, 143)


@pytest.mark.slow
def test_the_service_is_a_place_like_the_others(
    run: Run, recipe: str, served: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = served
    on = ("--on", f"service:{url}", "--json")
    assert json.loads(run("list", *on)[1])["error"] == "UnauthorizedError"
    token, _ = create_token(folder / "tokens.json", "ada", ("submit",), days=1, team="lab")
    monkeypatch.setenv("CYTORAY_TOKEN", token)
    status, text = run("submit", recipe, *on)
    job = json.loads(text)
    assert (status, job["owner"], job["team"], job["state"]) == (0, "ada", "lab", "queued")
    status, text = run("submit", recipe, *on)
    assert (status, json.loads(text)["error"]) == (1, "OverloadedError")
    assert [one["id"] for one in json.loads(run("list", *on)[1])["jobs"]] == [job["id"]]
    assert json.loads(run("show", job["id"], *on)[1])["id"] == job["id"]
    assert run("stop", job["id"], *on)[0] == 0
    assert run("show", "nuclei-zzzzz", *on)[0] == 2
    status, table = run("list", "--on", f"service:{url}")
    assert status == 0
    assert table.split()[:7] == ["id", "state", "command", "model", "owner", "progress", "created"]
    assert [act.outcome for act in read_audit(folder / "audit.jsonl")] == ["begun", "done", "refused", "begun", "done"]


@pytest.mark.slow
def test_a_service_does_not_start_with_what_is_not_whole(run: Run, tmp_path: Path) -> None:
    assert run("serve", "--config", str(tmp_path / "none.yaml"))[0] == 2
    (tmp_path / "jobs.yaml").write_text("place: local\naudit: a\nplaces: 3\n")
    assert run("serve", "--config", str(tmp_path / "jobs.yaml"))[0] == 2
    trail = tmp_path / "audit.jsonl"
    (tmp_path / "jobs.yaml").write_text(f"place: local\naudit: {trail}\n")
    assert run("serve", "--config", str(tmp_path / "jobs.yaml"), "--insecure-local", "--host", "0.0.0.0")[0] == 2
    assert run("serve", "--config", str(tmp_path / "jobs.yaml"))[0] == 2  # there are no tokens
    trail.write_text("{}\n")
    assert run("serve", "--config", str(tmp_path / "jobs.yaml"), "--insecure-local")[0] == 2


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.HTTPError:
        return False
