"""Callers at a fixed pace while processes of the service are killed: who gets what, and for how long?

python tests/bench/kills.py [--requests 10000] [--rate 20] [--each 5] [--proxies 3] [--moves 10] [--gateways 2]

A registry with versions of a small model, tokens, ``cytoray serve`` with two gateways, HTTP and gRPC. Eight callers in
a second process send together at a fixed pace, whether or not earlier answers have come: four over HTTP, four over
gRPC. Of each, half ask again after the seconds in ``Retry-After``, for up to ten seconds; half ask once. A gateway, a
replica and the controller are killed (SIGKILL) in turns, evenly over the run, and an alias moves. Then, apart, HAProxy
is killed a few times.

A failure belongs to the kill before it. Prints a table, and JSON with ``--json``; the exit status is 1 when

- one who asks again fails,
- one who asks once fails after the kill of a replica or of the controller, or more than four times after that of a
  gateway,
- anything is answered by 404, NOT_FOUND, or a 500 without a sentence,
- connections are refused for more than three seconds.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))  # serving_samples

import grpc  # type: ignore[import-untyped]
import httpx
import psutil
from chaos import ALIAS, MODEL, make_registry
from servers import Server, start_cytoray, stop_servers_when_told_to

from cytoray_services.registry import Registry
from cytoray_services.settings import load_settings
from cytoray_services.tokens.tokens import create_token, tokens_path
from cytoray_serving.open_inference.protocol import open_inference_pb2 as messages
from cytoray_serving.open_inference.protocol import open_inference_pb2_grpc as protocol
from serving_samples import noise, tiff_bytes

CALLERS = 8
TIMEOUT = 60.0
PATIENCE = 10.0  # seconds for which a caller asks again
MOST_PER_GATEWAY = 4
LONGEST_REFUSED = 3.0  # seconds
_GATEWAY_PORTS = range(30_000, 32_000)  # of Ray Serve, for HTTP
SLOW = 2.0  # seconds, after which an answer is worth a line
TITLES = {"gateway": "ray::ServeReplica:cytoray:gateway", "replica": "ray::ServeReplica:cytoray:model-"}
TITLES |= {"controller": "ray::ServeController", "haproxy": ""}
TRIED_AGAIN = ("503", "429", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "refused")
CONFIG = """
gateways: {gateways}
models:
- model: {model}
  replicas: {{least: {replicas}, most: {replicas}}}
  run: {{threads: 1}}
"""


@dataclass(frozen=True)
class Asked:
    """One request: what came of it, and when (seconds since the epoch, comparable between processes).

    Attributes
    ----------
    door
        http or grpc.
    again
        Whether its caller asks again; `came` is what came last, `tries` how often it was sent.
    came
        ``ok``, ``refused`` (no connection), ``cut`` (the connection broke), or the status.
    """

    door: str
    again: bool
    came: str
    begun: float
    ended: float
    tries: int = 1
    said: str = ""


@dataclass(frozen=True)
class Kill:
    """A process that was killed, and when."""

    kind: str
    at: float


class OverHttp:
    """Asks over HTTP, with connections that are kept."""

    def __init__(self, url: str, token: str, image: bytes) -> None:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
        self._http = httpx.Client(timeout=TIMEOUT, headers={"Authorization": f"Bearer {token}"}, limits=limits)
        self._url, self._image = url, image

    def ask(self) -> tuple[str, str, float]:
        """Return what came, what was said, and the seconds after which to ask again."""
        try:
            answer = self._http.post(self._url, content=self._image, headers={"Content-Type": "image/tiff"})
        except httpx.ConnectError as error:
            return "refused", str(error), 0.2
        except httpx.HTTPError as error:
            return "cut", f"{type(error).__name__}: {error}", 1.0
        if answer.status_code == 200:
            return "ok", "", 0.0
        sentence = answer.headers.get("content-type", "").startswith("application/json") and "message" in answer.json()
        bare = "" if sentence else "bare "
        return f"{bare}{answer.status_code}", answer.text[:200], float(answer.headers.get("Retry-After", "inf"))


class OverGrpc:
    """Asks over gRPC, on one channel that never tries again by itself."""

    def __init__(self, address: str, token: str, image: bytes) -> None:
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.enable_retries", 0),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 200),
            ],
        )
        self._infer = protocol.GRPCInferenceServiceStub(self._channel).ModelInfer
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._request = messages.ModelInferRequest(
            model_name=f"{MODEL}@{ALIAS}",
            inputs=[{"name": "image", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [image]}}],
            outputs=[{"name": "labels"}],
        )

    def ask(self) -> tuple[str, str, float]:
        """Return what came, what was said, and the seconds after which to ask again."""
        try:
            self._infer(self._request, metadata=self._metadata, timeout=TIMEOUT)
        except grpc.RpcError as error:
            said = str(error.details())
            if "Connection refused" in said or "failed to connect" in said:
                return "refused", said[:200], 0.2
            trailers = dict(error.trailing_metadata() or ())
            return error.code().name, said[:200], float(trailers.get("retry-after", 1.0))
        return "ok", "", 0.0


def ask_until(door: str, asker: OverHttp | OverGrpc, again: bool) -> Asked:
    """Ask once, or until there is an answer or patience is over."""
    begun = time.time()
    tries = 0
    while True:
        tries += 1
        came, said, wait = asker.ask()
        now = time.time()
        retried = again and (came in TRIED_AGAIN or came == "cut") and now + wait - begun < PATIENCE
        if came == "ok" or not retried:
            return Asked(door, again, came, begun, now, tries, said)
        time.sleep(wait)


def send(url: str, address: str, token: str, image: bytes, requests: int, rate: float) -> None:
    """Send requests at a fixed pace and print what came, in the order in which it came."""
    callers = []
    for number in range(CALLERS):
        door = "grpc" if number % 2 else "http"
        asker = OverGrpc(address, token, image) if number % 2 else OverHttp(url, token, image)
        callers.append((door, asker, number % 4 >= 2))
    start = time.monotonic()
    with ThreadPoolExecutor(256) as pool:
        for number in range(requests):
            time.sleep(max(0.0, start + number / rate - time.monotonic()))
            asked = pool.submit(ask_until, *callers[number % CALLERS])
            asked.add_done_callback(lambda done: print(json.dumps(asdict(done.result())) + "\n", end="", flush=True))


def processes_of(server: Server, kind: str) -> list[psutil.Process]:
    """Return the processes of a service of one kind."""
    found = []
    for process in server.process.children(recursive=True):
        try:
            title = " ".join(process.cmdline())
            if title.startswith(TITLES[kind]) if TITLES[kind] else process.name() == "haproxy":
                found.append(process)
        except psutil.Error:
            continue
    return found


def find_proxies(server: Server) -> list[psutil.Process]:
    """Return the HAProxies that listen for callers; a stand-in is no child of the service."""
    port = httpx.URL(server.url).port
    listening = [one for one in psutil.net_connections("tcp4") if one.status == psutil.CONN_LISTEN and one.pid]
    return [psutil.Process(pid) for pid in {one.pid for one in listening if one.laddr and one.laddr.port == port}]


def kill(server: Server, kind: str, choice: random.Random, words: argparse.Namespace) -> Kill | None:
    """Kill one process of a kind, when all that were killed before are back; None where they are not in a minute."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            gateways = [one for one in processes_of(server, "gateway") if _listens(one)]
            there = find_proxies(server) if kind == "haproxy" else processes_of(server, kind)
            whole = len(gateways) >= words.gateways and len(processes_of(server, "replica")) >= words.replicas
            if there and whole:
                victim = choice.choice(gateways if kind == "gateway" else there)
                at = time.time()
                os.kill(victim.pid, signal.SIGKILL)
                return Kill(kind, at)
        except (psutil.Error, ProcessLookupError):
            pass  # it ended while it was looked at
        time.sleep(0.2)
    return None


def _listens(process: psutil.Process) -> bool:
    return any(
        one.status == psutil.CONN_LISTEN and one.laddr.port in _GATEWAY_PORTS
        for one in process.net_connections("tcp")
        if one.laddr
    )


def serve(home: Path, words: argparse.Namespace) -> Server:
    """Start the service, with tokens and gRPC."""
    config = home / "service.yaml"
    config.write_text(CONFIG.format(gateways=words.gateways, model=f"{MODEL}@{ALIAS}", replicas=words.replicas))
    return start_cytoray(["--config", str(config), "--grpc-port", "0"], home=home, open_to_all=False)


def ask_meanwhile(
    server: Server, token: str, image: Path, requests: int, rate: float, plan: Sequence[tuple[float, Any]]
) -> Iterator[Asked]:
    """Send requests from a process of their own, do what is planned at its seconds, and yield what came."""
    command = [sys.executable, __file__, "--send", server.url, str(server.grpc), token, str(image)]
    command += ["--requests", str(requests), "--rate", str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdout is not None
        first = sender.stdout.readline()
        begun = time.monotonic()

        def do() -> None:
            for at, action in plan:
                time.sleep(max(0.0, begun + at - time.monotonic()))
                action()

        doer = threading.Thread(target=do)
        doer.start()
        yield Asked(**json.loads(first))
        for line in sender.stdout:
            yield Asked(**json.loads(line))
        doer.join()


def run(words: argparse.Namespace, work: Path) -> tuple[list[Asked], list[Kill]]:
    """Ask, kill and move, all at the same time; then, apart, kill HAProxy."""
    home, image = work / "home", work / "image.tif"
    registry = make_registry(home, versions=3)
    tokens = tokens_path(load_settings({"CYTORAY_HOME": str(home)}))
    token, _ = create_token(tokens, "caller", ("predict",), days=1)
    image.write_bytes(tiff_bytes(noise(64, 64)))
    kills: list[Kill | None] = []
    choice = random.Random(words.seed)
    with serve(home, words) as server:
        seconds = words.requests / words.rate
        kinds = [kind for _ in range(words.each) for kind in ("gateway", "replica", "controller")]
        space = seconds / (len(kinds) + 1)
        plan = [
            (space * (place + 0.7), lambda kind=kind: kills.append(kill(server, kind, choice, words)))
            for place, kind in enumerate(kinds)
        ]
        plan += [
            (seconds * (place + 0.5) / words.moves, lambda place=place: _move(registry, place))
            for place in range(words.moves)
        ]
        plan.sort(key=lambda one: one[0])
        asked = list(ask_meanwhile(server, token, image, words.requests, words.rate, plan))
        apart = [
            (3 + words.apart * place, lambda: kills.append(kill(server, "haproxy", choice, words)))
            for place in range(words.proxies)
        ]
        if apart:
            requests = int((3 + words.apart * words.proxies) * words.rate)
            asked += ask_meanwhile(server, token, image, requests, words.rate, apart)
        if words.log is not None:
            words.log.write_bytes(server.log.read_bytes())
    return asked, [one for one in kills if one is not None]


def _move(registry: Registry, place: int) -> None:
    registry.promote(MODEL, str((place + 1) % 3 + 1), ALIAS, reason="kills")


@dataclass(frozen=True)
class Row:
    """What came after the kills of one kind, of those who ask once and of those who ask again.

    Attributes
    ----------
    refused
        The longest time without a connection, in seconds.
    worst
        Failures of those who ask once, after the worst kill.
    tries
        The most tries of one who asks again.
    longest
        Time until an answer, in seconds.
    """

    kind: str
    kills: int
    requests: int
    once: dict[str, int]
    again: dict[str, int]
    worst: int
    refused: float
    tries: int
    longest: float


def rows_of(asked: Sequence[Asked], kills: Sequence[Kill]) -> list[Row]:
    """Attribute each request to the kill before its end, and count."""
    blamed: dict[int, list[Asked]] = collections.defaultdict(list)
    for one in asked:
        blamed[sum(kill.at <= one.ended for kill in kills) - 1].append(one)
    kinds = [None if place < 0 else kills[place].kind for place in sorted(blamed)]
    return [_row(kind, blamed, kills) for kind in dict.fromkeys(kinds)]


def _row(kind: str | None, blamed: dict[int, list[Asked]], kills: Sequence[Kill]) -> Row:
    places = [place for place in blamed if (None if place < 0 else kills[place].kind) == kind]
    asked = [one for place in places for one in blamed[place]]
    failed = {
        again: collections.Counter(f"{one.door} {one.came}" for one in asked if one.again is again and one.came != "ok")
        for again in (False, True)
    }
    refused = [
        max([one.ended for one in blamed[place] if one.came == "refused"], default=0.0)
        - min([one.ended for one in blamed[place] if one.came == "refused"], default=0.0)
        for place in places
    ]
    return Row(
        kind=kind or "none",
        kills=len([place for place in places if place >= 0]),
        requests=len(asked),
        once=dict(failed[False]),
        again=dict(failed[True]),
        worst=max(sum(one.came != "ok" and not one.again for one in blamed[place]) for place in places),
        refused=max(refused),
        tries=max([one.tries for one in asked if one.again], default=0),
        longest=max([one.ended - one.begun for one in asked], default=0.0),
    )


def faults_of(rows: Sequence[Row]) -> list[str]:
    """Return what must not be."""
    faults = []
    for row in rows:
        if row.again:
            faults.append(f"{row.kind}: those who ask again failed: {row.again}")
        if row.once and row.kind not in ("gateway", "haproxy"):
            faults.append(f"{row.kind}: those who ask once failed: {row.once}")
        if row.kind == "gateway" and row.worst > MOST_PER_GATEWAY:
            faults.append(f"gateway: {row.worst} failures after one kill, at most {MOST_PER_GATEWAY} may be")
        if row.refused > LONGEST_REFUSED:
            faults.append(f"{row.kind}: no connection for {row.refused:.1f} s")
        wrong = [came for came in {**row.once, **row.again} if came.split(" ", 1)[1] not in (*TRIED_AGAIN, "cut")]
        faults += [f"{row.kind}: {came}" for came in wrong]
    return faults


def table_of(rows: Sequence[Row]) -> str:
    """Return the rows as a table of Markdown."""
    lines = ["| killed | times | requests | asked once: failed | worst kill | asked again: failed | tries | longest s "]
    lines[0] += "| refused s |"
    lines += ["|---|" + "---|" * 8]
    for row in rows:
        once, again = (
            ", ".join(f"{n} × {came}" for came, n in found.items()) or "0" for found in (row.once, row.again)
        )
        lines.append(
            f"| {row.kind} | {row.kills} | {row.requests:,} | {once} | {row.worst} | {again} | {row.tries} "
            f"| {row.longest:.1f} | {row.refused:.1f} |"
        )
    return "\n".join(lines)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second, of all callers together")
    parser.add_argument("--each", type=int, default=5, help="kills of a gateway, of a replica and of the controller")
    parser.add_argument("--proxies", type=int, default=3, help="kills of HAProxy, apart")
    parser.add_argument("--apart", type=float, default=20.0, help="seconds between those")
    parser.add_argument("--moves", type=int, default=10)
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="where to copy the service's log")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--send", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main() -> None:
    words = arguments()
    if words.send:
        url, address, token, image = words.send
        send(url, address, token, Path(image).read_bytes(), words.requests, words.rate)
        return
    stop_servers_when_told_to()
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        asked, kills = run(words, Path(folder))
    rows = rows_of(asked, kills)
    faults = faults_of(rows)
    failed = [asdict(one) for one in asked if one.came != "ok"]
    if words.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "faults": faults, "failed": failed}, indent=2))
    else:
        print(table_of(rows), *(f"fault: {fault}" for fault in faults), sep="\n")
    for kind, at in ((one.kind, one.at) for one in kills):
        print(f"{kind} killed at {at:.2f}", file=sys.stderr)
    slow = [asdict(one) for one in asked if one.came == "ok" and one.ended - one.begun > SLOW]
    for one in (failed + slow)[:60]:
        print(json.dumps(one), file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
