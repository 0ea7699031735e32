"""The load of the benchmarks of serving: a process that keeps a few connections busy and times every answer.

python tests/bench/load.py URL BODY… --content-type image/tiff --connections 4 --seconds 10

Prints one JSON object, a :class:`Load`. `http.client` over kept connections: of the clients that the standard library
and the dependencies offer it costs least, and what it costs is part of the answer.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT = 120.0


@dataclass(frozen=True)
class Load:
    """What one spell of load measured.

    Attributes
    ----------
    seconds
        From the first request to the last answer.
    latencies
        Of every answer, in seconds.
    failures
        Requests that were answered by anything but 200; their bodies' beginnings.
    client_cpu
        Seconds of processor time that the client itself took.
    """

    seconds: float
    latencies: tuple[float, ...]
    failures: tuple[str, ...]
    client_cpu: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds


def percentile(latencies: Sequence[float], share: float) -> float:
    """Return the latency that a share of the answers stay below."""
    if len(latencies) < 2:
        return latencies[0]
    return statistics.quantiles(latencies, n=1000, method="inclusive")[round(share * 1000) - 1]


def measure_load(url: str, bodies: Sequence[Path], content_type: str, connections: int, seconds: float) -> Load:
    """Load a server from a second process, and wait for the figures."""
    command = [sys.executable, __file__, url, *map(str, bodies), "--content-type", content_type]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    values = json.loads(done.stdout)
    load = Load(values["seconds"], tuple(values["latencies"]), tuple(values["failures"]), values["client_cpu"])
    if load.failures:
        sys.exit(f"{url}: {len(load.failures)} requests failed, the first with {load.failures[0]}")
    return load


def keep_busy(url: str, bodies: Sequence[bytes], content_type: str, connections: int, seconds: float) -> Load:
    """Keep every connection busy with one request at a time until the time is over; each finishes its last."""
    parts = urlsplit(url)
    latencies: list[float] = []
    failures: list[str] = []
    numbers = itertools.count()
    begun, processor = time.perf_counter(), time.process_time()

    def one_connection() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
        headers = {"Content-Type": content_type, "Accept": "*/*"}
        while time.perf_counter() - begun < seconds:
            body = bodies[next(numbers) % len(bodies)]
            start = time.perf_counter()
            connection.request("POST", parts.path, body, headers)
            response = connection.getresponse()
            answer = response.read()
            latencies.append(time.perf_counter() - start)
            if response.status != 200:
                failures.append(f"{response.status}: {answer[:300]!r}")
                return
        connection.close()

    threads = [threading.Thread(target=one_connection) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(time.perf_counter() - begun, tuple(latencies), tuple(failures), time.process_time() - processor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("bodies", nargs="+", type=Path)
    parser.add_argument("--content-type", default="image/tiff")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0)
    words = parser.parse_args()
    bodies = [path.read_bytes() for path in words.bodies]
    print(json.dumps(asdict(keep_busy(words.url, bodies, words.content_type, words.connections, words.seconds))))


if __name__ == "__main__":
    main()
