"""Every Prometheus metric that Cytoray exposes, defined in one place.

A process that exposes metrics makes one :class:`ServingMetrics` or :class:`JobMetrics` with its own registry. In
serving that is the gateway: replicas send their seconds per stage with each answer, so one process has all values.
Each of several gateways counts its own requests; Prometheus must scrape every gateway (one pod each on Kubernetes), and
queries take the sum. All gateways report the same values for jobs and for readiness, so queries take the maximum.
Training runs report through Ray's exporter, see ``cytoray_training.run.progress_metrics``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

JobKind = Literal["training", "bulk"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class ServingMetrics:
    """The metrics of a gateway.

    Attributes
    ----------
    requests
        Answered requests by ``model`` and HTTP ``status``; ``model`` is ``unknown`` if it is not served.
    in_flight
        Requests in progress, by ``model``.
    latency
        Seconds from the last byte of the request to the answer, by ``model``; successful requests only.
    stages
        Seconds by ``model`` and ``stage``: ``read``, ``queue``, ``network``, ``decode``, ``encode``.
    megapixels
        Megapixels answered, by ``model``.
    objects
        Objects found, by ``model``.
    batch_images
        Images per batch of the network, by ``model``.
    body_bytes
        Bytes by ``model`` and ``direction``: ``in`` or ``out``.
    waiting_megapixels
        Megapixels in progress or queued, by ``model``.
    model_info
        1 for the ``version`` and ``digest`` of each ``model`` that is loaded.
    model_ready
        1 while a replica of a ``model`` answers, else 0; absent for models that scale to zero.
    """

    requests: Counter
    in_flight: Gauge
    latency: Histogram
    stages: Histogram
    megapixels: Counter
    objects: Counter
    batch_images: Histogram
    body_bytes: Counter
    waiting_megapixels: Gauge
    model_info: Gauge
    model_ready: Gauge


def serving_metrics(registry: CollectorRegistry) -> ServingMetrics:
    """Define the metrics of a gateway on a registry.

    Parameters
    ----------
    registry
        A registry without these metrics.
    """
    model = ("model",)
    return ServingMetrics(
        requests=Counter("cytoray_requests", "Answered requests.", ("model", "status"), registry=registry),
        in_flight=Gauge("cytoray_requests_in_flight", "Requests in progress.", model, registry=registry),
        latency=Histogram(
            "cytoray_request_seconds",
            "Seconds from the last byte of a request to its answer.",
            model,
            buckets=_SECONDS,
            registry=registry,
        ),
        stages=Histogram(
            "cytoray_stage_seconds", "Seconds per stage.", ("model", "stage"), buckets=_SECONDS, registry=registry
        ),
        megapixels=Counter("cytoray_megapixels", "Megapixels answered.", model, registry=registry),
        objects=Counter("cytoray_objects", "Objects found.", model, registry=registry),
        batch_images=Histogram(
            "cytoray_batch_images",
            "Images per batch of the network.",
            model,
            buckets=_IMAGES,
            registry=registry,
        ),
        body_bytes=Counter(
            "cytoray_body_bytes", "Bytes of images in and of answers out.", ("model", "direction"), registry=registry
        ),
        waiting_megapixels=Gauge(
            "cytoray_waiting_megapixels", "Megapixels in progress or queued.", model, registry=registry
        ),
        model_info=Gauge(
            "cytoray_model_info",
            "1 for the version of each model that is loaded.",
            ("model", "version", "digest"),
            registry=registry,
        ),
        model_ready=Gauge("cytoray_model_ready", "1 while a replica of the model answers.", model, registry=registry),
    )


@dataclass(frozen=True)
class JobMetrics:
    """The metrics of jobs; ``kind`` is ``training`` or ``bulk``.

    Attributes
    ----------
    jobs
        Known jobs, by ``kind`` and ``state``.
    ended
        Jobs that ended since the start of this process, by ``kind`` and ``state``.
    idle
        Seconds since the last progress of a running job, by ``kind`` and ``id``.
    """

    jobs: Gauge
    ended: Counter
    idle: Gauge


def job_metrics(registry: CollectorRegistry) -> JobMetrics:
    """Define the metrics of jobs on a registry.

    Parameters
    ----------
    registry
        A registry without these metrics.
    """
    return JobMetrics(
        jobs=Gauge("cytoray_jobs", "Known jobs.", ("kind", "state"), registry=registry),
        ended=Counter("cytoray_jobs_ended", "Jobs that have ended.", ("kind", "state"), registry=registry),
        # Not a label named "job", which Prometheus adds to every series itself.
        idle=Gauge(
            "cytoray_job_idle_seconds",
            "Seconds since the last progress of a running job.",
            ("kind", "id"),
            registry=registry,
        ),
    )


@dataclass(frozen=True)
class SeenJob:
    """A job at one point in time.

    Attributes
    ----------
    state
        ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
    progress
        A value that changes whenever the job makes progress; None if unknown.
    """

    id: str
    state: str
    progress: Hashable = None


class JobWatch:
    """Converts repeated observations of jobs to metrics.

    Parameters
    ----------
    metrics
        The metrics to update.
    kind
        The kind of all jobs.
    clock
        Returns seconds, from any start.
    """

    def __init__(self, metrics: JobMetrics, kind: JobKind, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._kind, self._clock = metrics, kind, clock
        self._ended: set[str] | None = None
        self._moved: dict[str, tuple[Hashable, float]] = {}

    def look(self, jobs: Iterable[SeenJob]) -> None:
        """Update the metrics; jobs that ended before the first call count as known, not as ended."""
        states: dict[str, list[str]] = {"queued": [], "running": [], "done": [], "failed": [], "cancelled": []}
        running: dict[str, tuple[Hashable, float]] = {}
        now = self._clock()
        for job in jobs:
            states[job.state].append(job.id)
            if job.state == "running" and job.progress is not None:
                before = self._moved.get(job.id)
                running[job.id] = before if before and before[0] == job.progress else (job.progress, now)
        known = self._ended
        self._ended = {name for state in ("done", "failed", "cancelled") for name in states[state]}
        for state, names in states.items():
            self._metrics.jobs.labels(self._kind, state).set(len(names))
            if state not in ("queued", "running"):
                new = 0 if known is None else len(set(names) - known)
                self._metrics.ended.labels(self._kind, state).inc(
                    new
                )  # also by 0, because a missing series cannot increase
        for name, (_, since) in running.items():
            self._metrics.idle.labels(self._kind, name).set(now - since)
        for name in self._moved.keys() - running.keys():
            self._metrics.idle.remove(self._kind, name)
        self._moved = running
