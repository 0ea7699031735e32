"""Images a second and latency through the endpoint: this checkout against another one, in one run.

python tests/bench/compare_checkouts.py OTHER [--rounds 7]

OTHER is the folder of another checkout, such as one of ``git worktree add``. Both services are up at the same time and
are loaded in turn by a second process, with images of 256 × 256 and of one megapixel. Both ratios are new over old.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # serving_samples

import psutil
from load import Load, measure_load
from measure import machine
from servers import CYTORAY, Server, clean_environment, stop_servers_when_told_to

from serving_samples import noise, tiff_bytes, write_small_bundle

ROOMS = ("analysis", "services", "training", "serving")
LOADS = {256: (8, 4.0), 1024: (3, 6.0)}  # connections and seconds by side


def start(checkout: Path, bundle: Path, home: Path) -> Server:
    """Start the service of a checkout."""
    environment = clean_environment(home) | {"PYTHONPATH": os.pathsep.join(str(checkout / room) for room in ROOMS)}
    home.mkdir()
    log = home / "log.txt"
    command = [*CYTORAY, "serve", str(bundle), "--port", "0", "--json", "--insecure-local"]
    process = psutil.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log.open("w"), text=True)
    line = process.stdout.readline()
    if not line:
        sys.exit(f"the service of {checkout} did not start:\n{log.read_text()[-3000:]}")
    return Server(str(checkout), json.loads(line)["url"] + "/models/nuclei/predict", process, log)


def compared(old: list[Load], new: list[Load]) -> dict[str, object]:
    """Return medians over rounds, and the ratios of each round."""
    rates = [one.rate / other.rate for one, other in zip(new, old, strict=True)]
    middles = [
        statistics.median(one.latencies) / statistics.median(other.latencies)
        for one, other in zip(new, old, strict=True)
    ]
    return {
        "images a second": [round(statistics.median(one.rate for one in loads), 2) for loads in (old, new)],
        "ratio of rates": round(statistics.median(rates), 3),
        "from, to": [round(min(rates), 3), round(max(rates), 3)],
        "ratio of median latencies": round(statistics.median(middles), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    words = parser.parse_args()
    stop_servers_when_told_to()
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder, ExitStack() as running:
        work = Path(folder)
        bundle = write_small_bundle(work / "nuclei")
        here = Path(__file__).parents[2]
        old, new = (
            running.enter_context(start(checkout.resolve(), bundle, work / name))
            for name, checkout in (("old", words.other), ("new", here))
        )
        found: dict[str, object] = {"machine": machine()}
        for side, (connections, seconds) in LOADS.items():
            image = work / f"{side}.tif"
            image.write_bytes(tiff_bytes(noise(side, side)))
            loads: dict[str, list[Load]] = {"old": [], "new": []}
            for number in range(words.rounds + 1):
                for name, server in (("old", old), ("new", new)):
                    load = measure_load(server.url, [image], "image/tiff", connections, seconds)
                    if number:  # the first warms
                        loads[name].append(load)
            found[f"{side} x {side}"] = compared(loads["old"], loads["new"])
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
