"""Compare settings of the autoscaler over a simulated day, and draw one of them.

    python tests/bench/autoscaler_day.py [--seed 0]      writes its part of docs/scale.md and the picture

`simulated_day.py` says how a day passes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scale import PAGE, Inputs, read_inputs, table, write_part
from simulated_day import Cluster, Day, Load, arrivals, simulate

from cytoray_serving.service.config import Replicas

PICTURE = PAGE.parent / "pictures" / "autoscaler-day.png"


@dataclass(frozen=True)
class Trial:
    """A day on one kind of nodes with one setting.

    Attributes
    ----------
    fleet
        For people.
    dollars
        Of a node, an hour.
    """

    fleet: str
    cluster: Cluster
    replicas: Replicas
    dollars: float

    def row(self, day: Day) -> list[str]:
        """Return what the page says of it."""
        one = self.replicas
        fixed = one.min_replicas == one.max_replicas
        return [
            self.fleet,
            f"always {one.max_replicas}" if fixed else f"{one.min_replicas} – {one.max_replicas}",
            "" if fixed else f"{one.megapixels:g}",
            "" if fixed else f"{one.idle_seconds:g}",
            *(f"{day.wait(share):.0f}" for share in (0.5, 0.95, 0.99, 1)),
            f"{100 * day.refused / day.asked:.0f}",
            f"{day.replica_hours:.0f}",
            f"{day.node_hours:.0f}",
            f"{day.node_hours * self.dollars:,.0f}",
        ]


HEADINGS = (
    "nodes", "replicas", "`megapixels`", "`idle_seconds`", "p50, s", "p95, s", "p99, s", "longest, s",
    "refusals for 100 images", "replica-hours", "node-hours", "$",
)  # fmt: skip
# Node by node: the most replicas that may be, values of megapixels, and how many replicas a fixed fleet would have.
_CPU = (32, (8.0, 16.0, 32.0, 64.0), (8, 16, 32))
_GPU = (32, (8.0, 32.0, 128.0, 256.0), (8, 16, 32))
_IDLE = (60.0, 300.0)
SHOWN = Replicas(min_replicas=0, max_replicas=32, megapixels=32.0, idle_seconds=300.0)


def trials(inputs: Inputs) -> Iterator[Trial]:
    """Yield what is compared."""
    for fleet, cluster, dollars, (most, megapixels, fixed) in (
        ("CPU", cpu_cluster(inputs), inputs.cpu_node_dollars, _CPU),
        ("GPU", gpu_cluster(inputs), inputs.gpu_node_dollars, _GPU),
    ):
        for waiting in megapixels:
            for idle in _IDLE:
                replicas = Replicas(min_replicas=0, max_replicas=most, megapixels=waiting, idle_seconds=idle)
                yield Trial(fleet, cluster, replicas, dollars)
        for count in fixed:
            yield Trial(fleet, cluster, Replicas(min_replicas=count, max_replicas=count), dollars)


def cpu_cluster(inputs: Inputs) -> Cluster:
    """Return nodes that hold several replicas."""
    return Cluster(
        images_per_second=inputs.cpu_images_per_second,
        replica_seconds=inputs.replica_seconds,
        node_seconds=inputs.cpu_node_seconds,
        replicas_per_node=int(inputs.cpu_node_cores // inputs.cpu_cores),
        node_idle_seconds=inputs.node_idle_seconds,
    )


def gpu_cluster(inputs: Inputs) -> Cluster:
    """Return nodes with one GPU each, which replicas share."""
    return Cluster(
        images_per_second=inputs.gpu_replica_images_per_second,
        replica_seconds=inputs.replica_seconds,
        node_seconds=inputs.gpu_node_seconds,
        replicas_per_node=int(inputs.gpu_replicas),
        node_idle_seconds=inputs.node_idle_seconds,
    )


def draw(day: Day, replicas_per_node: int, path: Path) -> None:
    """Draw the day: what is asked, what runs, and what waits."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def minutes(column: int, reduce: Any) -> NDArray[np.float64]:
        return np.asarray(reduce(day.seen[:, column].reshape(-1, 60), axis=1), np.float64)

    hours = np.arange(len(day.seen) // 60) / 60
    figure, (asked, running, waiting) = pyplot.subplots(3, 1, figsize=(10, 7), sharex=True, constrained_layout=True)
    asked.fill_between(hours, minutes(0, np.mean), color="#4c78a8", linewidth=0)
    asked.set_ylabel("images asked for\na second (minute's mean)")
    room = minutes(4, np.max) * replicas_per_node
    running.fill_between(hours, room, step="post", color="#d9d9d9", linewidth=0, label="room on nodes paid for")
    running.step(hours, minutes(2, np.max), where="post", color="#e45756", linewidth=0.8, label="replicas wanted")
    running.step(hours, minutes(3, np.max), where="post", color="#4c78a8", linewidth=1.4, label="replicas running")
    running.set_ylabel("replicas\n(minute's most)")
    running.legend(loc="upper right", frameon=False, ncols=3)
    running.set_ylim(0, running.get_ylim()[1] * 1.25)
    waiting.fill_between(hours, minutes(1, np.max), color="#f58518", linewidth=0)
    waiting.set_ylabel("images waiting\n(minute's most)")
    waiting.set_xlabel("hour of the day")
    waiting.set_xlim(0, 24)
    waiting.set_xticks(range(0, 25, 2))
    for panel in (asked, running, waiting):
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def summary(inputs: Inputs, seed: int = 0) -> str:
    """Say what the table was computed with, so that an old one is told from a new one."""
    asked = arrivals(Load(inputs.day_images, inputs.day_plates), seed)
    return (
        f"{asked.sum():,} images in the day (seed {seed}). A replica answers {inputs.cpu_images_per_second:g} images "
        f"a second on two cores and {inputs.gpu_replica_images_per_second:.1f} where {inputs.gpu_replicas:g} share "
        f"a GPU, and starts in {inputs.replica_seconds:g} s, a node in {inputs.cpu_node_seconds:g} s, one with a GPU "
        f"in {inputs.gpu_node_seconds:g} s. Prices as above."
    )


def main() -> None:
    """Compare settings over the day of docs/scale.md, and draw the one that is recommended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    inputs = read_inputs()
    asked = arrivals(Load(inputs.day_images, inputs.day_plates), seed)
    rows = [trial.row(simulate(asked, trial.cluster, trial.replicas)) for trial in trials(inputs)]
    write_part("autoscaler", f"{summary(inputs, seed)}\n\n{table(HEADINGS, rows)}")
    cluster = cpu_cluster(inputs)
    draw(simulate(asked, cluster, SHOWN), cluster.replicas_per_node, PICTURE)


if __name__ == "__main__":
    main()
