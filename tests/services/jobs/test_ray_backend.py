"""Jobs on real Ray clusters, through the command line: this machine's own, and the same one as if it were elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from cytoray_services.datasets import make_segmentation
from cytoray_services.jobs.ray.local import LocalCluster, LocalRay
from cytoray_services.settings import load_settings

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

RECIPE: dict[str, Any] = {
    "model": {
        "name": "tiny",
        "task": {"name": "segmentation"},
        "network": {"name": "unet", "arguments": {"widths": [8]}},
    },
    "data": {"root": "cells", "channels": "grey"},
    "training": {"epochs": 1, "crops_per_epoch": 8, "crop_size": 32, "batch_size": 4, "engine": "torch"},
    "scale": {"workers": 1},
}


@dataclass
class Lab:
    """A folder in which somebody works."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def cytoray(self, *words: str, status: int = 0, variables: Mapping[str, str] = {}) -> tuple[dict[str, Any], str]:
        """Run a command; return its JSON and what it says on standard error."""
        program = "from cytoray_services.commands.root import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", program, *words, "--json"],
            cwd=self.folder,
            env=self.environment() | dict(variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout), done.stderr

    def environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW", "CYTORAY"))}
        return ours | {"CYTORAY_HOME": str(self.home), "OMP_NUM_THREADS": "1"}

    def cluster(self) -> LocalCluster:
        cluster = LocalRay(load_settings({"CYTORAY_HOME": str(self.home)})).running()
        assert cluster is not None
        return cluster

    def end(self) -> None:
        """End the cluster that jobs started here with the printed command, if it runs."""
        cluster = LocalRay(load_settings({"CYTORAY_HOME": str(self.home)})).running()
        if cluster is None:
            return
        os.kill(cluster.pid, signal.SIGTERM)
        assert cluster.ending == f"kill {cluster.pid}"
        until = time.monotonic() + 60
        while psutil.pid_exists(cluster.pid) and cluster.runs:
            assert time.monotonic() < until
            time.sleep(0.2)
        shutil.rmtree(cluster.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A folder with data and a recipe; the cluster that jobs start here is ended afterwards, as the output says."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    make_segmentation(lab.folder / "cells", images=4, size=48, seed=3)
    (lab.folder / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    yield lab
    lab.end()


@pytest.fixture(scope="module")
def trained(lab: Lab) -> tuple[dict[str, Any], str]:
    """The first job of the cluster, which has ended, and what the command printed."""
    return lab.cytoray("jobs", "submit", "tiny.yaml", "--on", "local", "--team", "lab", "--follow")


def test_a_recipe_is_trained_here_and_the_cluster_lists_it(lab: Lab, trained: tuple[dict[str, Any], str]) -> None:
    job, said = trained
    assert (job["state"], job["name"], job["command"], job["team"]) == ("done", "tiny", "train", "lab")
    assert "end it with: kill" in said
    assert "epoch 1/1" in said
    listed, _ = lab.cytoray("jobs", "list", "--on", "local")
    assert [one["id"] for one in listed["jobs"]] == [job["id"]]
    assert (listed["jobs"][0]["progress"]["done"], listed["jobs"][0]["progress"]["total"]) == (1, 1)
    log, _ = lab.cytoray("jobs", "logs", job["id"], "--on", "local")
    assert "epoch 1/1" in log["log"]
    models, _ = lab.cytoray("models", "show", "tiny")
    assert models["model"] == "tiny"  # trained into the registry of whoever submitted it


def test_a_job_that_fails_says_why(lab: Lab) -> None:
    job, _ = lab.cytoray("jobs", "submit", "tiny.yaml", "--set", "data.root=nowhere", "--follow", status=1)
    assert job["state"] == "failed"
    assert "nowhere" in job["reason"]


def test_a_job_is_stopped_and_stays_so(lab: Lab) -> None:
    job, _ = lab.cytoray("jobs", "submit", "tiny.yaml", "--set", "training.epochs=5000")
    assert job["state"] in ("queued", "running")
    assert lab.cytoray("jobs", "stop", job["id"], "--on", "local")[0]["state"] == "cancelled"
    assert lab.cytoray("jobs", "stop", job["id"], "--on", "local")[0]["state"] == "cancelled"
    shown, _ = lab.cytoray("jobs", "show", job["id"], "--on", "local", "--follow")
    assert shown["ended"] is not None


def test_what_the_cluster_does_not_have_is_refused_before_it_starts(lab: Lab) -> None:
    error, _ = lab.cytoray("jobs", "submit", "tiny.yaml", "--set", "scale.gpus_per_worker=1", status=2)
    assert (error["field"], error["message"]) == ("scale.gpus_per_worker", "expected at most 0 GPUs, got 1 (1 workers)")
    wide = ("scale.workers=500", "training.batch_size=500", "training.crops_per_epoch=500")
    error, _ = lab.cytoray("jobs", "submit", "tiny.yaml", *(f"--set={one}" for one in wide), status=2)
    assert error["field"] == "scale.workers"
    assert lab.cluster().ending in error["hint"]


def test_another_state_folder_has_a_cluster_of_its_own(lab: Lab, tmp_path: Path) -> None:
    assert lab.cytoray("jobs", "list", "--on", "local", variables={"CYTORAY_HOME": str(tmp_path)})[0]["jobs"] == []
    assert lab.cluster().runs


@pytest.mark.long
@pytest.mark.usefixtures("trained")  # starts the cluster
def test_a_cluster_elsewhere_asks_for_its_token_and_runs_the_code_that_is_sent(lab: Lab) -> None:
    cluster = lab.cluster()
    error, _ = lab.cytoray("jobs", "list", "--on", cluster.address, status=2)
    assert error["error"] == "UnauthorizedError"
    assert "RAY_AUTH_TOKEN" in error["hint"]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": cluster.token}
    words = ("jobs", "submit", "tiny.yaml", "--on", cluster.address, "--code", "--set", "training.seed=1", "--follow")
    job, _ = lab.cytoray(*words, variables=token)
    assert (job["state"], job["place"]) == ("done", cluster.address)
    listed, _ = lab.cytoray("jobs", "list", "--on", "local")
    assert job["id"] in [one["id"] for one in listed["jobs"]]


@pytest.mark.long
def test_when_the_cluster_has_ended_its_jobs_are_still_listed_with_their_logs(
    lab: Lab, trained: tuple[dict[str, Any], str]
) -> None:
    done, _ = trained
    cancelled, _ = lab.cytoray("jobs", "train", "tiny.yaml", "--set", "training.epochs=5000")
    lab.cytoray("jobs", "stop", cancelled["id"])
    running, _ = lab.cytoray("jobs", "train", "tiny.yaml", "--set", "training.epochs=5000")
    until = time.monotonic() + 120
    while "epoch" not in lab.cytoray("jobs", "logs", running["id"])[0]["log"]:
        assert time.monotonic() < until
        time.sleep(0.5)
    before, _ = lab.cytoray("jobs", "list", "--on", "local")
    lab.end()
    after, _ = lab.cytoray("jobs", "list", "--on", "local")
    states = {one["id"]: (one["state"], one["reason"]) for one in after["jobs"]}
    # One that was submitted as if to a cluster elsewhere is not listed: that cluster keeps its jobs itself.
    assert [one["id"] for one in before["jobs"] if one["id"] in states] == list(states)
    assert {done["id"], cancelled["id"], running["id"]} <= set(states)
    assert states[done["id"]] == ("done", None)
    assert states[running["id"]][0] == "failed"
    assert "ended" in str(states[running["id"]][1])  # the cluster, or the command, which lost it
    assert states[cancelled["id"]][0] == "cancelled"
    assert "epoch 1/1" in lab.cytoray("jobs", "logs", done["id"])[0]["log"]
    assert "epoch" in lab.cytoray("jobs", "logs", running["id"], "--follow")[0]["log"]
    assert lab.cytoray("jobs", "status", done["id"])[0]["progress"]["done"] == 1
