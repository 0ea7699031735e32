"""How a training goes, as gauges of Ray: its exporter on every node shows them to Prometheus, with the prefix ``ray_``.

Ray forgets a process's gauges some seconds after it has ended, so that what Prometheus sees is what is being trained.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cytoray_training.launch import Listener
from cytoray_training.plan import Plan

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

TAGS = ("model", "run")
GAUGES = {
    "cytoray_training_loss": "Loss of the training; of the last step, at the end of an epoch its mean.",
    "cytoray_training_epoch": "The epoch that is being trained, from 1.",
    "cytoray_training_epochs": "Epochs that are planned.",
    "cytoray_training_workers": "Processes that train together now.",
    "cytoray_training_crops_per_second": "Crops that all workers together train on in a second.",
    "cytoray_training_waiting_share": "Share of the last epoch that the network waited for crops, from 0 to 1.",
    "cytoray_training_score": "The metric that decides which weights are kept, at the last validation.",
    "cytoray_training_moved_timestamp_seconds": "When the training last moved forward, in seconds since 1970.",
}


@contextmanager
def progress_metrics(plan: Plan, run: str) -> Iterator[Listener]:
    """Give what turns the lines of a progress file into gauges; to be called while this process is connected to Ray.

    Parameters
    ----------
    plan
        Of the training.
    run
        Its name, the tag ``run``.
    """
    recipe = plan.recipe
    tags = {"model": recipe.model.name, "run": run}
    score = plan.metric
    gauges: dict[str, Gauge] = {}

    def listen(facts: Mapping[str, Any]) -> None:
        if not gauges:
            gauges.update(_gauges())
        for name, value in _values(facts, score).items():
            gauges[f"cytoray_training_{name}"].set(value, tags)
        gauges["cytoray_training_epochs"].set(recipe.training.epochs, tags)
        gauges["cytoray_training_moved_timestamp_seconds"].set(time.time(), tags)

    try:
        yield listen
    finally:
        # A process may go on with another training; a gauge cannot be taken back, but be no number.
        for gauge in gauges.values():
            gauge.set(math.nan, tags)


def _values(facts: Mapping[str, Any], score: str) -> dict[str, float]:
    """Return what a line of the progress file says, by the endings of the gauges' names."""
    if facts["stage"] == "workers":
        return {"workers": float(facts["workers"])}
    if facts["stage"] not in ("training", "epoch"):
        return {}
    known = {
        "loss": "loss",
        "crops_per_second": "images_per_second",
        "waiting_share": "wait_fraction",
        "score": score,
    }
    values = {name: float(facts[fact]) for name, fact in known.items() if fact in facts}
    return values | {"epoch": float(facts["epoch"]) + 1.0}


def _gauges() -> dict[str, Gauge]:
    from ray.util.metrics import Gauge

    return {name: Gauge(name, description, TAGS) for name, description in GAUGES.items()}
