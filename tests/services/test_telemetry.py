"""The metrics of jobs when they are read again and again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from cytoray_services.telemetry import JobWatch, SeenJob, job_metrics

Value = Callable[..., float | None]


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands at 0."""
    return Clock()


@pytest.fixture
def registry() -> CollectorRegistry:
    """Give a registry with nothing in it."""
    return CollectorRegistry()


@pytest.fixture
def watch(registry: CollectorRegistry, clock: Clock) -> JobWatch:
    """Give a watch over bulk jobs."""
    return JobWatch(job_metrics(registry), "bulk", clock=clock)


@pytest.fixture
def value(registry: CollectorRegistry) -> Value:
    """Give what a metric of bulk jobs says."""

    def read(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"kind": "bulk", **labels})

    return read


def test_every_state_is_reported_also_where_no_job_is(watch: JobWatch, value: Value) -> None:
    watch.look([SeenJob("a", "queued"), SeenJob("b", "queued"), SeenJob("c", "done")])
    states = ("queued", "running", "done", "failed", "cancelled")
    assert [value("cytoray_jobs", state=state) for state in states] == [2, 0, 1, 0, 0]


def test_only_jobs_that_end_while_they_are_watched_count_as_ended(watch: JobWatch, value: Value) -> None:
    watch.look([SeenJob("old", "failed"), SeenJob("new", "running")])
    assert value("cytoray_jobs_ended_total", state="failed") == 0
    for _ in range(2):
        watch.look([SeenJob("old", "failed"), SeenJob("new", "failed"), SeenJob("brief", "done")])
    assert value("cytoray_jobs_ended_total", state="failed") == 1
    assert value("cytoray_jobs_ended_total", state="done") == 1


def test_a_job_is_idle_until_it_moves_forward(watch: JobWatch, value: Value, clock: Clock) -> None:
    for second, progress in ((0.0, 1), (30.0, 1)):
        clock.seconds = second
        watch.look([SeenJob("a", "running", progress)])
    assert value("cytoray_job_idle_seconds", id="a") == 30
    clock.seconds = 40.0
    watch.look([SeenJob("a", "running", 2)])
    assert value("cytoray_job_idle_seconds", id="a") == 0


@pytest.mark.parametrize("after", [[SeenJob("a", "done", 1)], []])
def test_nothing_is_said_of_the_idleness_of_a_job_that_has_ended_or_is_gone(
    watch: JobWatch, value: Value, after: list[SeenJob]
) -> None:
    watch.look([SeenJob("a", "running", 1)])
    watch.look(after)
    assert value("cytoray_job_idle_seconds", id="a") is None


def test_nothing_is_said_of_the_idleness_of_a_job_whose_progress_no_one_knows(watch: JobWatch, value: Value) -> None:
    watch.look([SeenJob("a", "running")])
    assert value("cytoray_job_idle_seconds", id="a") is None
