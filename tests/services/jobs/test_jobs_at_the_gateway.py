"""The jobs service at the address of the prediction service, so that a page needs one address."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cytoray_services.settings import load_settings
from cytoray_serving.service.config import JobsConfig
from services.jobs.jobs_service import RECIPE, Service, running
from serving_in_process import Ask, asker, config_of, in_process


@pytest.fixture
def service(make: Callable[..., Service]) -> Service:
    return make(teams={"lab": {"jobs": 2, "gpus": 4}, "other": {}})


def gateway(tmp_path: Path, url: str | None) -> Ask:
    """Put a service together with the tokens of the jobs service."""
    settings = load_settings({"CYTORAY_HOME": str(tmp_path / "home")})
    config = config_of([], insecure_local=False, tokens=tmp_path / "tokens.json", jobs=JobsConfig(url=url))
    return asker(in_process(settings, config))


@pytest.fixture
def ask(service: Service, tmp_path: Path) -> Iterator[Ask]:
    with running(service.api) as url:
        yield gateway(tmp_path, url)


def test_a_training_run_is_submitted_listed_and_stopped(service: Service, ask: Ask) -> None:
    ada = {"Authorization": f"Bearer {service.token('ada', 'lab')}"}
    sent = ask("POST", "/jobs-service/jobs", headers=ada, json={"recipe": RECIPE})
    assert sent.status_code == 201, sent.text
    place = sent.headers["location"]
    assert place == f"/jobs-service/jobs/{sent.json()['id']}"
    assert [one["id"] for one in ask("GET", "/jobs-service/jobs", headers=ada).json()["jobs"]] == [sent.json()["id"]]
    assert ask("GET", place, headers=ada).json()["owner"] == "ada"
    bob = {"Authorization": f"Bearer {service.token('bob', 'other')}"}
    assert ask("GET", place, headers=bob).status_code == 404
    assert ask("DELETE", place, headers=ada).status_code in (200, 202, 204)


def test_refusals_come_through_as_they_are(service: Service, ask: Ask) -> None:
    ada = {"Authorization": f"Bearer {service.token('ada', 'lab')}"}
    wrong = ask("POST", "/jobs-service/jobs", headers=ada, json={"recipe": "model: nothing"})
    assert wrong.status_code == 422
    assert wrong.json()["error"] == "RecipeError"
    assert ask("GET", "/jobs-service/jobs").status_code == 401


def test_a_header_of_any_bytes_is_forwarded(service: Service, ask: Ask) -> None:
    ada = {"Authorization": f"Bearer {service.token('ada', 'lab')}", "Accept": "é".encode("latin-1")}
    assert ask("GET", "/jobs-service/jobs", headers=ada).status_code == 200


@pytest.mark.parametrize(
    "path", ["metrics", "jobs/../metrics", "jobs/%2e%2e/metrics", "jobs/a%2Fb%3Fc", "", "health/live"]
)
def test_only_jobs_are_forwarded(service: Service, ask: Ask, path: str) -> None:
    ada = {"Authorization": f"Bearer {service.token('ada', 'lab')}"}
    answer = ask("GET", f"/jobs-service/{path}", headers=ada)
    assert answer.status_code in (404, 405)
    assert "process_" not in answer.text


def test_a_jobs_service_that_is_gone_or_missing_is_said(service: Service, tmp_path: Path) -> None:
    ada = {"Authorization": f"Bearer {service.token('ada', 'lab')}"}
    gone = gateway(tmp_path, "http://127.0.0.1:9")("GET", "/jobs-service/jobs", headers=ada)
    assert gone.status_code == 503
    assert "does not answer" in gone.json()["message"]
    none = gateway(tmp_path, None)("GET", "/jobs-service/jobs", headers=ada)
    assert none.status_code == 404
    assert "jobs.url" in json.dumps(none.json())
