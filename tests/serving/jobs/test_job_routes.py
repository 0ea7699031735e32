"""Jobs over HTTP, as the Python client and the command line speak to them; no cluster works here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from typer.testing import CliRunner

from cytoray_analysis.errors import (
    CytorayError,
    ForbiddenError,
    JobNotFoundError,
    MissingFileError,
    ModelNotFoundError,
    RequestError,
    UnauthorizedError,
)
from cytoray_services.free_ports import free_port
from cytoray_services.settings import load_settings
from cytoray_services.storage.allowed import Allowed
from cytoray_services.tokens.access import Caller
from cytoray_serving.client import Client
from cytoray_serving.commands.jobs import app
from cytoray_serving.jobs.request import JobRequest, JobStatus
from cytoray_serving.jobs.routes import job_routes
from cytoray_serving.jobs.store import JobStore, now
from cytoray_serving.jobs.taking import JobTaker
from cytoray_serving.service.config import ServiceConfig
from job_samples import write_images

TOKEN = "letters"  # noqa: S105 - what the test is let in by


@pytest.fixture
def api(tmp_path: Path, bundle_folder: Path) -> FastAPI:
    """Take jobs and start none."""

    async def resolve(caller: Caller, model: str, version: str | None) -> tuple[str, ...]:
        if model != "nuclei" or version not in (None, "1"):
            raise ModelNotFoundError(f"there is no {model!r}", field="model")
        return (str(bundle_folder),)

    def allowed(request: Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise UnauthorizedError("expected a token")

    api = FastAPI()

    @api.exception_handler(CytorayError)
    async def told(request: Request, error: CytorayError) -> JSONResponse:
        return JSONResponse(error.describe(), status_code=error.status)

    def recognise(request: Request) -> None:
        """Take the caller whom a header names; without one an administrator."""
        name = request.headers.get("X-Caller")
        admin = Caller("ada", ("submit", "administer"))
        request.state.caller = admin if name is None else Caller(name, ("submit",), "lab")

    guard = Depends(recognise)
    settings = load_settings({"CYTORAY_HOME": str(tmp_path / "home")})
    taker = JobTaker(JobStore(tmp_path / "jobs"), settings, ServiceConfig(allowed=Allowed(roots=(tmp_path,))))
    routes = job_routes(taker.store, taker.take, resolve, submitting=(Depends(allowed), guard), watching=(guard,))
    api.include_router(routes)
    return api


@pytest.fixture
def url(api: FastAPI) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(api, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def ask(url: str) -> Iterator[Client]:
    with Client(url, token=TOKEN) as client:
        yield client


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_images(tmp_path / "in", 3).as_uri()


def goes_on(tmp_path: Path, job_id: str, **changes: object) -> JobStatus:
    """Write into a job's folder what its driver would."""
    folder = JobStore(tmp_path / "jobs").find(job_id)
    status = folder.state().model_copy(update={"updated": now(), **changes})
    folder.keep_state(status)
    return status


def test_a_job_is_taken_shown_listed_and_cancelled(ask: Client, source: str, tmp_path: Path) -> None:
    job = ask.submit_job("nuclei", source, (tmp_path / "out").as_uri(), format="csv", version="1")
    assert (job.state, job.owner, job.request.format) == ("queued", "ada", "csv")
    assert job.models[0].name == "nuclei"
    assert ask.job(job.id) == job
    second = ask.submit_job("nuclei", source, (tmp_path / "other").as_uri())
    assert [one.id for one in ask.jobs().jobs] == [second.id, job.id]
    assert ask.stop_job(job.id).state == "cancelled"
    assert ask.job(job.id).has_ended
    assert ask.job(second.id).state == "queued"
    assert ask.job_log(job.id) == ""


@pytest.mark.slow
def test_of_many_that_follow_at_once_no_more_are_let_in_than_may_be(
    url: str, ask: Client, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytoray_serving.jobs.routes._MOST_STREAMS", 4)
    job = ask.submit_job("nuclei", source, (tmp_path / "out").as_uri())

    async def follow(client: httpx.AsyncClient, refused: list[int]) -> int:
        async with client.stream("GET", f"{url}/jobs/{job.id}/events") as answer:
            if answer.status_code == 200:
                ends = time.monotonic() + 60
                while len(refused) < 46 and time.monotonic() < ends:
                    await asyncio.sleep(0.1)
            else:
                refused.append(answer.status_code)
            return answer.status_code

    async def follow_all() -> tuple[list[int], int]:
        refused: list[int] = []
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=60, limits=limits, verify=False) as client:  # noqa: S501 - plain HTTP
            codes = await asyncio.gather(*(follow(client, refused) for _ in range(50)))
            for _ in range(100):  # who has gone counts no longer
                async with client.stream("GET", f"{url}/jobs/{job.id}/events") as answer:
                    if answer.status_code == 200:
                        break
                await asyncio.sleep(0.1)
            return codes, answer.status_code

    codes, last = asyncio.run(follow_all())
    assert sorted(codes) == [200] * 4 + [429] * 46
    assert last == 200


def test_the_address_of_a_job_is_reported(url: str, source: str, tmp_path: Path) -> None:
    body = {"input": source, "output": (tmp_path / "out").as_uri()}
    response = httpx.post(f"{url}/models/nuclei/jobs", json=body, headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 202
    assert httpx.get(url + response.headers["Location"]).json()["id"] == response.json()["id"]
    assert httpx.post(f"{url}/models/nuclei/jobs", json=body).status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "field", "changes"),
    [
        (ModelNotFoundError, "model", {"model": "nucleoli"}),
        (ModelNotFoundError, "model", {"version": "7"}),
        (MissingFileError, "input", {"input": "{folder}/nowhere"}),
        (ForbiddenError, "input", {"input": "file:///etc/passwd"}),
        (ForbiddenError, "output", {"output": "s3://bucket/key"}),
        (RequestError, "input", {"input": "images"}),
        (RequestError, "output", {"output": "{folder}/in"}),
        (RequestError, "format", {"format": "doc"}),
        (RequestError, "masks", {"masks": "{folder}/in"}),
        (RequestError, "workers", {"workers": 0}),
        (RequestError, "colour", {"colour": "blue"}),
    ],
)
def test_a_wrong_job_is_refused_at_once(
    ask: Client, source: str, tmp_path: Path, error: type[CytorayError], field: str, changes: dict[str, object]
) -> None:
    asked = {"model": "nuclei", "input": source, "output": (tmp_path / "out").as_uri()} | changes
    asked = {
        name: value.format(folder=tmp_path.as_uri()) if isinstance(value, str) else value
        for name, value in asked.items()
    }
    with pytest.raises(error) as raised:
        ask.submit_job(**asked)  # type: ignore[arg-type]
    assert raised.value.field == field
    assert ask.jobs().jobs == []


@pytest.mark.slow
@pytest.mark.parametrize("job_id", ["job-000000000000000000000000", "..", "%2e%2e", "x" * 64, ".hidden-job"])
def test_a_job_that_is_not_there_is_not_found(ask: Client, job_id: str) -> None:
    for call in (ask.job, ask.stop_job, ask.job_log, lambda name: list(ask.follow_job(name))):
        with pytest.raises(CytorayError) as raised:
            call(job_id)
        assert raised.value.status == 404 or isinstance(raised.value, JobNotFoundError | RequestError)


@pytest.mark.slow
def test_no_more_jobs_are_followed_than_may_be(
    ask: Client, url: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytoray_serving.jobs.routes._MOST_STREAMS", 2)
    job = ask.submit_job("nuclei", source, (tmp_path / "out").as_uri())
    address = f"{url}/jobs/{job.id}/events"
    with httpx.stream("GET", address) as first, httpx.stream("GET", address) as second:
        assert (first.status_code, second.status_code) == (200, 200)
        assert httpx.get(address).status_code == 429
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        with httpx.stream("GET", address) as again:
            if again.status_code == 200:
                return
        time.sleep(0.1)
    pytest.fail("those who have gone still count")


@pytest.mark.slow
def test_one_caller_follows_no_more_than_a_quarter_of_the_jobs_that_may_be(
    url: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytoray_serving.jobs.routes._MOST_STREAMS", 8)
    job = {"input": source, "output": (tmp_path / "out").as_uri(), "team": "lab"}
    taken = httpx.post(f"{url}/models/nuclei/jobs", json=job, headers={"Authorization": f"Bearer {TOKEN}"})
    address = f"{url}{taken.headers['Location']}/events"

    def follow(stack: contextlib.ExitStack, name: str) -> httpx.Response:
        return stack.enter_context(httpx.stream("GET", address, headers={"X-Caller": name}))

    with contextlib.ExitStack() as stack:
        assert [follow(stack, "eve").status_code for _ in range(4)] == [200, 200, 429, 429]
        assert b"by the caller eve" in follow(stack, "eve").read()
        assert follow(stack, "bob").status_code == 200
    ends = time.monotonic() + 20
    while time.monotonic() < ends:
        with contextlib.ExitStack() as stack:
            if follow(stack, "eve").status_code == 200:
                return
        time.sleep(0.1)
    pytest.fail("those who have gone still count")


@pytest.mark.slow
def test_a_job_is_followed_by_events(ask: Client, url: str, source: str, tmp_path: Path) -> None:
    job = ask.submit_job("nuclei", source, (tmp_path / "out").as_uri())
    seen = []
    for status in ask.follow_job(job.id):
        seen.append((status.state, status.items_done))
        if status.state == "queued":
            goes_on(tmp_path, job.id, state="running", items_total=3, items_done=1)
        elif status.items_done == 1:
            goes_on(tmp_path, job.id, state="done", items_total=3, items_done=3)
    assert seen == [("queued", 0), ("running", 1), ("done", 3)]
    with httpx.stream("GET", f"{url}/jobs/{job.id}/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[0].startswith(("event: done", "data:", "id:"))
    assert "event: done" in lines


@pytest.mark.slow
def test_only_what_is_new_is_reported_again(ask: Client, url: str, source: str, tmp_path: Path) -> None:
    from cytoray_serving.jobs.request import event_id

    job = ask.submit_job("nuclei", source, (tmp_path / "out").as_uri())
    known = goes_on(tmp_path, job.id, state="running", items_done=1)
    threading.Timer(1.0, lambda: goes_on(tmp_path, job.id, state="done", items_done=3)).start()
    with httpx.stream("GET", f"{url}/jobs/{job.id}/events", headers={"Last-Event-ID": event_id(known)}) as response:
        events = [line for line in response.iter_lines() if line.startswith("event:")]
    assert events == ["event: done"]


@pytest.mark.slow
def test_the_command_line_speaks_of_jobs(
    url: str, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYTORAY_TOKEN", TOKEN)
    run = CliRunner().invoke
    taken = run(app, ["submit", "nuclei", str(tmp_path / "in"), str(tmp_path / "out"), "--url", url, "--json"])
    assert taken.exit_code == 0, taken.output
    job = json.loads(taken.stdout)
    assert job["request"]["input"] == source
    listed = run(app, ["list", "--url", url])
    assert job["id"] in listed.stdout
    assert json.loads(run(app, ["list", "--url", url, "--json"]).stdout)["jobs"][0]["id"] == job["id"]
    shown = run(app, ["show", job["id"], "--url", url])
    assert "queued" in shown.stdout
    (JobStore(tmp_path / "jobs").find(job["id"]).log).write_text("one\ntwo\n")
    assert run(app, ["logs", job["id"], "--url", url]).stdout == "one\ntwo\n"
    stopped = run(app, ["stop", job["id"], "--url", url, "--json"])
    assert json.loads(stopped.stdout)["state"] == "cancelled"
    assert isinstance(run(app, ["show", "job-nowhere1", "--url", url]).exception, JobNotFoundError)
    state = tmp_path / "jobs" / job["id"] / "state.json"
    state.write_bytes(state.read_bytes()[:40])
    listed = run(app, ["list", "--url", url])
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [[job["id"], "damaged"]]
    assert str(state) in listed.stderr
    damaged = json.loads(run(app, ["list", "--url", url, "--json"]).stdout)["damaged"]
    assert [one["id"] for one in damaged] == [job["id"]]


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        (["recipe.yaml", "--format", "csv", "--workers", "2"], "--format, --workers"),
        (["nuclei", "in", "out", "--command", "tune"], "--command"),
    ],
)
def test_options_that_would_be_of_no_effect_are_refused(words: list[str], idle: str) -> None:
    ran = CliRunner().invoke(app, ["submit", *words])
    assert isinstance(ran.exception, RequestError)
    assert ran.exception.message.startswith(idle)


def test_the_document_describes_every_field_and_status(api: FastAPI) -> None:
    document = api.openapi()
    fields = document["components"]["schemas"][JobRequest.__name__]["properties"]
    assert all("description" in field for field in fields.values())
    assert set(document["paths"]["/models/{model}/jobs"]["post"]["responses"]) >= {"202", "400", "403", "404", "422"}
