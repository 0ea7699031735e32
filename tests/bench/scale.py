"""What it takes to segment a million images in an hour: the arithmetic of docs/scale.md.

    python tests/bench/scale.py        computes the page anew from the table of inputs at its top

The inputs are read from the page itself, so that a figure changes in one place. What follows from them is written
between the page's marks; `autoscaler_day.py` does the same for the day of the autoscaler.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cytoray_analysis.files import write_whole

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
_INPUT = re.compile(r"^\| `(?P<name>\w+)` \| (?P<value>[\d.,]+) \|", re.MULTILINE)


@dataclass(frozen=True)
class Inputs:
    """The table at the top of the page, where each of them is explained."""

    images: float
    hours: float
    busy_share: float
    image_megabytes: float
    answer_megabytes: float
    cpu_images_per_second: float
    cpu_cores: float
    gpu_images_per_second: float
    gpu_replicas: float
    gpu_network_images_per_second: float
    host_milliseconds: float
    gateway_milliseconds: float
    cpu_node_cores: float
    cpu_node_dollars: float
    gpu_node_cores: float
    gpu_node_dollars: float
    spot_share: float
    node_gigabits: float
    store_gets: float
    store_puts: float
    thousand_gets_dollars: float
    thousand_puts_dollars: float
    gigabyte_month_dollars: float
    replica_seconds: float
    cpu_node_seconds: float
    gpu_node_seconds: float
    node_idle_seconds: float
    day_images: float
    day_plates: float

    @property
    def rate(self) -> float:
        """Images a second that are wanted."""
        return self.images / self.hours / 3600

    @property
    def gpu_replica_images_per_second(self) -> float:
        """Of one of the replicas that share a GPU."""
        return self.gpu_images_per_second / self.gpu_replicas


def read_inputs(text: str | None = None) -> Inputs:
    """Read the table of inputs.

    Raises
    ------
    ValueError
        One is missing, unknown or there twice.
    """
    found = _INPUT.findall(PAGE.read_text(encoding="utf-8") if text is None else text)
    names, wanted = [name for name, _ in found], [one.name for one in fields(Inputs)]
    if sorted(names) != sorted(wanted):
        raise ValueError(
            f"the table differs from Inputs: {sorted(set(names) ^ set(wanted)) or 'a name is there twice'}"
        )
    return Inputs(**{name: float(value.replace(",", "")) for name, value in found})


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, the first column to the left and the others to the right."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (headings, *rows)]
    return "\n".join([lines[0], "|---" + "|---:" * (len(headings) - 1) + "|", *lines[1:]])


def written(text: str, part: str, content: str) -> str:
    """Return a page with what stands between the marks of a part replaced."""
    start, end = f"<!-- {part}: start -->\n", f"\n<!-- {part}: end -->"
    before, rest = text.split(start)
    return before + start + content + end + rest.split(end)[1]


def write_part(part: str, content: str) -> None:
    """Replace a part of the page."""
    write_whole(PAGE, written(PAGE.read_text(encoding="utf-8"), part, content))


@dataclass(frozen=True)
class Fleet:
    """Nodes of one kind that keep up with the rate.

    Attributes
    ----------
    name
        Name in the table.
    rate
        Measured images per second of one replica.
    replicas, nodes
        Number of replicas and nodes.
    dollars
        Price of the whole work; the start of nodes is included.
    """

    name: str
    rate: float
    replicas: int
    nodes: int
    dollars: float


def fleets(inputs: Inputs) -> tuple[Fleet, ...]:
    """Compute the required fleets: replicas (or workers of a job) on CPUs, and on GPUs."""

    def fleet(name: str, rate: float, on_a_node: int, price: float, start: float) -> Fleet:
        replicas = math.ceil(inputs.rate / (rate * inputs.busy_share))
        nodes = math.ceil(replicas / on_a_node)
        return Fleet(name, rate, replicas, nodes, nodes * price * (inputs.hours + start / 3600))

    on_a_node, on_a_gpu = int(inputs.cpu_node_cores // inputs.cpu_cores), int(inputs.gpu_replicas)
    gpu_rate = inputs.gpu_replica_images_per_second
    return (
        fleet("CPU", inputs.cpu_images_per_second, on_a_node, inputs.cpu_node_dollars, inputs.cpu_node_seconds),
        fleet("GPU", gpu_rate, on_a_gpu, inputs.gpu_node_dollars, inputs.gpu_node_seconds),
    )


def machines(inputs: Inputs) -> str:
    """Return the table of replicas, nodes and dollars."""
    rows = [
        [
            one.name,
            f"{inputs.rate:.1f} / ({one.rate:.1f} × {inputs.busy_share:g}) = {one.replicas}",
            f"{one.nodes}",
            f"{one.dollars:,.2f}",
            f"{one.dollars * inputs.spot_share:,.2f}",
            f"{one.dollars / inputs.images * 1e6:,.2f}",
        ]
        for one in fleets(inputs)
    ]
    return table(["", "replicas", "nodes", "$", "$ on spot nodes", "$ per million images"], rows)


def gateways(inputs: Inputs) -> int:
    """Return how many gateways, each one core, requests need."""
    return math.ceil(inputs.rate * inputs.gateway_milliseconds / 1000 / inputs.busy_share)


def traffic(inputs: Inputs) -> str:
    """Return the table of network traffic and storage."""
    rate, count = f"{inputs.rate:.0f}", inputs.images
    image, answer = inputs.image_megabytes, inputs.answer_megabytes
    both, thousands = image + answer, count / 1000
    get, put, month = inputs.thousand_gets_dollars, inputs.thousand_puts_dollars, inputs.gigabyte_month_dollars
    cores = f"{rate} × {inputs.gateway_milliseconds:g} ms / {inputs.busy_share:g}"
    rows = [
        ["images in", f"{rate} × {image:g} MB", _gigabits(inputs.rate * image)],
        ["answers out", f"{rate} × {answer:g} MB", _gigabits(inputs.rate * answer)],
        ["total", f"{count:,.0f} × {both:g} MB", f"{count * both / 1e6:,.2f} TB"],
        ["reads from the store", "one per image", f"{rate} per second"],
        ["writes to the store", "one per answer", f"{rate} per second"],
        ["price of reads and writes", f"{thousands:,.0f} × ({get:g} + {put:g})", f"{thousands * (get + put):,.2f} $"],
        [
            "price of storage for a month",
            f"{thousands * both:,.0f} GB × {month:g}",
            f"{thousands * both * month:,.2f} $",
        ],
        ["gateways, only for requests", cores, f"{gateways(inputs)} cores"],
    ]
    return table(["", "arithmetic", "result"], rows)


def _gigabits(megabytes: float) -> str:
    return f"{megabytes * 8 / 1000:.2f} Gbit/s"


def bottlenecks(inputs: Inputs) -> str:
    """Return the table of the capacity of each part, the smallest first."""
    both = inputs.image_megabytes + inputs.answer_megabytes
    beside = f"the {inputs.gpu_node_cores:g} cores of a node with a GPU: read, decode, encode"
    full = {
        "a replica on two cores": inputs.cpu_images_per_second,
        f"a GPU and {inputs.gpu_node_cores:g} cores": inputs.gpu_images_per_second,
        "a GPU, only the network": inputs.gpu_network_images_per_second,
        beside: inputs.gpu_node_cores * 1000 / inputs.host_milliseconds,
        "a gateway (one core)": 1000 / inputs.gateway_milliseconds,
        f"the network of a node, {inputs.node_gigabits:g} Gbit/s": inputs.node_gigabits * 1000 / 8 / both,
        "reads of one prefix of the store": inputs.store_gets,
        "writes of one prefix of the store": inputs.store_puts,
    }
    rows = [
        [name, f"{limit:,.0f}", f"{math.ceil(inputs.rate / (limit * inputs.busy_share))}"]
        for name, limit in sorted(full.items(), key=lambda item: item[1])
    ]
    return table(["", "capacity, images/s", f"needed for {inputs.rate:.0f} images/s"], rows)


def savings(inputs: Inputs) -> str:
    """Return the table of what a job saves over requests."""
    _, gpu = fleets(inputs)
    terabytes = inputs.images * (inputs.image_megabytes + inputs.answer_megabytes) / 1e6
    lost = "no: the caller must retry lost requests"
    twice = f"{2 * terabytes:,.2f} TB: store to caller to replica, and back"
    rows = [
        ["$ for GPUs", f"{gpu.dollars:,.2f}", f"{gpu.dollars:,.2f}"],
        ["$ on spot nodes", lost, f"{gpu.dollars * inputs.spot_share:,.2f}"],
        ["cores of gateways", f"{gateways(inputs)}", "0"],
        ["network traffic", twice, f"{terabytes:,.2f} TB: store to worker, and back"],
        ["HTTP requests", f"{inputs.images:,.0f}", "1"],
    ]
    return table(["", "requests", "a job"], rows)


PARTS = {"machines": machines, "traffic": traffic, "bottlenecks": bottlenecks, "savings": savings}


def main() -> None:
    """Compute the tables of the page again."""
    inputs = read_inputs()
    for part, compute in PARTS.items():
        write_part(part, compute(inputs))


if __name__ == "__main__":
    main()
