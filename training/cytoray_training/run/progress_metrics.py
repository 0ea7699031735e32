"""Training progress as Ray gauges: the exporter on every node shows them to Prometheus as ``ray_…``.

Ray removes a process's gauges some seconds after its end, so Prometheus shows only running training runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cytoray_training.plan.plan import Plan
from cytoray_training.run.reporter import Listener

if TYPE_CHECKING:
    from ray.util.metrics import Gauge

TAGS = ("model", "run")
GAUGES = {
    "cytoray_training_loss": "Loss of the last step of the training run; at the end of an epoch, its mean.",
    "cytoray_training_epoch": "The current epoch, from 1.",
    "cytoray_training_epochs": "Planned epochs.",
    "cytoray_training_workers": "Current number of workers.",
    "cytoray_training_crops_per_second": "Crops per second of all workers together.",
    "cytoray_training_waiting_share": "Share of the last epoch in which the network waited for crops, from 0 to 1.",
    "cytoray_training_score": "The metric that chooses the weights, at the last validation.",
    "cytoray_training_moved_timestamp_seconds": "Time of the last progress of the training run, in seconds since 1970.",
}


@contextmanager
def progress_metrics(plan: Plan, run: str) -> Iterator[Listener]:
    """Return a listener that turns the lines of a progress file into gauges; this process must be connected to Ray.

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
        # A process may continue with another training run; a gauge cannot be removed, but set to NaN.
        for gauge in gauges.values():
            gauge.set(math.nan, tags)


def _values(facts: Mapping[str, Any], score: str) -> dict[str, float]:
    """Return the values of a line of the progress file, by the suffixes of the gauges' names."""
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
