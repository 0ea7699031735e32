"""How much of a data set in a bucket lies on each of two nodes while they train on it, and whether they wait for it.

Run with: python tests/bench/sharded_training.py [--images 240] [--size 256] [--epochs 4]

Two processes stand for two nodes: each has its own cache, both have the home folder. The bucket is a server of this
machine, so that its speed is no cloud's; what counts is what lies where, and how long the network waited. For
comparison the same is trained on from a folder, every node holding everything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from cytoray_services.free_ports import free_port

sys.path.insert(0, str(Path(__file__).parents[1]))

from buckets import bucket_store, copy_to_bucket
from cytoray_services.datasets import make_segmentation

NODES = 2
SHARDS = {"use": "always", "megabytes": 4, "held": 2}


@dataclass(frozen=True)
class Measured:
    """What came out of one training.

    Attributes
    ----------
    held
        Most megabytes of images on the disk of each node, in files with and without names.
    decoded
        Megabytes of the whole decoded training split.
    waited
        Share of an epoch in which the network waited for crops, the median over the epochs after the first.
    crops
        Per second, likewise.
    seconds
        In all, with checking and decoding.
    """

    held: tuple[float, ...]
    decoded: float
    waited: float
    crops: float
    seconds: float


def measure(root: str, folder: Path, epochs: int, shards: dict[str, Any]) -> Measured:
    """Train on two nodes."""
    recipe = {
        "model": {"name": "nuclei", "network": {"arguments": {"widths": [16, 32]}}},
        "data": {"root": root, "channels": "grey", "shards": shards},
        "training": {
            "epochs": epochs,
            "crops_per_epoch": 192,
            "crop_size": 128,
            "batch_size": 8,
            "engine": "torch",
            "precision": "fp32",
            "validate_every": epochs,
        },
        "scale": {"workers": NODES},
    }
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    port = free_port()
    caches = [folder / f"node-{rank}" for rank in range(NODES)]
    shared = {"WORLD_SIZE": str(NODES), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    nodes = []
    for rank, cache in enumerate(caches):
        own = {"RANK": str(rank), "CYTORAY_HOME": str(folder / "home"), "CYTORAY_CACHE": str(cache)}
        command = [sys.executable, "-m", "cytoray_training.standalone", str(folder / "recipe.yaml")]
        nodes.append(subprocess.Popen(command, env=os.environ | shared | own, stdout=subprocess.DEVNULL))
    held = [0.0] * NODES
    while any(node.poll() is None for node in nodes):
        for rank, node in enumerate(nodes):
            held[rank] = max(held[rank], (_named(caches[rank]) + _nameless(node.pid, caches[rank])) / 1e6)
        time.sleep(0.05)
    if any(node.returncode for node in nodes):
        raise SystemExit("a training failed")
    seconds = time.perf_counter() - began
    lines = [json.loads(line) for path in folder.glob("home/runs/*/progress.jsonl") for line in path.open()]
    later = [line for line in lines if line["stage"] == "epoch"][1:]
    stored = sum(path.stat().st_size for path in folder.glob("home/shards/*/*.bin")) or _named(caches[0])
    return Measured(
        tuple(held),
        stored / 1e6,
        median(line["wait_fraction"] for line in later),
        median(line["images_per_second"] for line in later),
        seconds,
    )


def _named(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):  # which takes it that folders vanish
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(place, name).stat().st_size
    return total


def _nameless(process: int, folder: Path) -> int:
    """Add up what a process has mapped of files in a folder that have no name any more."""
    try:
        lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    spans = [line.split()[0].split("-") for line in lines if str(folder) in line and line.endswith("(deleted)")]
    return sum(int(end, 16) - int(begin, 16) for begin, end in spans)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, bucket_store():
        folder = Path(scratch)
        data = make_segmentation(folder / "data", images=options.images, size=options.size).root
        uri = copy_to_bucket(data, "nuclei")
        rows = {
            "in a folder, all on every node": measure(str(data), folder / "whole", options.epochs, {"use": "never"}),
            "in a bucket, shards": measure(uri, folder / "shards", options.epochs, SHARDS),
        }
    for name, row in rows.items():
        held = " and ".join(f"{one:.0f}" for one in row.held)
        print(
            f"{name}: {held} MB at most on the nodes, of {row.decoded:.0f} MB decoded; waited {row.waited:.2%}; "
            f"{row.crops:.0f} crops/s; {row.seconds:.0f} s in all"
        )


if __name__ == "__main__":
    main()
