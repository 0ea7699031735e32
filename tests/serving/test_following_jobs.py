"""A job is followed to its end, whatever the stream of its events holds beside them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from cytoray_analysis.errors import PlatformError
from cytoray_serving import client as client_module
from cytoray_serving.client import Client
from cytoray_serving.jobs.request import JobRequest, JobStatus
from cytoray_serving.schema import ModelAnswered

START = datetime(2026, 1, 1, tzinfo=UTC)


def status(state: str, done: int) -> JobStatus:
    return JobStatus(
        id="job-000000000000",
        owner="ada",
        models=[ModelAnswered(name="nuclei", version="1", digest="0")],
        request=JobRequest(input="file:///in", output="file:///out"),
        state=state,
        items_done=done,
        created=START,
        updated=START + timedelta(seconds=done),
    )


def event(one: JobStatus) -> str:
    return f"event: {one.state}\nid: {one.items_done}\ndata: {one.model_dump_json()}\n\n"


RUNNING, DONE = status("running", 1), status("done", 2)


def following(*streams: str, polled: Callable[[], str] = RUNNING.model_dump_json) -> Client:
    """Return the client of a service that gives one stream after the other."""
    left = list(streams)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            if not left:
                return httpx.Response(500)
            return httpx.Response(200, headers={"Content-Type": "text/event-stream; charset=utf-8"}, text=left.pop(0))
        return httpx.Response(200, text=polled())

    return Client("http://service", transport=httpx.MockTransport(answer))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_POLL_SECONDS", 0.0)


@pytest.mark.parametrize(
    "between",
    [
        ": ping\n\n",
        ":\n\n: ping\n\n\n\n",
        "event: ping\ndata: {}\n\n",
        "event: ping\ndata\n\n",
        "retry: 100\ncolour: red\n\n",
        "id: 7\n\n",
        "event: news\ndata: of a later release\n\n",
    ],
)
def test_what_keeps_a_stream_alive_is_passed_over(between: str) -> None:
    with following(between + event(RUNNING) + between + event(DONE)) as client:
        assert [one.state for one in client.follow_job(RUNNING.id)] == ["running", "done"]


def test_a_stream_that_breaks_off_in_an_event_is_taken_up_again() -> None:
    cut = event(RUNNING) + event(DONE)[:60]
    with following(cut, ": ping\n\n" + event(DONE)) as client:
        assert [one.state for one in client.follow_job(RUNNING.id)] == ["running", "done"]


def test_a_status_of_a_later_release_is_understood() -> None:
    later = DONE.model_dump_json().replace('"id"', '"colour":"red","id"', 1)
    with following(f"event: done\ndata: {later}\n\n") as client:
        assert [one.state for one in client.follow_job(RUNNING.id)] == ["done"]


def test_a_stream_of_something_else_is_left_for_questions() -> None:
    with following("event: done\ndata: {}\n\n", polled=DONE.model_dump_json) as client:
        assert [one.state for one in client.follow_job(RUNNING.id)] == ["done"]
    with (
        following(polled=lambda: "<html>") as client,
        pytest.raises(PlatformError, match="expected the response of a Cytoray service"),
    ):
        client.job(RUNNING.id)
