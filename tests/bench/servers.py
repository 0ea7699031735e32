"""Servers that benchmarks start, wait for and stop, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from cytoray_services.free_ports import free_port

CYTORAY = [sys.executable, "-c", "from cytoray_services.commands.root import main; main()"]
START_SECONDS = 300.0


@dataclass(frozen=True)
class Server:
    """A running server; leaving its block stops it and everything below it.

    Attributes
    ----------
    url
        Where it answers.
    log
        What it printed.
    patience
        Seconds that it has to end.
    grpc
        ``host:port`` where it speaks gRPC; None for nowhere.
    """

    name: str
    url: str
    process: psutil.Popen
    log: Path
    patience: float = 60.0
    grpc: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_all(self.process, self.patience)


def stop_all(process: psutil.Popen, patience: float = 60.0) -> None:
    """Ask a process to end, and kill what is left of it and of everything below it when patience is over."""
    below = process.children(recursive=True) if process.is_running() else []
    process.terminate()
    _, alive = psutil.wait_procs([process, *below], timeout=patience)
    for left in alive:
        left.kill()


def stop_servers_when_told_to() -> None:
    """Have SIGTERM unwind the program, so that the servers that it started end with it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def clean_environment(home: Path) -> dict[str, str]:
    """Return the environment of this process with another CYTORAY_HOME and its own registry."""
    kept = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return kept | {"CYTORAY_HOME": str(home)}


def start_cytoray(
    arguments: Sequence[str],
    *,
    home: Path,
    name: str = "cytoray",
    model: str | None = None,
    open_to_all: bool = True,
) -> Server:
    """Start ``cytoray serve`` and wait until it answers.

    Parameters
    ----------
    arguments
        Models and options.
    home
        Its ``CYTORAY_HOME``.
    model
        The name in the address; by default the first name of the first model.
    open_to_all
        Whether callers need no token.
    """
    home.mkdir(parents=True, exist_ok=True)
    log = home / f"{name}.log"
    process = psutil.Popen(
        [*CYTORAY, "serve", *arguments, "--port", "0", "--json", *(["--insecure-local"] if open_to_all else [])],
        env=clean_environment(home),
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
    )
    line = process.stdout.readline()
    if not line:
        sys.exit(f"cytoray serve ended with {process.wait(60)}:\n{log.read_text()[-3000:]}")
    started = json.loads(line)
    if "url" not in started:
        sys.exit(f"cytoray serve did not start: {line}\n{log.read_text()[-3000:]}")
    path = f"/models/{model or started['models'][0]['names'][0]}/predict"
    return Server(name, started["url"] + path, process, log, grpc=started["grpc"])


def wait_until_up(name: str, command: Sequence[str], path: str, environment: Mapping[str, str], folder: Path) -> Server:
    """Start a command with a free port in the place of ``{port}``, and wait until something there answers HTTP."""
    port = free_port()
    log = folder / "log.txt"
    process = psutil.Popen(
        [word.format(port=port) for word in command],
        env=dict(environment),
        cwd=folder,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
    )
    server = Server(name, f"http://127.0.0.1:{port}{path}", process, log, patience=5.0)
    last = time.monotonic() + START_SECONDS
    while time.monotonic() < last:
        if process.poll() is not None:
            sys.exit(f"{name} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5)
        except urllib.error.HTTPError:
            return server  # it wants a POST: it is up
        except OSError:
            time.sleep(0.2)
        else:
            return server
    with server:
        sys.exit(f"{name} does not answer:\n{log.read_text()[-3000:]}")
