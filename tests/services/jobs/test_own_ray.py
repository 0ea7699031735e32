"""A Ray instance of this machine is its user's: a folder, a token and an address of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cytoray_services.jobs.ray.own import SESSIONS, forget_token, own_folder, passing_folder, require_token
from other_users import entered_by_others, files_of, listening, require_root, sockets_of

START = """
import os, sys
from pathlib import Path
from cytoray_services.jobs.ray.own import passing_folder
from cytoray_services.jobs.ray.start import start_ray
import ray

os.umask(0)
with passing_folder() as folder:
    start_ray(folder, shielded=True, known=True, num_cpus=1, include_dashboard=True, object_store_memory=2**27,
              log_to_driver=False)
    interface = ray.get(ray.remote(lambda: os.environ.get("GLOO_SOCKET_IFNAME")).remote())
    assert interface == "lo" or sys.platform != "linux", interface
    print(folder, flush=True)
    sys.stdin.read()
    ray.shutdown()
"""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Put temporary files into a folder with a short path."""
    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        yield Path(folder)


def test_a_cluster_elsewhere_is_not_asked_with_the_token_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    require_token()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_AUTH_TOKEN"]
    forget_token()
    assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & set(os.environ)
    given = "of the user"
    monkeypatch.setenv("RAY_AUTH_TOKEN", given)
    require_token()
    forget_token()
    assert os.environ["RAY_AUTH_TOKEN"] == given


def test_the_folder_is_its_users_alone_whatever_the_umask(short: Path) -> None:
    before = os.umask(0)
    try:
        folder = own_folder()
    finally:
        os.umask(before)
    assert folder.parent == short
    assert folder.stat().st_mode & 0o777 == 0o700


def test_no_name_can_be_taken_before(short: Path) -> None:
    assert len({own_folder() for _ in range(20)}) == 20


def test_a_place_that_is_too_long_for_sockets_is_left_with_a_warning(
    short: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = short / ("scratch" * 10)
    place.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    folder = own_folder()
    folder.rmdir()
    assert folder.parent == Path("/tmp")  # noqa: S108
    assert "too long for the sockets of Ray" in caplog.text
    longest = f"{folder}/{SESSIONS}/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_MetricsHead"
    assert len(longest) <= 107


def test_the_folder_goes_when_all_went_well_and_stays_with_its_logs_otherwise(short: Path) -> None:
    with passing_folder() as folder:
        (folder / "log").touch()
    assert not folder.exists()
    with pytest.raises(RuntimeError), passing_folder() as folder:
        raise RuntimeError
    assert folder.exists()


@pytest.mark.ray
def test_another_user_has_no_part_in_the_ray_of_a_training() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate()[1][-3000:])
    folder = Path(line.strip())
    started = psutil.Process(process.pid).children(recursive=True)
    try:
        addresses = {address for address, _, _ in listening([psutil.Process(process.pid), *started])}
        assert addresses
        assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        if os.geteuid() == 0:
            environ = Path(f"/proc/{started[0].pid}/environ").read_text()
            assert "RAY_AUTH_TOKEN=" in environ
            programs = (sys.prefix, sys.base_prefix, "/usr/", "/lib", "/proc/", "/dev/")
            inside = [folder, folder / SESSIONS, *sockets_of(started), *files_of(started, programs)]
            assert any(path.is_socket() for path in inside)
            assert entered_by_others(inside) == []
    finally:
        _, errors = process.communicate("")
    assert process.returncode == 0, errors[-3000:]
    assert not folder.exists()
    require_root()
