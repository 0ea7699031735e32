"""A day of load on a simulated cluster, with the autoscaler's real decisions.

Second by second: images are asked for one at a time and in plates, gateways refuse what is over their limits (it comes
again after Retry-After), replicas answer first come, first served, nodes start and end. How many replicas there should
be is decided by :class:`~cytoray_serving.service.autoscaling.MegapixelsWaiting` under Ray Serve's own delays, on the
clock of the simulation. All images have one megapixel.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from cytoray_serving.service.autoscaling import PER_REQUEST, WAITING, MegapixelsWaiting, scaling
from cytoray_serving.service.config import Replicas, RequestLimits

DAY = 24 * 3600
_ONGOING = 16  # requests that a replica holds; the others wait at the gateways
_LONGEST_RETRY = 60  # as the gateway has it
# Share of the busiest hour's load, hour by hour: quiet nights, a ramp, a dip at noon, an evening that fades.
_HOURS = (0, 0, 0, 0, 0, 0.02, 0.1, 0.4, 0.8, 1, 1, 0.9, 0.6, 0.9, 1, 1, 0.9, 0.6, 0.3, 0.15, 0.1, 0.05, 0, 0)


@dataclass(frozen=True)
class Cluster:
    """What the replicas run on.

    Attributes
    ----------
    images_per_second
        Of one replica.
    replica_seconds, node_seconds
        Until a replica answers on a node that runs, and until a node runs.
    replicas_per_node
        That fit on one.
    node_idle_seconds
        Until an empty node is given back.
    gateways
        Each with limits of its own.
    """

    images_per_second: float
    replica_seconds: float
    node_seconds: float
    replicas_per_node: int
    node_idle_seconds: float
    gateways: int = 2


@dataclass(frozen=True)
class Load:
    """What is asked for in the busiest hour; the other hours have their share of it.

    Attributes
    ----------
    images_per_second
        Asked for one at a time.
    plates_per_hour, images_per_plate
        Asked for all at once.
    """

    images_per_second: float
    plates_per_hour: float
    images_per_plate: int = 1000


@dataclass
class Day:
    """What became of a day.

    Attributes
    ----------
    asked, answered, expired, left
        Images: asked for, answered, given up after the limit of seconds, and still waiting at midnight.
    refused
        Requests that were told to come again.
    replica_hours, node_hours
        That were paid for, starting included.
    waits
        Seconds from the first try to the answer, each with its number of images.
    seen
        For each second: images asked for, images waiting, replicas wanted, replicas running, nodes.
    """

    asked: int = 0
    answered: int = 0
    expired: int = 0
    left: int = 0
    refused: int = 0
    replica_hours: float = 0.0
    node_hours: float = 0.0
    waits: list[tuple[float, int]] = field(default_factory=list)
    seen: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 5), np.int64))

    def wait(self, share: float) -> float:
        """Return the seconds in which a share of the answers came."""
        if not self.waits:
            return 0.0
        seconds, counts = (np.array(column) for column in zip(*self.waits, strict=True))
        order = np.argsort(seconds)
        reached = np.searchsorted(np.cumsum(counts[order]), share * counts.sum())
        return float(seconds[order][min(reached, len(seconds) - 1)])


def arrivals(load: Load, seed: int) -> NDArray[np.int64]:
    """Return the images that are asked for in each second of a day."""
    random = np.random.default_rng(seed)
    # Between the middles of two hours the load changes evenly; night meets night at midnight.
    middles = np.arange(-1, 25) * 3600 + 1800
    shares = np.interp(np.arange(DAY), middles, [_HOURS[-1], *_HOURS, _HOURS[0]])
    plates = random.poisson(load.plates_per_hour / 3600 * shares)
    return random.poisson(load.images_per_second * shares) + plates * load.images_per_plate


def simulate(
    asked: NDArray[np.int64], cluster: Cluster, replicas: Replicas, limits: RequestLimits | None = None
) -> Day:
    """Let a day pass.

    Parameters
    ----------
    asked
        Images in each second.
    """
    limits = limits or RequestLimits()
    nodes = _Nodes(cluster, replicas.min_replicas)
    queue = _Queue(cluster.gateways * min(limits.waiting_requests, int(limits.waiting_megapixels)), limits.seconds)
    day = Day(asked=int(asked.sum()), seen=np.zeros((len(asked), 5), np.int64))
    target = replicas.min_replicas
    with _autoscaler(replicas) as decide:
        for now, images in enumerate(asked):
            queue.ask(now, int(images), nodes.running * cluster.images_per_second)
            queue.expire(now)
            target = decide(now, nodes.running, target)
            nodes.scale(now, target)
            done = queue.answer(now, nodes.running * cluster.images_per_second)
            # Little's law: each answer was at work for the time that a replica takes.
            decide.report(queue.waiting + done / cluster.images_per_second, nodes.running)
            day.seen[now] = images, queue.waiting, target, nodes.running, nodes.up
            day.replica_hours += nodes.replicas / 3600
            day.node_hours += nodes.up / 3600
    day.waits, day.refused, day.expired = queue.waits, queue.refused, queue.expired
    day.answered = sum(count for _, count in queue.waits)
    day.left = queue.waiting + queue.to_come
    return day


class _Queue:
    """Images that wait, first come, first served; those that were refused come again."""

    def __init__(self, room: int, seconds: float) -> None:
        self.waits: list[tuple[float, int]] = []
        self.refused = self.expired = self.waiting = self.to_come = 0
        self._room, self._seconds = room, seconds
        self._queue: deque[tuple[int, int, int]] = deque()  # first asked, accepted, images
        self._again: dict[int, list[tuple[int, int]]] = {}  # when to come again: first asked, images
        self._credit = 0.0  # of an image that is half done

    def ask(self, now: int, images: int, rate: float) -> None:
        for first, count in [*self._again.pop(now, []), (now, images)]:
            self.to_come -= count if first < now else 0
            taken = min(count, self._room - self.waiting)
            if taken:
                self._queue.append((first, now, taken))
                self.waiting += taken
            if refused := count - taken:
                self.refused += refused
                self.to_come += refused
                half = math.ceil(self.waiting / rate / 2) if rate else 1
                self._again.setdefault(now + max(1, min(_LONGEST_RETRY, half)), []).append((first, refused))

    def expire(self, now: int) -> None:
        while self._queue and now - self._queue[0][1] > self._seconds:
            _, _, count = self._queue.popleft()
            self.expired += count
            self.waiting -= count

    def answer(self, now: int, rate: float) -> int:
        before = self.waiting
        self._credit = min(self._credit, 1.0) + rate if self.waiting else 0.0
        while self._queue and self._credit >= 1:
            first, accepted, count = self._queue.popleft()
            done = min(count, int(self._credit))
            # In the second in which it is done, and no sooner than a replica can.
            self.waits.append((now - first + 1 / rate, done))
            self._credit -= done
            self.waiting -= done
            if done < count:
                self._queue.appendleft((first, accepted, count - done))
        return before - self.waiting


class _Nodes:
    """Nodes that start and end, and the replicas on them."""

    def __init__(self, cluster: Cluster, replicas: int) -> None:
        self._cluster = cluster
        self.running = replicas
        self._ready: list[float] = []  # when each starting replica will answer
        # When each node runs, and since when it has had nothing to do.
        self._up_at: list[float] = [0.0] * math.ceil(replicas / cluster.replicas_per_node)
        self._spare_since: float | None = None

    @property
    def replicas(self) -> int:
        return self.running + len(self._ready)

    @property
    def up(self) -> int:
        return len(self._up_at)

    def scale(self, now: int, target: int) -> None:
        self.running += sum(ready <= now for ready in self._ready)
        self._ready = [ready for ready in self._ready if ready > now]
        while self.replicas < target:
            self._start(now)
        while self.replicas > target:  # those that start go first, the last one that was started before the others
            if self._ready:
                self._ready.remove(max(self._ready))
            else:
                self.running -= 1
        self._give_back(now)

    def _start(self, now: int) -> None:
        cluster = self._cluster
        if self.replicas >= self.up * cluster.replicas_per_node:
            self._up_at.append(now + cluster.node_seconds)
        # Replicas fill the nodes in the order in which those start.
        node = sorted(self._up_at)[self.replicas // cluster.replicas_per_node]
        self._ready.append(max(now, node) + cluster.replica_seconds)

    def _give_back(self, now: int) -> None:
        needed = math.ceil(self.replicas / self._cluster.replicas_per_node)
        if needed >= self.up:
            self._spare_since = None
            return
        self._spare_since = now if self._spare_since is None else self._spare_since
        if now - self._spare_since >= self._cluster.node_idle_seconds:
            self._up_at = sorted(self._up_at)[:needed]
            self._spare_since = None


class _Fixed:
    """As many replicas as ever."""

    def report(self, unanswered: float, running: int) -> None:
        pass

    def __call__(self, now: int, running: int, target: int) -> int:
        return target


class _Autoscaler:
    """What Ray Serve's controller does with the policy: the mean of the last seconds, the policy, the bounds."""

    def __init__(self, replicas: Replicas, clock: SimpleNamespace) -> None:
        from ray.serve import autoscaling_policy

        self._replicas, self._clock = replicas, clock
        self._config = scaling(replicas)["autoscaling_config"]
        self._policy = autoscaling_policy._apply_autoscaling_config(MegapixelsWaiting(replicas.megapixels))
        # Megapixels that replicas hold, and requests that have not reached one, once a second.
        self._reports: deque[tuple[float, float]] = deque(maxlen=round(self._config.look_back_period_s))
        self._state: dict[str, Any] = {}

    def report(self, unanswered: float, running: int) -> None:
        held = min(unanswered, running * _ONGOING)
        self._reports.append((held, unanswered - held))

    def __call__(self, now: int, running: int, target: int) -> int:
        from ray.serve._private.common import DeploymentID
        from ray.serve.config import AutoscalingContext

        if not self._reports:
            return target
        held = sum(one for one, _ in self._reports) / len(self._reports)
        queued = sum(one for _, one in self._reports) / len(self._reports)
        self._clock.now = float(now)
        context = AutoscalingContext(
            deployment_id=DeploymentID("model", "cytoray"),
            deployment_name="model",
            app_name="cytoray",
            current_num_replicas=running,
            target_num_replicas=target,
            running_replicas=[],
            total_num_requests=held + queued,
            total_queued_requests=queued,
            aggregated_metrics={WAITING: {"all": held}, PER_REQUEST: {"all": 1.0}},  # type: ignore[dict-item]
            raw_metrics=None,
            capacity_adjusted_min_replicas=self._replicas.min_replicas,
            capacity_adjusted_max_replicas=self._replicas.max_replicas,
            policy_state=self._state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=float(now),
            config=self._config,
        )
        wanted, self._state = self._policy(context)
        return max(self._replicas.min_replicas, min(self._replicas.max_replicas, math.ceil(wanted)))


@contextmanager
def _autoscaler(replicas: Replicas) -> Iterator[_Autoscaler | _Fixed]:
    """Give what decides, on a clock of its own: Ray Serve's delays ask for the time of day."""
    if replicas.min_replicas == replicas.max_replicas:
        yield _Fixed()
        return
    from ray.serve import autoscaling_policy

    clock = SimpleNamespace(now=0.0)
    clock.time = lambda: clock.now
    with mock.patch.object(autoscaling_policy, "time", clock):
        yield _Autoscaler(replicas, clock)
