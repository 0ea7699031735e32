"""Train the same recipe on this machine alone and across two Ray nodes, lose a node in the middle, and compare scores.

    python tests/bench/two_nodes.py [--recipe FILE] [--set FIELD=VALUE]… [--stages 0 1 2 3] [--seeds 2] [--skip tune]

Without a recipe, a small one on made images. Two workers train everywhere, one on each node; where a node is killed
after a third of the epochs and another one comes after two thirds, ``scale.min_workers`` is 1. What the seeds of
the first stage differ by on one machine is the noise that the rest is measured against.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cytoray_services.datasets import make_segmentation
from cytoray_services.settings import load_settings
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import Recipe, changed_recipe, load_recipe, parse_recipe
from cytoray_training.run import launch as launching
from cytoray_training.run.launch import launch
from cytoray_training.search.search import run_search
from ray_nodes import RayNodes, ray_nodes

LOCAL, NODES, LOSS = "this machine", "two nodes", "two nodes, one lost and replaced"


@dataclass(frozen=True)
class Row:
    """One training: where, ZeRO stage, seed, seconds, workers one after another, epochs, steps repeated, score."""

    where: str
    stage: int | None
    seed: int
    seconds: float
    workers: tuple[int, ...]
    epochs: int
    repeated: int
    loss: float
    score: float


def small_recipe(folder: Path, epochs: int) -> Recipe:
    """Return a recipe that learns to find made cells within a minute."""
    cells = make_segmentation(folder / "cells", images=24, size=128, seed=3)
    return parse_recipe(
        {
            "model": {"name": "tiny", "network": {"arguments": {"widths": [8, 16]}}},
            "data": {"root": str(cells.root), "channels": "grey"},
            "training": {
                "epochs": epochs,
                "crops_per_epoch": 192,
                "crop_size": 64,
                "batch_size": 6,
                "learning_rate": 3e-3,
                "validate_every": 2,
                "checkpoint_every": 8,
            },
        }
    )


def trained(recipe: Recipe, folder: Path, where: str, nodes: RayNodes | None) -> Row:
    """Train once, and return what came of it."""
    plan = make_plan(recipe, load_settings())
    epochs = recipe.training.epochs
    workers: list[int] = []
    told: list[int] = []
    repeated = 0

    def listen(facts: Mapping[str, Any]) -> None:
        nonlocal repeated
        if facts["stage"] == "workers":
            workers.append(facts["workers"])
        elif facts["stage"] == "training":
            repeated += max(0, (told[-1] if told else 0) - facts["step"] + 1)
            told.append(facts["step"])
        elif facts["stage"] == "epoch" and where == LOSS and nodes is not None:
            if len(nodes.nodes) == 2 and len(workers) == 1 and facts["epoch"] + 1 >= epochs // 3:
                nodes.kill(nodes.workers[0])
            elif len(nodes.nodes) == 1 and facts["epoch"] + 1 >= 2 * epochs // 3:
                nodes.add()

    began = time.monotonic()
    progress = launch(plan, folder, on=nodes.address if nodes else "local", listen=listen).progress
    seconds = time.monotonic() - began
    if nodes is not None and len(nodes.nodes) == 1:
        nodes.add()
    assert [entry["epoch"] for entry in progress.history] == list(range(progress.epoch)), "an epoch is missing"
    metric = plan.metric
    stage = recipe.training.zero_stage if recipe.training.engine == "deepspeed" else None
    return Row(
        where,
        stage,
        recipe.training.seed,
        seconds,
        tuple(workers),
        progress.epoch,
        repeated,
        progress.history[-1]["loss"],
        progress.best[metric],
    )


def searched(recipe: Recipe, on: str) -> dict[str, Any]:
    """Search for a learning rate in four trials of two workers, two at a time where there is room."""
    rates = {"training.learning_rate": {"log_range": [1e-5, 1e-2]}}
    tune = {"space": rates, "trials": 4, "concurrent": 2, "searcher": "random", "asha": None}
    content = recipe.model_dump(mode="json") | {"tune": tune}
    content["scale"] |= {"workers": 1}
    began = time.monotonic()
    outcome = run_search(parse_recipe(content), load_settings(), on=on, fresh=True)
    states = [trial["state"] for trial in outcome["trials"]]
    return {"on": on, "seconds": time.monotonic() - began, "states": states, "best": outcome["best"]}


def main() -> int:
    """Run the matrix and print it; the exit status tells whether every score is within the noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="FIELD=VALUE")
    parser.add_argument("--epochs", type=int, default=24, help="of the small recipe")
    parser.add_argument("--stages", type=int, nargs="*", default=[0, 1, 2, 3])
    parser.add_argument("--seeds", type=int, default=2, help="that tell the noise")
    parser.add_argument("--skip", nargs="*", default=[], choices=["local", "nodes", "loss", "tune"])
    parser.add_argument("--resize-seconds", type=float, default=5.0, help="how often more nodes are looked for")
    parser.add_argument("--cpus", type=int, default=1, help="logical cores of a node")
    arguments = parser.parse_args()
    launching.RESIZE_SECONDS = arguments.resize_seconds
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="cytoray-two-nodes-") as scratch:
        folder = Path(scratch)
        os.environ["CYTORAY_HOME"] = str(folder / "home")
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if arguments.recipe:
            recipe = load_recipe(arguments.recipe, arguments.overrides)
        else:
            recipe = small_recipe(folder, arguments.epochs)
        recipe = changed_recipe(recipe, {"scale.workers": 2, "training.engine": "deepspeed"})
        elastic = changed_recipe(recipe, {"scale.min_workers": 1})
        rows: list[Row] = []

        def run(base: Recipe, where: str, stage: int, seed: int, nodes: RayNodes | None) -> None:
            changed = changed_recipe(base, {"training.zero_stage": stage, "training.seed": seed})
            rows.append(trained(changed, folder / "runs" / f"run-{len(rows)}", where, nodes))
            print(json.dumps(rows[-1].__dict__), file=sys.stderr, flush=True)

        if "local" not in arguments.skip:
            for seed in range(arguments.seeds):
                run(recipe, LOCAL, arguments.stages[0], seed, None)
            for stage in arguments.stages[1:]:
                run(recipe, LOCAL, stage, 0, None)
        searches = [] if "tune" in arguments.skip else [searched(recipe, "local")]
        with ray_nodes(2, cpus=arguments.cpus, environment={"OMP_NUM_THREADS": "1"}) as nodes:
            print(f"nodes: {nodes.address} and {nodes.workers[0].ip}, {'apart' if nodes.network.apart else 'loopback'}")
            for where, base in ((NODES, recipe), (LOSS, elastic)):
                if {NODES: "nodes", LOSS: "loss"}[where] not in arguments.skip:
                    for stage in arguments.stages:
                        run(base, where, stage, 0, nodes)
            if "tune" not in arguments.skip:
                searches.append(searched(recipe, nodes.address))
    return report(rows, searches)


def report(rows: list[Row], searches: list[dict[str, Any]]) -> int:
    """Print tables; return 0 where all scores are within the noise."""
    alone = [row for row in rows if row.where == LOCAL]
    seeds = [row.score for row in alone if row.stage == alone[0].stage]
    noise = max(0.02, 2 * statistics.stdev(seeds)) if len(seeds) > 1 else 0.02
    expected = {row.stage: row.score for row in alone if row.seed == 0}
    print("\n| where | ZeRO | seed | seconds | workers | epochs | steps repeated | loss | score | to this machine |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    far = 0
    for row in rows:
        difference = row.score - expected.get(row.stage, float("nan"))
        far += row.where != LOCAL and abs(difference) > noise
        workers = " → ".join(map(str, row.workers))
        print(
            f"| {row.where} | {row.stage} | {row.seed} | {row.seconds:.0f} | {workers} | {row.epochs} | "
            f"{row.repeated} | {row.loss:.4f} | {row.score:.4f} | {difference:+.4f} |"
        )
    print(f"\nnoise: ±{noise:.3f}; beyond it: {far}")
    for search in searches:
        print(f"search on {search['on']}: {search['seconds']:.0f} s, {search['states']}, best {search['best']}")
    return 1 if far else 0


if __name__ == "__main__":
    sys.exit(main())
