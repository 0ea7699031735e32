"""Memory and descriptors of a service that is asked for a long time: do they grow?

python tests/bench/soak.py [--minutes 20] [--rate 20]

``cytoray serve`` with tokens and a small model is asked at a fixed pace: images of several sizes over HTTP and gRPC;
one request in ten is refused. Every ten seconds the memory and the descriptors of the gateway, the replica and HAProxy
are read. Printed per process: the medians of each fifth of the time; in the first all becomes warm.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # serving_samples

import grpc  # type: ignore[import-untyped]
import httpx
import numpy as np
import psutil
import tritonclient.grpc as triton
from servers import CYTORAY, clean_environment, stop_all, stop_servers_when_told_to

from cytoray_services.tokens.tokens import create_token
from serving_samples import noise, tiff_bytes, write_small_bundle

MODEL = "nuclei"
SIDES = (64, 128, 256, 512)
CALLERS = 8
EVERY = 10.0  # seconds
NAMES = {"ray::ServeReplica:cytoray:gateway": "gateway", "ray::ServeReplica:cytoray:model": "replica"}


class Caller:
    """Asks in turn for all that the service is asked for."""

    def __init__(self, url: str, address: str, token: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=120)
        self._grpc = triton.InferenceServerClient(address)
        self._token = {"Authorization": f"Bearer {token}"}
        self._bodies = [tiff_bytes(noise(side, side, seed=side)) for side in SIDES]

    def ask(self, number: int) -> str:
        """Ask once, and say what came."""
        body = self._bodies[number % len(SIDES)]
        if number % 10 == 0:
            answer = self._http.post(f"/models/{MODEL}/predict", content=body)
            return f"without a token: {answer.status_code}"
        if number % 3 == 0:
            image = triton.InferInput("image", [1], "BYTES")
            image.set_data_from_numpy(np.array([body], object))
            try:
                self._grpc.infer(MODEL, [image], headers={name.lower(): value for name, value in self._token.items()})
            except grpc.RpcError as error:
                return f"gRPC: {error}"
            return "gRPC: OK"
        answer = self._http.post(f"/models/{MODEL}/predict", content=body, headers=self._token)
        return f"HTTP: {answer.status_code}"


def processes_of(service: psutil.Process) -> dict[str, psutil.Process]:
    """Return the processes that are looked at, by name."""
    found: dict[str, psutil.Process] = {}
    for one in service.children(recursive=True):
        words = " ".join(one.cmdline())
        found |= {name: one for mark, name in NAMES.items() if words.startswith(mark)}
        if one.name() == "haproxy":
            found["HAProxy"] = one
    return found


def run(minutes: float, rate: float, home: Path) -> dict[str, object]:
    """Ask, look and return what was seen."""
    bundle = write_small_bundle(home / MODEL)
    token, _ = create_token(home / "tokens.json", "soak", ("predict",), days=1)
    log = (home / "log.txt").open("w")
    command = [*CYTORAY, "serve", str(bundle), "--port", "0", "--grpc-port", "0", "--json"]
    service = psutil.Popen(command, env=clean_environment(home), stdout=-1, stderr=log, text=True)
    try:
        started = json.loads(service.stdout.readline())
        caller = Caller(started["url"], started["grpc"], token)
        came: Counter[str] = Counter()
        seen: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
        begun, done = time.monotonic(), threading.Event()

        def look() -> None:
            while not done.wait(EVERY):
                for name, process in processes_of(service).items():
                    memory, files = process.memory_info().rss, process.num_fds()
                    seen[name].append((time.monotonic() - begun, memory, files))

        looking = threading.Thread(target=look)
        looking.start()
        with ThreadPoolExecutor(CALLERS) as pool:
            answers = []
            for number in range(int(minutes * 60 * rate)):
                time.sleep(max(0.0, begun + number / rate - time.monotonic()))
                answers.append(pool.submit(caller.ask, number))
            came.update(answer.result() for answer in answers)
        done.set()
        looking.join()
    finally:
        stop_all(service)
        log.close()
    return {"minutes": minutes, "rate": rate, "came": dict(came), "processes": {n: judged(s) for n, s in seen.items()}}


def judged(seen: list[tuple[float, int, int]]) -> dict[str, list[float]]:
    """Return medians of each fifth: megabytes and descriptors."""
    fifth = max(1, len(seen) // 5)
    parts = [seen[start : start + fifth] for start in range(0, 5 * fifth, fifth)]
    return {
        "megabytes": [round(statistics.median(row[1] for row in part) / 2**20, 1) for part in parts if part],
        "descriptors": [statistics.median(row[2] for row in part) for part in parts if part],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    words = parser.parse_args()
    stop_servers_when_told_to()
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        print(json.dumps(run(words.minutes, words.rate, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
