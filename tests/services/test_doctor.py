"""The doctor names what is broken and what to do about it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from addresses import run_limited
from cytoray_services.commands.doctor import Check, check_home, check_packages, check_tracking, examine
from cytoray_services.commands.root import main
from cytoray_services.settings import load_settings


class Healthy(http.server.BaseHTTPRequestHandler):
    """A server that answers /health and nothing else, as an MLflow server would."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_every_check_that_is_not_ok_says_what_to_do(cytoray_home: Path) -> None:
    checks = examine(load_settings())
    assert {
        "python",
        "torch",
        "device",
        "precision",
        "cores",
        "memory",
        "disk",
        "compiler",
        "home",
        "registry",
    } <= set(by_name(checks))
    assert all(check.remedy for check in checks if check.status != "ok")


ASK = """
from cytoray_services.address_space import require_address_space
from cytoray_services.commands.doctor import check_address_space
print(check_address_space().status)
require_address_space()
"""


@pytest.mark.slow
def test_a_limit_of_addresses_below_what_ray_reserves_is_reported_and_refused_at_the_start() -> None:
    done = run_limited(ASK, 5 * 2**30)
    assert done.stdout.strip() == "broken"
    assert "expected 6.0 GiB of virtual memory" in done.stderr
    assert "ulimit -v) of 5.0 GiB" in done.stderr
    enough = run_limited(ASK, 6 * 2**30)
    assert (enough.returncode, enough.stdout.strip()) == (0, "ok"), enough.stderr


def test_looking_leaves_nothing_behind(cytoray_home: Path) -> None:
    before = sorted(cytoray_home.parent.rglob("*"))
    examine(load_settings())
    assert sorted(cytoray_home.parent.rglob("*")) == before


def test_packages_of_the_base_install_are_there_and_none_is_listed_twice() -> None:
    checks = check_packages()
    assert len(by_name(checks)) == len(checks)
    assert by_name(checks)["numpy"].status == "ok"
    assert "pytest" not in by_name(checks)


def test_a_home_that_cannot_be_written_is_broken() -> None:
    check = check_home(Path("/proc/cytoray"))
    assert check.status == "broken"
    assert "CYTORAY_HOME" in str(check.remedy)


@pytest.mark.slow
def test_a_server_that_answers_is_fine(server: str, tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": server})
    assert check_tracking(settings).status == "ok"


@pytest.mark.slow
def test_a_server_without_health_is_broken(server: str, tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": f"{server}/elsewhere"})
    assert "404" in check_tracking(settings).found


def test_something_broken_makes_the_exit_status_1(
    cytoray_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as closed_soon:
        port = closed_soon.server_port
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", "--json"])
    assert exit_.value.code == 1
    report = json.loads(capsys.readouterr().out)
    assert report["healthy"] is False
    assert {check["name"] for check in report["checks"] if check["status"] == "broken"} == {"registry"}


def test_a_healthy_installation_is_status_0_and_a_table(cytoray_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["doctor"])
    assert exit_.value.code == 0
    assert "registry" in capsys.readouterr().out
