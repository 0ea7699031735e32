"""Processor time of a request outside the replica: gateway, HAProxy, and what Ray does beside them.

    python tests/bench/gateway_cost.py [--seconds 20] [--side 1024]

16-bit TIFFs with deflate go in, label TIFFs come out. Figures are milliseconds of one core for each answer, by the name
of the process.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import psutil
import tifffile
from endpoint_speed import served
from inference_speed import untrained_bundle
from load import measure_load

from cytoray_analysis.images import read_image
from cytoray_services.datasets import make_segmentation

CONNECTIONS = 4
PARTS = {"cytoray:gateway": "gateway", "cytoray:model": "replica", "haproxy": "HAProxy"}


def processor_seconds() -> dict[str, float]:
    """Return the processor time that all processes under this one have taken, by what they are."""
    taken: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        try:
            times, title = process.cpu_times(), " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        name = next((name for part, name in PARTS.items() if part in title), "Ray")
        taken[name] += times.user + times.system
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--side", type=int, default=1024)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        untrained_bundle(Path(folder, "bundle"))
        cells = make_segmentation(Path(folder, "cells"), images=4, size=words.side, dtype="uint16")
        bodies = [Path(folder, f"{number}.tif") for number in range(len(cells.items))]
        for item, body in zip(cells.items, bodies, strict=True):
            tifffile.imwrite(body, read_image(item.image).select("YX").read(), compression="deflate")
        size = sum(body.stat().st_size for body in bodies) / len(bodies)
        with served(Path(folder, "bundle")) as url:
            address = f"{url}/models/untrained/predict"
            measure_load(address, bodies, "image/tiff", CONNECTIONS, 3.0)
            before = processor_seconds()
            load = measure_load(address, bodies, "image/tiff", CONNECTIONS, words.seconds)
            after = processor_seconds()
    count = len(load.latencies)
    print(f"{count} answers, {load.rate:.2f} a second, {size / 1e6:.2f} MB each")
    for name in sorted(after):
        print(f"{name}: {1000 * (after[name] - before[name]) / count:.1f} ms")


if __name__ == "__main__":
    main()
