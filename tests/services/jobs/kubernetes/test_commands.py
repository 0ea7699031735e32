"""The command line against an API server: submit, list, show, logs, stop with ``--on kubernetes``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cytoray_services.commands.root import main
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import NAMESPACE, Operator

RECIPE = """
model: {name: nuclei, task: {name: segmentation}}
data: {root: "pvc://images/nuclei"}
scale: {workers: 2}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_job_from_submitting_to_its_logs(
    server: ApiServer, kubeconfig: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = answer(capsys, "jobs", "submit", str(recipe), "--on", "kubernetes")
    assert (job["state"], job["place"], job["scale"]["workers"]) == ("queued", "kubernetes:lab/lab", 2)
    operator = Operator(server, job["id"])
    operator.initialize()
    operator.make_pods()
    server.print(operator.run(), "epoch 1: loss 0.5")

    listed = answer(capsys, "jobs", "list", "--on", "kubernetes:lab")["jobs"]
    shown = answer(capsys, "jobs", "show", job["id"], "--on", "kubernetes:lab/lab")
    assert [(one["id"], one["state"]) for one in listed] == [(job["id"], "running")]
    assert shown["workers"] == 2
    assert run("jobs", "logs", job["id"], "--on", "kubernetes") == 0
    assert capsys.readouterr().out == "epoch 1: loss 0.5\n"
    assert answer(capsys, "jobs", "stop", job["id"], "--on", "kubernetes")["state"] == "cancelled"
    assert answer(capsys, "jobs", "show", job["id"], "--on", "kubernetes")["state"] == "cancelled"


def test_a_dry_run_prints_the_manifest_and_sends_nothing(
    server: ApiServer, kubeconfig: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("jobs", "submit", str(recipe), "--on", "kubernetes", "--dry-run") == 0

    kinds = [one["kind"] for one in yaml.safe_load_all(capsys.readouterr().out)]
    assert kinds == ["RayJob", "ConfigMap"]
    assert server.objects.names("rayjobs", NAMESPACE) == []


def test_a_namespace_that_does_not_exist_is_reported_with_what_to_do(
    kubeconfig: Path, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("jobs", "submit", str(recipe), "--on", "kubernetes:lab/nowhere") == 2

    told = capsys.readouterr().err
    assert "error: there is no namespace nowhere in this cluster\n" in told
    assert " hint: name another" in told
