"""Searches from end to end on Ray: the better is found, the hopeless is stopped, what was killed goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cytoray_analysis.bundle import Bundle
from cytoray_services.datasets.synthetic.label_free import make_label_free
from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings
from cytoray_training.recipe import Recipe
from cytoray_training.search.search import run_search

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200), pytest.mark.usefixtures("ray_cluster")]

MakeRecipe = Callable[..., Recipe]
GOOD, HOPELESS = 1e-2, 1e-6


def epochs_trained(folder: Path) -> int:
    """Count the epochs that a trial's workers ran, those that were run twice twice."""
    lines = (folder / "progress.jsonl").read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["stage"] == "epoch" for line in lines)


def states(study: Path) -> dict[str, str]:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((study / "members").glob("*.json"))]
    return {record["name"]: record["state"] for record in records}


@pytest.mark.long
@pytest.mark.usefixtures("without_ray")  # the trials run on Ray, and the training runs that confirm them here
def test_the_better_of_two_settings_is_found_confirmed_and_registered_with_its_search(
    cytoray_home: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    settings = load_settings()
    stain = make_label_free(tmp_path / "stain", images=28, size=64, seed=1)
    manifest = stain.root / "manifest.csv"
    head, *rows = manifest.read_text(encoding="utf-8").splitlines()
    tested = [row.replace(",train", ",test") if at % 2 else row for at, row in enumerate(rows)]
    manifest.write_text("\n".join([head, *tested]), encoding="utf-8")
    space = {"training.learning_rate": {"choice": [HOPELESS, GOOD]}}
    tune = {"space": space, "searcher": "random", "trials": 2, "concurrent": 2, "asha": None, "seed": 3}
    recipe = make_recipe(tune, data={"root": str(stain.root)}, learning_rate=HOPELESS, epochs=2)
    outcome = run_search(recipe, settings)

    assert outcome["best"]["values"] == {"training.learning_rate": GOOD}
    assert {trial["state"] for trial in outcome["trials"]} == {"completed"}
    assert outcome["trials"][0]["values"] == {}
    scores = {trial["name"]: trial["selection_pearson"] for trial in outcome["trials"]}
    assert scores[outcome["best"]["name"]] > 0.2 + scores["trial-001"]
    version = Registry.open(settings).resolve("tiny@candidate")
    assert (version.version, version.run_id) == (outcome["version"], outcome["run_id"])
    assert version.tags["search"] == outcome["search_run_id"]
    assert Bundle.load(outcome["bundle"]).digest == version.digest
    report = Path(outcome["report"])
    assert "trial-002" in report.read_text(encoding="utf-8")
    comparison = outcome["comparison"]
    assert (comparison["verdict"], comparison["seeds"]) == ("better", 2)
    assert comparison["low"] > 0
    assert comparison["units"] == len({Path(row.split(",")[0]) for row in tested if row.endswith("test")}) >= 6
    assert comparison["says"] in report.read_text(encoding="utf-8")
    assert "a selection score" in report.read_text(encoding="utf-8")
    assert outcome["test"]["pearson"]["low"] < outcome["test"]["pearson"]["score"]
    seeds = {name for name in states(Path(outcome["study"])) if name.startswith("confirm-")}
    best = outcome["best"]["name"]
    assert seeds == {f"confirm-{name}-seed-{seed}" for name in ("trial-001", best) for seed in (1, 2)}
    assert (report.parent / "parallel.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.long
def test_a_search_that_is_killed_repeats_nothing_and_stops_the_hopeless(
    cytoray_home: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    space = {"training.learning_rate": {"log_range": [HOPELESS / 10, HOPELESS]}}
    tune = {"space": space, "trials": 5, "concurrent": 1, "asha": {"grace": 1, "reduction": 2}}
    recipe = make_recipe(tune, epochs=5, crops_per_epoch=1024)  # an epoch takes longer than a stop
    path = tmp_path / "recipe.json"
    path.write_text(recipe.model_dump_json(), encoding="utf-8")
    program = (
        "import sys; from cytoray_training.recipe import load_recipe; from cytoray_services.settings import "
        "load_settings; from cytoray_training.search.search import run_search; "
        "run_search(load_recipe(sys.argv[1]), load_settings())"
    )
    environment = {**os.environ, "RAY_ADDRESS": "", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", program, str(path)], env=environment, stdout=log, stderr=log)
        study = None
        while study is None or len([state for state in states(study).values() if state != "running"]) < 2:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.5)
            study = next(iter((cytoray_home / "studies").glob("search-*")), None)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(3)  # what it started ends with it
    before = states(study)
    ended = {name for name, state in before.items() if state != "running"}
    trained = {name: epochs_trained(study / name) for name in ended}
    assert len(ended) < 5

    outcome = run_search(recipe, load_settings())

    assert [path.name for path in (cytoray_home / "studies").iterdir()] == [study.name]
    assert {name: epochs_trained(study / name) for name in ended} == trained
    after = states(study)
    assert {name: after[name] for name in ended} == {name: before[name] for name in ended}
    assert len(after) == 5
    assert after["trial-001"] == "completed"
    assert set(after.values()) == {"completed", "stopped"}
    stopped = [name for name, state in after.items() if state == "stopped"]
    assert len(stopped) >= 3
    assert all(epochs_trained(study / name) < 5 for name in stopped)
    score = outcome["trials"][0]["selection_pearson"]
    assert outcome["best"] == {"name": "trial-001", "values": {}, "selection_pearson": score}
    assert outcome["comparison"]["verdict"] is None


@pytest.mark.long
def test_a_population_goes_on_from_the_checkpoint_of_the_better(cytoray_home: Path, make_recipe: MakeRecipe) -> None:
    tune = {
        "space": {"training.learning_rate": {"log_range": [HOPELESS, GOOD]}},
        "searcher": "population",
        "trials": 3,
        "population": {"size": 2, "interval": 1, "share": 0.5},
        "seed": 3,  # which draws 5e-6 first: worse on any processor
    }
    recipe = make_recipe(tune, learning_rate=GOOD, epochs=3, crops_per_epoch=1024)  # an epoch takes longer than a stop
    outcome = run_search(recipe, load_settings())
    trials = {trial["name"]: trial for trial in outcome["trials"]}
    study = Path(outcome["study"])
    loser = next(name for name, trial in trials.items() if trial["state"] == "stopped")
    heir = json.loads((study / "members" / "trial-003.json").read_text(encoding="utf-8"))
    assert heir["facts"]["instead_of"] == loser
    assert heir["facts"]["from"] == ({"trial-001", "trial-002"} - {loser}).pop()
    taken = heir["facts"]["epoch"]
    assert heir["state"] == "completed"
    assert epochs_trained(study / "trial-003") == 3 - taken
    source = json.loads((study / "members" / f"{heir['facts']['from']}.json").read_text(encoding="utf-8"))
    assert heir["scores"][:taken] == source["scores"][:taken]


@pytest.mark.long
def test_a_trial_that_diverges_does_not_end_the_search(cytoray_home: Path, make_recipe: MakeRecipe) -> None:
    overflowing = [5000.0, 6000.0]  # what is brighter than 1 becomes infinite
    space = {"augmentation.gamma": {"choice": [overflowing, [6000.0, 7000.0]]}}
    tune = {"space": space, "searcher": "random", "trials": 2, "asha": None}
    outcome = run_search(make_recipe(tune, epochs=1), load_settings())
    assert [trial["state"] for trial in outcome["trials"]] == ["completed", "failed"]
    assert "loss" in outcome["trials"][1]["reason"]
    assert outcome["version"] == "1"
