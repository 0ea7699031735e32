"""Addresses at which no Ray cluster of ours answers: each gives one sentence with what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cytoray_analysis.errors import CytorayError, ForbiddenError, JobNotFoundError, PlatformError, RequestError
from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.opening import open_backend
from cytoray_services.jobs.submission import Submission, read_submission
from cytoray_services.settings import load_settings
from services.jobs.jobs_service import RECIPE
from web_servers import serving


class _OtherRay(BaseHTTPRequestHandler):
    """What an older Ray, and one with another token, answers."""

    def do_GET(self) -> None:
        refused = self.path.startswith("/locked")
        body = b"Forbidden: Invalid authentication token" if refused else json.dumps({"ray_version": "2.30.0"}).encode()
        self.send_response(403 if refused else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def other_ray() -> Iterator[str]:
    yield from serving(_OtherRay)


@pytest.fixture(autouse=True)
def _no_ray_here(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)


def at(on: str, home: Path) -> JobBackend:
    return open_backend(on, load_settings({"CYTORAY_HOME": str(home)}))


def submission() -> Submission:
    return read_submission(RECIPE, ["scale.gpus_per_worker=0"])


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("http://127.0.0.1:1", "no Ray cluster answers at http://127.0.0.1:1: Connection refused"),
        ("ray://127.0.0.1:1", "no Ray cluster answers at ray://127.0.0.1:1: Connection refused"),
        ("http://no-such-host.invalid:8265", "no Ray cluster answers"),
    ],
)
def test_where_nothing_answers_it_is_reported(tmp_path: Path, on: str, message: str) -> None:
    for ask in (at(on, tmp_path).list, lambda: at(on, tmp_path).submit(submission(), owner="ada")):
        with pytest.raises(PlatformError, match=message) as caught:
            ask()
        assert "8265" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "on", ["http://", "ray:", "https://:8265", "http://a:b", "somewhere", "kubernets", "service:x", ""]
)
def test_what_is_no_place_is_refused(tmp_path: Path, on: str) -> None:
    with pytest.raises(RequestError) as caught:
        at(on, tmp_path)
    assert caught.value.field == "--on"


def test_a_cluster_with_another_ray_takes_no_jobs(tmp_path: Path, other_ray: str) -> None:
    with pytest.raises(PlatformError, match=r"expected a cluster with Ray 2\.60\.0.*got Ray 2\.30\.0"):
        at(f"http://{other_ray}", tmp_path).submit(submission(), owner="ada")


def test_what_is_not_ray_is_reported(tmp_path: Path, other_ray: str) -> None:
    with pytest.raises(PlatformError, match="expected Ray's job API at"):
        at(f"http://{other_ray}/elsewhere", tmp_path).list()
    with pytest.raises(ForbiddenError, match="refuses the token"):
        at(f"http://{other_ray}/locked", tmp_path).list()


def test_a_variable_that_leads_elsewhere_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_ray: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    with pytest.raises(RequestError, match="RAY_ADDRESS"):
        at(f"http://{other_ray}", tmp_path).list()


def test_data_of_this_folder_means_nothing_elsewhere(tmp_path: Path) -> None:
    place, here = at("http://127.0.0.1:1", tmp_path), submission().model_copy(update={"data": ("cells",)})
    with pytest.raises(RequestError, match="got the relative path cells"):
        place.manifest(here, owner="ada")


def test_a_machine_without_a_cluster_has_no_jobs_and_starts_none(tmp_path: Path) -> None:
    place = at("local", tmp_path)
    assert place.list() == []
    asks = (lambda: place.show("nuclei-x7k2q"), lambda: place.stop("x"), lambda: list(place.logs("x")))
    for ask in asks:
        with pytest.raises(JobNotFoundError, match="no Ray cluster runs on this machine"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_record_of_the_local_cluster_is_reported(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "local.json").write_text("{}")
    with pytest.raises(CytorayError, match=r"local\.json"):
        at("local", tmp_path).list()
