"""How many replicas: by the megapixels that wait, not by the number of requests.

A policy of Ray Serve's: replicas report the megapixels that they hold unanswered and how large a request is; handles
report how many requests have not reached a replica. One movie of 500 frames then weighs as much as 500 images.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cytoray_serving.service_config import Replicas

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

WAITING = "megapixels_waiting"
PER_REQUEST = "megapixels_per_request"
_LOOK_BACK_SECONDS = 3.0


class MegapixelsWaiting:
    """Decides for one deployment.

    Parameters
    ----------
    megapixels
        Waiting for each replica before another is started.
    """

    def __init__(self, megapixels: float) -> None:
        self._megapixels = megapixels

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return how many replicas there should be, and what to remember (nothing)."""
        metrics = context.aggregated_metrics or {}
        waiting = sum(metrics.get(WAITING, {}).values())
        sizes = [size for size in metrics.get(PER_REQUEST, {}).values() if size > 0]
        wanted = replicas_for(
            waiting=waiting,
            queued=float(context.total_queued_requests or 0.0),
            ongoing=float(context.total_num_requests or 0.0),
            size=sum(sizes) / len(sizes) if sizes else 1.0,
            megapixels=self._megapixels,
        )
        return wanted, {}


def replicas_for(*, waiting: float, queued: float, ongoing: float, size: float, megapixels: float) -> int:
    """Return how many replicas work needs; 0 only where there is none.

    Parameters
    ----------
    waiting
        Megapixels that replicas hold unanswered.
    queued
        Requests that have not reached a replica.
    ongoing
        Requests in all.
    size
        Megapixels of a request, for those whose size no replica has seen.
    megapixels
        For each replica.
    """
    if ongoing <= 0 and waiting <= 0:
        return 0
    return max(1, math.ceil((waiting + queued * size) / megapixels))


def scaling(replicas: Replicas) -> dict[str, Any]:
    """Return the options of a deployment that say how many replicas it has."""
    if replicas.least == replicas.most:
        return {"num_replicas": replicas.least}
    return {"autoscaling_config": _autoscaling(replicas)}


def _autoscaling(replicas: Replicas) -> AutoscalingConfig:
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    return AutoscalingConfig(
        min_replicas=replicas.least,
        initial_replicas=replicas.least,
        max_replicas=replicas.most,
        upscale_delay_s=0.0,  # starting a replica takes seconds already
        downscale_delay_s=replicas.idle_seconds,
        downscale_to_zero_delay_s=replicas.idle_seconds,
        metrics_interval_s=1.0,  # as the switches of app.prepare_environment have it
        look_back_period_s=_LOOK_BACK_SECONDS,
        policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
            policy_function="cytoray_serving.autoscaling:MegapixelsWaiting",
            policy_kwargs={"megapixels": replicas.megapixels},
        ),
    )
