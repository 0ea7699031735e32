"""What every benchmark shares: medians, ratios, and the machine they were taken on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Ratio:
    """One figure: how two rates compare within one run.

    Attributes
    ----------
    name
        What is compared.
    above, below
        Rates of each round, in `unit`; the ratio is that of their medians.
    unit
        Such as ``crops/s``.
    target
        The least ratio wanted, or None.
    interval
        The 95 % interval of the ratio, where it is known.
    """

    name: str
    above: tuple[float, ...]
    below: tuple[float, ...]
    unit: str
    target: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def value(self) -> float:
        return statistics.median(self.above) / statistics.median(self.below)

    def row(self) -> str:
        target = "–" if self.target is None else f"≥ {self.target:.2f}"
        above, below = statistics.median(self.above), statistics.median(self.below)
        sure = "" if self.interval is None else " ({:.2f} to {:.2f})".format(*self.interval)
        return f"| {self.name} | {above:.2f} | {below:.2f} | {self.unit} | **{self.value:.2f}**{sure} | {target} |"


def alternate(rounds: int, *rates: Callable[[], float]) -> list[tuple[float, ...]]:
    """Take rates in turn, so that a slow spell of the machine falls on all alike."""
    taken: list[list[float]] = [[] for _ in rates]
    for index in range(rounds):
        for place, rate in enumerate(rates):
            taken[place].append(rate())
            print(f"  round {index + 1}: {taken[place][-1]:.2f}", file=sys.stderr, flush=True)
    return [tuple(values) for values in taken]


def machine() -> str:
    """Describe the machine in one line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    flags: set[str] = set()
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
            if line.startswith("flags"):
                flags = set(line.split(":", 1)[1].split())
    features = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray", "deepspeed"))
    return (
        f"{os.cpu_count()} cores of {model} ({', '.join(features) or 'no native bf16'}), {memory:.0f} GiB, "
        f"Python {platform.python_version()}, {packages}"
    )


def report(ratios: Sequence[Ratio]) -> None:
    """Print ratios as JSON, one object, for ``bench.py`` to collect."""
    print(json.dumps([asdict(ratio) for ratio in ratios]))


def ratios_from(text: str) -> list[Ratio]:
    """Undo :func:`report`."""
    return [
        Ratio(
            entry["name"],
            tuple(entry["above"]),
            tuple(entry["below"]),
            entry["unit"],
            entry["target"],
            entry["interval"] and tuple(entry["interval"]),
        )
        for entry in json.loads(text)
    ]
