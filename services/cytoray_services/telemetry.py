"""Every Prometheus metric that Cytoray exposes, defined in one place.

A process that exposes metrics makes one :class:`ServingMetrics` or :class:`JobMetrics` on a registry of its own. In
serving that is the gateway: replicas send their seconds per stage along with each answer, so one process sees
everything. Several gateways each count the requests that went through them; Prometheus must then scrape each one by
itself (a pod each on Kubernetes), and sums are taken in the query. Of jobs, and of whether models are ready, every
gateway tells the same, so that queries take the maximum. Trainings tell of themselves through Ray's own exporter, see
``cytoray_training.progress_metrics``.
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
        Answered requests by ``model`` and HTTP ``status``; ``model`` is ``unknown`` for models that are not served.
    in_flight
        Requests being answered now, by ``model``.
    latency
        Seconds from the last byte of the request to the answer, by ``model``; only successful ones.
    stages
        Seconds by ``model`` and ``stage``: ``read``, ``queue``, ``network``, ``decode``, ``encode``.
    megapixels
        Megapixels answered, by ``model``.
    objects
        Objects found, by ``model``.
    batch_images
        Images that went through the network together, by ``model``.
    body_bytes
        Bytes by ``model`` and ``direction``: ``in`` or ``out``.
    waiting_megapixels
        Megapixels being answered or waiting, by ``model``.
    model_info
        1 for the ``version`` and ``digest`` of each ``model`` that is loaded.
    model_ready
        1 while a replica of a ``model`` answers, else 0; models that may have no replica are left out.
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
        Holds nothing of these names yet.
    """
    model = ("model",)
    return ServingMetrics(
        requests=Counter("cytoray_requests", "Answered requests.", ("model", "status"), registry=registry),
        in_flight=Gauge("cytoray_requests_in_flight", "Requests being answered.", model, registry=registry),
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
            "Images that went through the network together.",
            model,
            buckets=_IMAGES,
            registry=registry,
        ),
        body_bytes=Counter(
            "cytoray_body_bytes", "Bytes of images in and of answers out.", ("model", "direction"), registry=registry
        ),
        waiting_megapixels=Gauge(
            "cytoray_waiting_megapixels", "Megapixels being answered or waiting.", model, registry=registry
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
        Jobs that are known, by ``kind`` and ``state``.
    ended
        Jobs that have ended since the process began to look, by ``kind`` and ``state``.
    idle
        Seconds since a running job last moved forward, by ``kind`` and ``id``.
    """

    jobs: Gauge
    ended: Counter
    idle: Gauge


def job_metrics(registry: CollectorRegistry) -> JobMetrics:
    """Define the metrics of jobs on a registry.

    Parameters
    ----------
    registry
        Holds nothing of these names yet.
    """
    return JobMetrics(
        jobs=Gauge("cytoray_jobs", "Jobs that are known.", ("kind", "state"), registry=registry),
        ended=Counter("cytoray_jobs_ended", "Jobs that have ended.", ("kind", "state"), registry=registry),
        # Not by a label named "job", which Prometheus gives every series itself.
        idle=Gauge(
            "cytoray_job_idle_seconds",
            "Seconds since a running job last moved forward.",
            ("kind", "id"),
            registry=registry,
        ),
    )


@dataclass(frozen=True)
class SeenJob:
    """A job at one look.

    Attributes
    ----------
    state
        ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``.
    progress
        Something that is another whenever the job has moved forward; None where that cannot be told.
    """

    id: str
    state: str
    progress: Hashable = None


class JobWatch:
    """Turns what one look after the other tells of jobs into metrics.

    Parameters
    ----------
    metrics
        Where they are counted.
    kind
        Of all the jobs.
    clock
        Tells seconds, from any start.
    """

    def __init__(self, metrics: JobMetrics, kind: JobKind, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics, self._kind, self._clock = metrics, kind, clock
        self._ended: set[str] | None = None
        self._moved: dict[str, tuple[Hashable, float]] = {}

    def look(self, jobs: Iterable[SeenJob]) -> None:
        """Count what there is now; jobs that had ended before the first look count as known, not as ended."""
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
                self._metrics.ended.labels(self._kind, state).inc(new)  # also by 0: what is missing cannot increase
        for name, (_, since) in running.items():
            self._metrics.idle.labels(self._kind, name).set(now - since)
        for name in self._moved.keys() - running.keys():
            self._metrics.idle.remove(self._kind, name)
        self._moved = running
