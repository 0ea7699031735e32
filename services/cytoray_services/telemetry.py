"""Every Prometheus metric that Cytoray exposes, defined in one place.

A process that exposes metrics makes one :class:`ServingMetrics` on a registry of its own. In serving that is the
gateway: replicas send their seconds per stage along with each answer, so one process sees everything. Several
gateways each count the requests that went through them; Prometheus must then scrape each one by itself (a pod
each on Kubernetes), and sums are taken in the query.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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
    )
