"""Another user of the machine while a service runs: reads no token, session, log or setting, and gets no answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import psutil
import pytest

from cytoray_services.settings import load_settings
from cytoray_services.tokens.tokens import tokens_path
from other_users import entered_by_others, files_of, listening, require_root, sockets_of
from serving_samples import GOOD, MAIN

pytestmark = [pytest.mark.ray, pytest.mark.long]
INTERNAL = "/ray.serve.ASGIService/HandleRequest"


@dataclass(frozen=True)
class SharedMachine:
    """A service on a machine of many users."""

    service: Any
    home: Path
    scratch: Path

    @property
    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.service.process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def machine(serve: Callable[..., Any], bundle_folder: Path) -> Iterator[SharedMachine]:
    """Run a service where no folder above is private, no file is by umask, and TMPDIR is long."""
    folder = Path(tempfile.mkdtemp(prefix="of-all-"))
    folder.chmod(0o755)
    home, scratch = folder / "home", folder / "scratch-of-a-job-of-a-batch-system-12345678"
    scratch.mkdir()
    with open_to_all(scratch):
        subprocess.run(
            [sys.executable, "-c", MAIN, "tokens", "create", "me", "--scope", "predict"],
            env=os.environ | {"CYTORAY_HOME": str(home)},
            check=True,
            capture_output=True,
        )
        service = serve(home, folder / "log.txt", str(bundle_folder), "--grpc-port", "0")
    yield SharedMachine(service, home, scratch)
    service.process.terminate()
    assert service.process.wait(60) == 0, service.log.read_text()[-3000:]
    shutil.rmtree(folder)


@contextmanager
def open_to_all(scratch: Path) -> Iterator[None]:
    mask, before = os.umask(0), os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(scratch)
    try:
        yield
    finally:
        os.umask(mask)
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before


def test_a_long_place_of_temporary_files_does_no_harm(machine: SharedMachine) -> None:
    assert httpx.post(f"{machine.service.url}/models/nuclei/predict", content=GOOD, timeout=60).status_code == 200
    assert "too long for the sockets of Ray" in machine.service.log.read_text()


def test_another_user_reads_nothing_of_a_running_service(machine: SharedMachine) -> None:
    require_root()
    sockets = sockets_of(machine.processes)
    by_name = {path.name: path for path in sockets}
    session, proxy = by_name["raylet"].parents[1], by_name["metrics.sock"].parent
    assert (session / "sockets" / "plasma_store").is_socket()
    assert (proxy / "admin.sock").is_socket()
    programs = (sys.prefix, sys.base_prefix, "/usr/", "/lib", "/proc/", "/dev/", str(machine.service.log))
    files = files_of(machine.processes, programs)
    assert any("session_" in str(path) for path in files)
    around = [session.parent, session, session / "logs", proxy, *proxy.iterdir()]
    private = [tokens_path(load_settings({"CYTORAY_HOME": str(machine.home)}))]
    environments = [Path(f"/proc/{process.pid}/environ") for process in machine.processes]
    assert entered_by_others([machine.home, machine.scratch]) == [str(machine.home), str(machine.scratch)]
    assert entered_by_others([*sockets, *files, *around, *private, *environments]) == []


def test_a_service_of_this_machine_listens_on_this_machine(machine: SharedMachine) -> None:
    found = listening([psutil.Process(machine.service.process.pid), *machine.processes])
    wide = [one for one in found if not one[0].startswith(("127.", "::1", "::ffff:127."))]
    # Serve has no switch for the address at which replicas hear each other; they ask for the token of the instance.
    assert all("ServeReplica" in words for _, _, words in wide), wide
    assert wide
    for _, port, _ in wide:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(INTERNAL)(b"", timeout=20)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_ray_of_a_service_answers_no_one_without_its_own_token(machine: SharedMachine) -> None:
    store = next(one for one in machine.processes if one.name() == "gcs_server")
    port = listening([store])[0][1]
    file = Path.home() / ".ray" / "auth_token"  # Ray's own of all instances, for everybody to read
    token = file.read_text() if file.exists() else "0" * 64
    ask = f"from ray._raylet import GcsClient; print(GcsClient('127.0.0.1:{port}').get_all_node_info(timeout=20))"
    ended = subprocess.run(
        [sys.executable, "-c", ask],
        env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode, ended.stdout
    assert "auth" in ended.stderr.lower(), ended.stderr[-2000:]
