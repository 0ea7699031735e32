"""Send tens of thousands of damaged images to a running service, or read them directly, and report what happened.

    python tests/bench/mutated_images.py --direct --count 20000 --processes 2
    python tests/bench/mutated_images.py --url http://127.0.0.1:8000 --model nuclei --count 20000 --pid PID

Directly, each mutation is read in processes of its own: the size that it declares, its bytes, and its path as a trusted
file. The report is one JSON object: how many of each status (or error), every answer of 500 and above with the seed
that makes it again (``--first SEED --count 1``), and with ``--pid`` the processes of the service and their memory
before and after. The exit status is 1 when there was such an answer, or a process of the service is gone.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httpx
import psutil

from cytoray_analysis.errors import CytorayError
from cytoray_analysis.images import Limits, declared_size, read_image
from image_mutations import mutated, valid_images

_SETTLING_SECONDS = 10
_MOST_FAULTS = 50
_SLOW_SECONDS = 2.0
_HANGING_SECONDS = 30.0
_STARTING = -1  # of a child that has not read anything yet
LIMITS = Limits(pixels=2**26, decoded_bytes=2**28, frames=4096, files=4096)


def read_in_processes(first: int, count: int, kinds: str, processes: int) -> dict[str, Any]:
    """Share the seeds among processes, each with children of its own, and put their reports together."""
    shares = [(first + count * part // processes, first + count * (part + 1) // processes) for part in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        reports = list(pool.map(lambda share: read_directly(share[0], share[1] - share[0], kinds), shares))
    outcomes = sum((Counter[str](report["outcomes"]) for report in reports), Counter[str]())
    return {
        "count": count,
        "outcomes": dict(sorted(outcomes.items())),
        "faults": [fault for report in reports for fault in report["faults"]][:_MOST_FAULTS],
        "slow": [one for report in reports for one in report["slow"]][:_MOST_FAULTS],
        "peak_megabytes": max(report["peak_megabytes"] for report in reports),
        "seconds": max(report["seconds"] for report in reports),
    }


def read_directly(first: int, count: int, kinds: str) -> dict[str, Any]:
    """Read mutations in a child process, and go on after the one that ended it, if one did."""
    begun, counts, faults, next_seed = time.monotonic(), Counter[str](), [], first
    slow: list[Any] = []
    peak = 0
    while next_seed < first + count:
        context = multiprocessing.get_context("spawn")
        current = context.Value("q", _STARTING)
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_read_all, args=(next_seed, first + count, kinds, current, sender))
        child.start()
        sender.close()
        outcome = None
        with contextlib.suppress(EOFError):  # it ended without a word; what it was at, it said before
            before = _STARTING
            while not receiver.poll(_HANGING_SECONDS):
                if current.value == before != _STARTING:
                    child.kill()
                    break
                before = current.value
            outcome = receiver.recv()
        child.join()
        if outcome is not None:
            counts.update(outcome["counts"])
            faults += outcome["faults"]
            slow += outcome["slow"]
            peak = max(peak, outcome["peak"])
            break
        last = max(current.value, next_seed)
        faults.append({"seed": last, "error": f"the process ended with {child.exitcode}"})
        next_seed = last + 1
    return {
        "count": count,
        "outcomes": dict(counts),
        "faults": faults[:_MOST_FAULTS],
        "slow": slow[:_MOST_FAULTS],
        "peak_megabytes": peak,
        "seconds": round(time.monotonic() - begun, 1),
    }


def _read_all(first: int, end: int, kinds: str, current: Any, sender: Any) -> None:
    faulthandler.enable()
    images = _chosen(kinds)
    counts, faults, slow = Counter[str](), [], []
    for seed in range(first, end):
        current.value = seed
        mutation = mutated(images, seed)
        for read in (_declared, _by_bytes, _by_path):
            begun = time.perf_counter()
            memory = _peak()
            try:
                read(mutation.data)
                outcome = "image"
            except CytorayError as error:
                outcome = type(error).__name__
                if error.status >= 500:
                    faults.append({"seed": seed, "error": repr(error)})
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                outcome = f"fault {type(error).__name__}"
                faults.append({"seed": seed, "source": mutation.source, "error": repr(error)[:200]})
            counts[f"{read.__name__.strip('_')}: {outcome}"] += 1
            seconds, grown = time.perf_counter() - begun, _peak() - memory
            if (seconds > _SLOW_SECONDS or grown > 200) and not mutation.source.startswith("zip"):
                slow.append({"seed": seed, "source": mutation.source, "seconds": round(seconds, 2), "megabytes": grown})
    sender.send({"counts": counts, "faults": faults, "slow": slow, "peak": _peak()})


def _declared(data: bytes) -> None:
    declared_size(data, limits=LIMITS)


def _by_bytes(data: bytes) -> None:
    read_image(data, limits=LIMITS).read()


def _by_path(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="mutated-") as folder:
        path = Path(folder) / "image"
        path.write_bytes(data)
        read_image(path, limits=LIMITS).read()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _chosen(kinds: str) -> dict[str, bytes]:
    return {name: data for name, data in valid_images().items() if name.startswith(tuple(kinds.split(",")))}


def send(options: argparse.Namespace) -> dict[str, Any]:
    """Send mutations over a few connections."""
    images = _chosen(options.kinds)
    before = _processes(options.pid)
    begun, counts, faults = time.monotonic(), Counter[str](), []
    headers = {"Authorization": f"Bearer {options.token}"} if options.token else {}
    address = f"{options.url.rstrip('/')}/models/{options.model}/predict"
    with httpx.Client(headers=headers, timeout=120) as client, ThreadPoolExecutor(options.connections) as pool:

        def ask(seed: int) -> tuple[int, str, str]:
            mutation = mutated(images, seed)
            try:
                answer = client.post(address, content=mutation.data or b" ")
            except httpx.HTTPError as error:
                return seed, type(error).__name__, repr(error)
            return seed, str(answer.status_code), answer.text[:300] if answer.status_code >= 500 else ""

        for seed, status, text in pool.map(ask, range(options.first, options.first + options.count)):
            counts[status] += 1
            if text:
                faults.append({"seed": seed, "status": status, "text": text})
    seconds = time.monotonic() - begun
    report = {
        "count": options.count,
        "statuses": dict(counts),
        "faults": faults[:_MOST_FAULTS],
        "seconds": round(seconds, 1),
        "requests_per_second": round(options.count / seconds, 1),
    }
    if options.pid:
        time.sleep(_SETTLING_SECONDS)
        after = _processes(options.pid)
        report["processes"] = [
            {"pid": pid, "name": name, "megabytes_before": size, "megabytes_after": after.get(pid, (name, None))[1]}
            for pid, (name, size) in before.items()
        ]
        report["gone"] = sorted(set(before) - set(after))
        report["new"] = sorted(set(after) - set(before))
    return report


def _processes(pid: int | None) -> dict[int, tuple[str, int]]:
    """Return name and memory (MB) of a process and all that it started."""
    if pid is None:
        return {}
    found = {}
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        try:
            title = " ".join(process.cmdline()[:1])[-80:] or process.name()
            found[process.pid] = (title, process.memory_info().rss // 2**20)
        except psutil.NoSuchProcess:
            continue
    return found


def main() -> None:
    """Read the options, do it, print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--direct", action="store_true", help="read in a child process, without a service")
    parser.add_argument("--url")
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--token")
    parser.add_argument("--pid", type=int, help="the service's process, whose tree is watched")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=1, help="with --direct")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--kinds", default="", help="how the names of images begin, such as tiff,ome,png,jpeg,zip")
    options = parser.parse_args()
    if options.direct == bool(options.url):
        parser.error("expected --direct or --url")
    if options.direct:
        report = read_in_processes(options.first, options.count, options.kinds, options.processes)
    else:
        report = send(options)
    print(json.dumps(report, indent=2))
    sys.exit(1 if report["faults"] or report.get("gone") else 0)


if __name__ == "__main__":
    main()
