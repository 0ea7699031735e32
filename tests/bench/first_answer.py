"""From zero to the first answer, image decoding to labels: seconds by stage, with the model cached and not.

python tests/bench/first_answer.py [--bundle FOLDER] [--rounds N]

Two views of the same way. First what a caller sees: ``cytoray serve`` from the start of its process to its first
answer, cut at what its log says (Ray is up, Serve is up, the models answer). Then what a replica does inside that, in
a process of its own and in the same order: imports, the registry, the bundle, the network, its own test, warm-up, the
first image. Not cached means that CYTORAY_HOME/models is empty, and the bundle is fetched from the registry; the
files of Python and of the libraries are in the memory of the machine in both cases.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
from inference_speed import SIDE, untrained_bundle
from measure import machine
from servers import CYTORAY, clean_environment, stop_all, stop_servers_when_told_to

from cytoray_services.datasets import make_segmentation
from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings

MODEL = "untrained"
STARTED_RAY, STARTED_SERVE, READY = "imports, Ray and Serve", "gateway and replicas", "command says so"
# What the service prints on standard error, in this order, and the stage that ends there.
LOG = (("Started Serve in namespace", STARTED_RAY), ("is ready at", STARTED_SERVE))

Stages = dict[str, float]


def serve_once(home: Path, image: Path) -> Stages:
    """Start the service, ask it once, and stop it."""
    stages: Stages = {}
    begun = last = time.perf_counter()

    def ended(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        stages[stage], last = now - last, now

    command = [*CYTORAY, "serve", f"{MODEL}@champion", "--port", "0", "--json", "--insecure-local"]
    process = psutil.Popen(
        command, env=clean_environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        printed: list[str] = []
        waiting = list(LOG)
        while waiting:
            line = process.stderr.readline()
            if not line:
                sys.exit(f"cytoray serve ended with {process.wait(60)}:\n{''.join(printed[-40:])}")
            printed.append(line)
            if waiting[0][0] in line:
                ended(waiting.pop(0)[1])
        url = json.loads(process.stdout.readline())["url"]
        ended(READY)
        answer = httpx.post(f"{url}/models/{MODEL}/predict", content=image.read_bytes(), timeout=120)
        answer.raise_for_status()
        ended("first request")
        stages["in all"] = last - begun
        print(f"  first request: {answer.headers['Server-Timing']}", file=sys.stderr, flush=True)
    finally:
        stop_all(process)
    return stages


def replica_once(home: Path, image: Path) -> Stages:
    """Do what a replica does, in a process of its own."""
    begun = time.perf_counter()
    command = [
        sys.executable,
        str(Path(__file__).with_name("replica_steps.py")),
        str(home),
        f"{MODEL}@champion",
        str(image),
    ]
    done = subprocess.run(command, env=clean_environment(home), stdout=subprocess.PIPE, text=True, check=True)
    stages: Stages = json.loads(done.stdout)
    whole = time.perf_counter() - begun
    return {"process starts and ends": whole - sum(stages.values())} | stages | {"in all": whole}


def table(title: str, cached: list[Stages], fetched: list[Stages]) -> str:
    rows = "\n".join(
        f"| {stage} | {statistics.median(one[stage] for one in cached):.2f} | "
        f"{statistics.median(one[stage] for one in fetched):.2f} |"
        for stage in cached[0]
    )
    return f"| {title} | cached, s | fetched, s |\n|---|---|---|\n{rows}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="by default the network of the shipped recipe, untrained")
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    taken: dict[str, list[Stages]] = {"served": [], "served fetched": [], "replica": [], "replica fetched": []}
    stop_servers_when_told_to()
    with tempfile.TemporaryDirectory(prefix="cytoray-") as name:
        work = Path(name)
        settings = load_settings({"CYTORAY_HOME": str(work / "home")})
        bundle = words.bundle or untrained_bundle(work / "bundle").folder
        Registry.open(settings).register(bundle, MODEL, alias="champion")
        image = make_segmentation(work / "data", images=1, size=SIDE).items[0].image
        for number in range(words.rounds):
            for way, once in (("served", serve_once), ("replica", replica_once)):
                shutil.rmtree(settings.models, ignore_errors=True)
                taken[f"{way} fetched"].append(once(settings.home, image))
                taken[way].append(once(settings.home, image))
                print(f"  round {number + 1}, {way}: {taken[way][-1]['in all']:.1f} s", file=sys.stderr, flush=True)
    print(f"{machine()}. Medians of {words.rounds} rounds, one megapixel.\n")
    print(table("seen by the caller", taken["served"], taken["served fetched"]))
    print(table("inside, alone in a process", taken["replica"], taken["replica fetched"]))


if __name__ == "__main__":
    main()
