"""Run a job over many images twice, the second time killed at random, and compare every answer.

    python tests/bench/killed_job.py MODEL [--images 2000] [--side 256] [--kills 3] [--workers 2] [--seed 0]

What is killed, with SIGKILL, is drawn from the driver, a worker, and the whole cluster, which is started again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile

from cytoray_services.datasets.synthetic.segmentation import make_segmentation
from cytoray_services.settings import load_settings
from cytoray_services.storage.allowed import Allowed
from cytoray_services.tokens.access import Caller
from cytoray_serving.jobs.drivers import Drivers
from cytoray_serving.jobs.request import JobRequest, JobStatus
from cytoray_serving.jobs.store import JobStore
from cytoray_serving.jobs.taking import JobTaker
from cytoray_serving.service.config import JobsConfig, ServiceConfig

_CLUSTER = """
import sys, time, ray
context = ray.init(address="local", num_cpus=int(sys.argv[1]), include_dashboard=False, object_store_memory=2**28)
print(context.address_info["gcs_address"], flush=True)
while sys.stdin.readline():
    pass
"""


class Cluster:
    """A Ray cluster in processes of its own, which can be killed and started again."""

    def __init__(self, cores: int) -> None:
        self.cores = cores
        # What Ray chooses for a cluster of this machine, and drivers of other processes must know.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CLUSTER, str(self.cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()

    def kill(self) -> None:
        own = psutil.Process(self.process.pid)
        for one in [*own.children(recursive=True), own]:
            one.kill()
        self.process.wait()


def write_images(folder: Path, count: int, side: int) -> None:
    folder.mkdir()
    field = tifffile.imread(make_segmentation(folder.parent / "field", images=1, size=1024, seed=1).items[0].image)
    draw = np.random.default_rng(0)
    for number in range(count):
        top, left = draw.integers(0, 1024 - side, 2)
        tifffile.imwrite(folder / f"field{number:05d}.tif", field[top : top + side, left : left + side])


def checksums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def submit(taker: JobTaker, model: str, source: Path, target: Path) -> JobStatus:
    request = JobRequest(input=source.as_uri(), output=target.as_uri())
    return taker.take((model,), request, Caller("bench", ("submit",)))


def wait(store: JobStore, job_id: str, items: int) -> JobStatus:
    """Wait until so many images are answered, or the job has ended."""
    while True:
        status = store.find(job_id).state()
        if status.has_ended or status.items_done + status.items_failed >= items:
            return status
        time.sleep(0.05)


def kill(what: str, job_id: str, cluster: Cluster) -> None:
    commands = {one: " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])}
    if what == "cluster":
        cluster.kill()
        cluster.start()
        return
    sign = job_id if what == "driver" else "RayWorker"
    found = [one for one, command in commands.items() if sign in command]
    if found:
        os.kill(found[0].pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="cytoray-") as name:
        folder = Path(name)
        write_images(folder / "in", options.images, options.side)
        cluster = Cluster(options.workers + 1)
        settings = load_settings({"CYTORAY_HOME": str(folder / "home")})
        config = ServiceConfig(allowed=Allowed(roots=(folder,)), jobs=JobsConfig(workers=options.workers))
        taker = JobTaker(JobStore(folder / "jobs"), settings, config)
        drivers = Drivers(taker.store, settings, lambda: cluster.address)
        drivers.start()
        try:
            quiet = wait(taker.store, submit(taker, options.model, folder / "in", folder / "quiet").id, sys.maxsize)
            if quiet.state != "done":
                raise SystemExit(f"{quiet}\n{taker.store.find(quiet.id).log_text()[-4000:]}")
            job = submit(taker, options.model, folder / "in", folder / "killed")
            killed = []
            for at in sorted(chance.sample(range(1, options.images), options.kills)):
                wait(taker.store, job.id, at)
                victim = chance.choice(("driver", "worker", "cluster"))
                kill(victim, job.id, cluster)
                killed.append({"victim": victim, "at": at})
            ended = wait(taker.store, job.id, sys.maxsize)
        finally:
            drivers.close()
            cluster.kill()
        records = [record.item for record in taker.store.find(job.id).records()]
        answers = checksums(folder / "killed")
        print(
            json.dumps(
                {
                    "images": options.images,
                    "killed": killed,
                    "state": ended.state,
                    "done": ended.items_done,
                    "failed": ended.items_failed,
                    "answers": len(answers),
                    "recorded_once": sorted(records) == list(range(options.images)),
                    "same_checksums": answers == checksums(folder / "quiet"),
                    "seconds_undisturbed": round(quiet.seconds, 1),
                    "seconds_killed": round(ended.seconds, 1),
                    "images_per_second": round(options.images / max(quiet.seconds, 1e-3), 1),
                    "worker_megabytes": max(quiet.worker_megabytes, ended.worker_megabytes),
                }
            )
        )


if __name__ == "__main__":
    main()
