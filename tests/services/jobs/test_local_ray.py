"""The cluster of this machine is started again where its node died; a small program stands in for ``ray start``."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from cytoray_analysis.errors import PlatformError
from cytoray_services.jobs.ray.local import LocalRay
from cytoray_services.jobs.ray.start import TRIES
from cytoray_services.jobs.scale import Scale
from cytoray_services.settings import load_settings

# Takes the options of `ray start`. As often as RAY_STAND_IN_DIES says its node dies: as Ray's does it writes why into
# its log and waits on, or ends at once. Otherwise its job API answers requests with the token.
STAND_IN = """
import os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if "=" in word)
starts = Path(os.environ["RAY_STAND_IN_STARTS"])
with starts.open("a") as file:
    file.write(f"{os.getpid()} {options['temp-dir']} {options['num-cpus']}\\n")
if len(starts.read_text().splitlines()) <= int(os.environ["RAY_STAND_IN_DIES"]):
    if os.environ["RAY_STAND_IN_WAY"] == "ends":
        sys.exit("the head is not well")
    logs = Path(options["temp-dir"]) / "session_2026-01-01_00-00-00_000000_1" / "logs"
    logs.mkdir(parents=True)
    (logs / "raylet.out").write_text("Check failed: Timed out waiting for file /tmp/x/metrics_agent_port_abc")
    time.sleep(600)


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers["Authorization"] == f"Bearer {os.environ['RAY_AUTH_TOKEN']}"
        self.send_response(200 if known and self.path == "/api/version" else 403)
        self.end_headers()

    def log_message(self, *arguments):
        pass


server = HTTPServer((options["dashboard-host"], int(options["dashboard-port"])), Api)
print("Ray runtime started.", flush=True)
server.serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path: Path, cytoray_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Give a function that puts the stand-in in Ray's place for programs that are started; it returns its starts."""
    scripts = tmp_path / "stand-in" / "ray" / "scripts"
    scripts.mkdir(parents=True)
    for package in (scripts.parent, scripts):
        (package / "__init__.py").touch()
    (scripts / "scripts.py").write_text(STAND_IN)

    def put(*, dies: int, way: str) -> Path:
        starts = tmp_path / "starts"
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stand-in"))
        monkeypatch.setenv("RAY_STAND_IN_STARTS", str(starts))
        monkeypatch.setenv("RAY_STAND_IN_DIES", str(dies))
        monkeypatch.setenv("RAY_STAND_IN_WAY", way)
        return starts

    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as short:
        monkeypatch.setenv("RAY_TMPDIR", short)
        yield put


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "why"), [("waits", "its agent did not start within the 15 s"), ("ends", "the head is not well")]
)
def test_a_node_that_died_is_started_again(
    stand_in: Callable[..., Path], caplog: pytest.LogCaptureFixture, way: str, why: str
) -> None:
    starts = stand_in(dies=2, way=way)
    local = LocalRay(load_settings())
    assert local.running() is None
    cluster = local.start(Scale(workers=100))
    try:
        begun = [line.split() for line in starts.read_text().splitlines()]
        assert len(begun) == 3
        assert int(begun[-1][0]) == cluster.pid
        assert begun[-1][2] == "100"
        assert caplog.text.count(f"Ray did not start ({why}") == 2
        assert not any(psutil.pid_exists(int(pid)) for pid, _, _ in begun[:2])
        assert [Path(folder).parent.exists() for _, folder, _ in begun] == [False, False, True]
        assert local.running() == cluster
        assert Path(begun[-1][1]).parent == cluster.folder
        assert cluster.folder.stat().st_mode & 0o777 == 0o700
        assert LocalRay(load_settings()).start(Scale()) == cluster
        assert len(starts.read_text().splitlines()) == 3
    finally:
        os.kill(cluster.pid, signal.SIGTERM)
    psutil.Process(cluster.pid).wait(10)
    assert local.running() is None


@pytest.mark.slow
def test_a_node_that_dies_every_time_is_a_sentence_and_leaves_nothing(
    stand_in: Callable[..., Path],
) -> None:
    starts = stand_in(dies=99, way="waits")
    local = LocalRay(load_settings())
    with pytest.raises(PlatformError, match=f"started {TRIES} times.*metrics_agent_port, from raylet.out") as raised:
        local.start(Scale())
    begun = [line.split() for line in starts.read_text().splitlines()]
    assert len(begun) == TRIES
    assert not any(psutil.pid_exists(int(pid)) for pid, _, _ in begun)
    assert list(Path(os.environ["RAY_TMPDIR"]).iterdir()) == []
    assert local.running() is None
    log = str(raised.value.hint).rpartition(" ")[2]
    assert Path(log).is_file()
