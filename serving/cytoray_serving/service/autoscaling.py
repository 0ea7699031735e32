"""Scales replicas with the queued megapixels, not with the number of requests.

An autoscaling policy of Ray Serve: replicas report their unanswered megapixels and the size of a request; handles
report how many requests have not reached a replica. One movie of 500 frames then counts as much as 500 images.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from cytoray_serving.service.config import Replicas
from cytoray_serving.service.warmth import FRESH_SECONDS

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

WAITING = "megapixels_waiting"
PER_REQUEST = "megapixels_per_request"
_LOOK_BACK_SECONDS = 3.0
_PLACE_SECONDS = 300.0


class MegapixelsWaiting:
    """The policy of one deployment.

    Parameters
    ----------
    megapixels
        Queued megapixels per replica before another is started.
    warm, since
        Replicas of the previous service, which are kept without requests for some minutes after `since` (seconds since
        the epoch), because the requests come later. Replicas that are not scheduled after five minutes are not waited
        for.
    """

    def __init__(self, megapixels: float, warm: int = 0, since: float = 0.0) -> None:
        self._megapixels = megapixels
        self._warm, self._since = warm, since

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return the target number of replicas, and the state to keep (none)."""
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
        return max(wanted, self._kept(context.current_num_replicas, time.time() - self._since)), {}

    def _kept(self, running: int, seconds: float) -> int:
        if seconds >= FRESH_SECONDS:
            return 0
        return self._warm if seconds < _PLACE_SECONDS else min(self._warm, running)


def replicas_for(*, waiting: float, queued: float, ongoing: float, size: float, megapixels: float) -> int:
    """Return the number of replicas for this work; 0 only without work.

    Parameters
    ----------
    waiting
        Unanswered megapixels at the replicas.
    queued
        Requests that have not reached a replica.
    ongoing
        All requests.
    size
        Assumed megapixels of a request whose size no replica knows.
    megapixels
        Megapixels per replica.
    """
    if ongoing <= 0 and waiting <= 0:
        return 0
    return max(1, math.ceil((waiting + queued * size) / megapixels))


def scaling(replicas: Replicas, warm: int = 0) -> dict[str, Any]:
    """Return the scaling options of a deployment.

    Parameters
    ----------
    warm
        Number of replicas of the previous service.
    """
    if replicas.min_replicas == replicas.max_replicas:
        return {"num_replicas": replicas.min_replicas}
    return {"autoscaling_config": _autoscaling(replicas, max(replicas.min_replicas, min(warm, replicas.max_replicas)))}


def _autoscaling(replicas: Replicas, first: int) -> AutoscalingConfig:
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    return AutoscalingConfig(
        min_replicas=replicas.min_replicas,
        initial_replicas=first,
        max_replicas=replicas.max_replicas,
        upscale_delay_s=0.0,  # starting a replica takes seconds already
        downscale_delay_s=replicas.idle_seconds,
        downscale_to_zero_delay_s=replicas.idle_seconds,
        metrics_interval_s=1.0,  # the same as in app.prepare_environment
        look_back_period_s=_LOOK_BACK_SECONDS,
        policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
            policy_function="cytoray_serving.service.autoscaling:MegapixelsWaiting",
            policy_kwargs={"megapixels": replicas.megapixels}
            | ({"warm": first, "since": time.time()} if first > replicas.min_replicas else {}),
        ),
    )
