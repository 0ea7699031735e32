"""Requests without retries while replicas are killed and the alias moves: which fail, which are answered by what?

python tests/bench/chaos.py [--requests 10000] [--rate 100] [--kill-every 5] [--moves 10] [--allowed-lag SECONDS]

A registry with versions of a small model, ``cytoray serve nuclei@champion --replicas 2``, a second process that sends
the requests over a few connections and tries none of them twice, a killer that ends a random replica of the model
with SIGKILL every few seconds, and an alias that moves from version to version, evenly over the run. An answer is
right when it is a 200 and its version was live: the alias pointed to it at some moment between the beginning of the
request, less the lag that is allowed, and the end of the answer. How long versions were really still given after the
alias had left them is measured. Prints one JSON object; the exit status is 1 when anything failed.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.append(str(Path(__file__).parents[1]))  # serving_samples

import psutil
from load import percentile
from servers import Server, start_cytoray, stop_servers_when_told_to
from sureness import highest_quantile, quantile

from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings
from serving_samples import noise, tiff_bytes, write_small_bundle

MODEL, ALIAS = "nuclei", "champion"
TIMEOUT = 120.0


@dataclass(frozen=True)
class Asked:
    """One request: what came, and when (seconds since the epoch, comparable between processes)."""

    status: int
    version: str | None
    begun: float
    ended: float
    fault: str | None = None


@dataclass(frozen=True)
class Move:
    """The alias pointed to `version` from some moment between `begun` and `ended` on."""

    version: str
    begun: float
    ended: float


@dataclass
class Chaos:
    """What was done to the service while it was asked."""

    kills: list[float] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)


def send(url: str, image: Path, requests: int, connections: int, rate: float) -> None:
    """Send requests over a few connections, each once, and print what came; a broken connection is opened again."""
    start = time.monotonic()
    parts = urlsplit(url)
    body = image.read_bytes()
    numbers = iter(range(requests))

    def ask(connection: http.client.HTTPConnection) -> Asked:
        begun = time.time()
        try:
            connection.request("POST", parts.path, body, {"Content-Type": "image/tiff"})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Asked(0, None, begun, time.time(), f"{type(error).__name__}: {error}")
        fault = None if response.status == 200 else answer.decode(errors="replace")[:300]
        return Asked(response.status, response.getheader("X-Cytoray-Version"), begun, time.time(), fault)

    def one_connection() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
        for number in numbers:
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            print(json.dumps(asdict(ask(connection))) + "\n", end="", flush=True)
        connection.close()

    threads = [threading.Thread(target=one_connection) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def make_registry(home: Path, versions: int) -> Registry:
    """Make a registry with versions of a small model, the first of them the champion."""
    registry = Registry.open(load_settings({"CYTORAY_HOME": str(home)}))
    for seed in range(versions):
        bundle = write_small_bundle(home / "bundles" / f"{MODEL}-{seed}", seed=seed)
        registry.register(bundle, MODEL, alias=ALIAS if seed == 0 else None)
    return registry


def replicas_of(server: Server) -> list[psutil.Process]:
    """Return the processes of the model's replicas."""
    found = []
    for process in server.process.children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith("ray::ServeReplica:") and "gateway" not in title:
            found.append(process)
    return found


def kill_replicas(server: Server, every: float, done: threading.Event, chaos: Chaos, seed: int) -> None:
    """End a random replica of the model every few seconds."""
    choice = random.Random(seed)
    while not done.wait(every):
        alive = replicas_of(server)
        if alive:
            chaos.kills.append(time.time())
            os.kill(choice.choice(alive).pid, signal.SIGKILL)


def move_alias(
    registry: Registry, words: argparse.Namespace, asked: Sequence[Asked], done: threading.Event, chaos: Chaos
) -> None:
    """Move the alias each time that an even share of the requests is answered; `asked` grows meanwhile."""
    for number in range(1, words.moves + 1):
        while len(asked) < number * words.requests / (words.moves + 1):
            if done.wait(0.02):
                return
        version = str(number % words.versions + 1)
        begun = time.time()
        registry.promote(MODEL, version, ALIAS, reason="chaos")
        chaos.moves.append(Move(version, begun, time.time()))


def spans_of(moves: Sequence[Move]) -> list[tuple[str, float, float]]:
    """Return when each version was live: from the beginning of the move to it to the end of the move away."""
    spans, since, current = [], float("-inf"), "1"
    for move in moves:
        spans.append((current, since, move.ended))
        current, since = move.version, move.begun
    spans.append((current, since, float("inf")))
    return spans


def lag_of(one: Asked, spans: Sequence[tuple[str, float, float]]) -> float:
    """Return how long before the request the alias had left the version that answered; 0 when it was live."""
    lags = [
        max(0.0, one.begun - end) if begun <= one.ended else float("inf")
        for version, begun, end in spans
        if version == one.version
    ]
    return min(lags, default=float("inf"))


def judge(asked: Sequence[Asked], chaos: Chaos, allowed_lag: float) -> dict[str, Any]:
    """Count what failed and what was answered by a version that was not live."""
    failed = [one for one in asked if one.status != 200]
    spans = spans_of(chaos.moves)
    lags = [lag_of(one, spans) for one in asked if one.status == 200]
    seconds = [one.ended - one.begun for one in asked]
    kinds = collections.Counter(f"{one.status} {one.fault}" for one in failed)
    return {
        "requests": len(asked),
        "seconds": max(one.ended for one in asked) - min(one.begun for one in asked),
        "kills": len(chaos.kills),
        "moves": len(chaos.moves),
        "failed": len(failed),
        "failures": [{"count": count, "what": what} for what, count in kinds.most_common(10)],
        "not_live": sum(lag > allowed_lag for lag in lags),
        "allowed_lag": allowed_lag,
        "longest_lag": max(lags, default=0.0),
        "late_answers": sum(lag > 0 for lag in lags),
        "by_version": dict(collections.Counter(one.version for one in asked if one.status == 200)),
        "p50": percentile(seconds, 0.5),
        "slowest": slowest(seconds),
        "longest": max(seconds),
        "failed_after_kill": [
            round(min((one.ended - kill for kill in chaos.kills if kill <= one.ended), default=-1.0), 3)
            for one in failed[:50]
        ],
    }


def slowest(seconds: Sequence[float]) -> dict[str, Any] | None:
    """Return the highest quantile that the requests are enough for, with its interval."""
    share = highest_quantile(seconds)
    found = None if share is None else quantile(seconds, share)
    return None if found is None else {"share": share, **asdict(found)}


def run(words: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Ask, kill and move, all at the same time, and judge."""
    home, image = work / "home", work / "image.tif"
    registry = make_registry(home, words.versions)
    image.write_bytes(tiff_bytes(noise(words.side, words.side)))
    asked: list[Asked] = []
    chaos, done = Chaos(), threading.Event()
    options = ["--replicas", str(words.replicas), "--threads", "1", *words.serve_options]
    with start_cytoray([f"{MODEL}@{ALIAS}", *options], home=home) as server:
        command = [sys.executable, __file__, "--send", server.url, str(image)]
        command += ["--requests", str(words.requests), "--connections", str(words.connections)]
        command += ["--rate", str(words.rate)]
        killer = threading.Thread(target=kill_replicas, args=(server, words.kill_every, done, chaos, words.seed))
        mover = threading.Thread(target=move_alias, args=(registry, words, asked, done, chaos))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
            killer.start()
            mover.start()
            for line in sender.stdout or ():
                asked.append(Asked(**json.loads(line)))
        done.set()
        killer.join()
        mover.join()
        if words.log is not None:
            words.log.write_bytes(server.log.read_bytes())
    return judge(asked, chaos, words.allowed_lag)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second at most, so that the run lasts")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--versions", type=int, default=3)
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds")
    parser.add_argument("--moves", type=int, default=10)
    parser.add_argument("--allowed-lag", type=float, default=5.0, help="seconds an old version may go on answering")
    parser.add_argument("--side", type=int, default=64, help="pixels of the image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="where to copy the service's log")
    parser.add_argument("--serve-options", nargs=argparse.REMAINDER, default=[], help="the rest goes to cytoray serve")
    parser.add_argument("--send", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.send:
        send(words.send[0], Path(words.send[1]), words.requests, words.connections, words.rate)
        return
    stop_servers_when_told_to()
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        verdict = run(words, Path(folder))
    print(json.dumps(verdict, indent=2))
    sys.exit(1 if verdict["failed"] or verdict["not_live"] else 0)


if __name__ == "__main__":
    main()
