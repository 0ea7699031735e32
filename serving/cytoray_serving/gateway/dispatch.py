"""Dispatches questions: chooses the version, applies the limits, calls the replicas and reports the result.

Every interface of the service (HTTP, the Open Inference Protocol over HTTP and gRPC) uses it. It does not depend on
Ray: it calls any :class:`Deployment`, so the tests use real models in one process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import SystemRandom
from typing import Any, Protocol, TypeVar

from cytoray_analysis.errors import (
    CytorayError,
    DeadlineError,
    ImageTooLargeError,
    InputError,
    OverloadedError,
    PlatformError,
    ReplicaLostError,
    UnanswerableError,
)
from cytoray_analysis.images import Declared, Limits, declared_size
from cytoray_services.http.errors import LEFT
from cytoray_services.rollouts.canary_analysis import Outcome
from cytoray_services.rollouts.controller import Compared, Counted, Observed, Report
from cytoray_services.telemetry import ServingMetrics
from cytoray_services.tokens.access import Caller
from cytoray_serving.gateway.making import Making
from cytoray_serving.gateway.route import Route, Target
from cytoray_serving.gateway.routes import Routes
from cytoray_serving.gateway.waiting import Waiting
from cytoray_serving.messages import SUSPECT_SECONDS, UPLOADED, Answer, Question
from cytoray_serving.schema import ModelStatus
from cytoray_serving.service.config import ServiceConfig

log = logging.getLogger(__name__)

T = TypeVar("T")
random = SystemRandom().random
_SMALL = 2**22  # bytes
_QUICK = (b"II*\0", b"MM\0*", b"\x89PNG", b"\xff\xd8\xff")
_IN_PASSING = Limits(frames=4)
_MIRRORED = 4  # concurrent requests to shadows; further questions are not mirrored
_READY_SECONDS = 1.0  # how long a result of readiness is cached
_TRIES = 8  # about 13 seconds: longer than the restart of a replica
_ALONE_SECONDS = 10.0
_TURN_SECONDS = 0.5  # until a suspect question tries again to get its turn


class Deployment(Protocol):
    """Replicas that answer with any version of their models; errors of callers are returned as values."""

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        """Answer with the version `reference`, given the results of earlier models."""
        ...

    def step(self, reference: str, question: Question, given: Any, *, movie: bool) -> Any:
        """Start a model before the last one; the result is only passed as `given` to the next."""
        ...

    async def compare(self, reference: str, other: str, question: Question) -> dict[str, float] | CytorayError:
        """Answer with two versions, and return how far the second agrees with the first."""
        ...

    async def prepare(self, reference: str) -> None:
        """Load a version on every replica; raise if one fails."""
        ...

    async def alive(self) -> bool:
        """Whether a replica answers."""
        ...


class Dispatch:
    """Answers for everything that is served; see :class:`cytoray_serving.messages.Answering`.

    Parameters
    ----------
    routes
        The routing table.
    deployments
        Deployments by reference, and ``shared``.
    config
        The limits.
    metrics
        The metrics to update.
    """

    def __init__(
        self, routes: Routes, deployments: Mapping[str, Deployment], config: ServiceConfig, metrics: ServingMetrics
    ) -> None:
        self.waiting = Waiting(config.limits, config.teams)
        self.making = Making(self.waiting, config.limits.bodies_megabytes * 2**20)
        self._routes = routes
        self._deployments = deployments
        self._config = config
        self._metrics = metrics
        self._reports: list[Report] = []
        self._asked: Counter[tuple[str, str]] = Counter()
        self._mirrored: set[asyncio.Task[None]] = set()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._readiness = asyncio.Lock()
        self._ready_until = -math.inf
        self._not_ready: PlatformError | None = None

    async def answer(
        self,
        model: str,
        version: str | None,
        question: Question,
        *,
        deadline: float | None = None,
        caller: Caller | None = None,
    ) -> Answer:
        """Answer one question for a caller with limits; see :class:`~.exchange.Answering`."""
        label = "unknown"
        begun = time.perf_counter()
        try:
            route = await self._routes.find(model, version, keys=(random(), random()))
            label = route.target.status.name
            with self._metrics.in_flight.labels(label).track_inprogress():
                answer = await self._admitted(label, route, question, deadline, caller)
        except BaseException as error:
            status = error.status if isinstance(error, CytorayError) else LEFT if _cancelled(error) else 500
            self._metrics.requests.labels(label, str(status)).inc()
            raise
        answer = replace(answer, seconds=answer.seconds | {"total": time.perf_counter() - begun})
        self._count(label, answer)
        return answer

    def refused(self, error: CytorayError) -> None:
        """Count a request that failed before it became a question."""
        self._metrics.requests.labels("unknown", str(error.status)).inc()

    def left(self) -> None:
        """Count a request whose caller disconnected before its end."""
        self._metrics.requests.labels("unknown", str(LEFT)).inc()

    def take_reports(self) -> list[Report]:
        """Return the observations of canaries and shadows and the use of shared replicas since the last call."""
        reports, self._reports = self._reports, []
        asked, self._asked = self._asked, Counter()
        return [*reports, *(Counted(model, alias, requests) for (model, alias), requests in asked.items())]

    @property
    def names(self) -> tuple[str, ...]:
        """The names in addresses of models with permanent replicas, and of pipelines."""
        return self._routes.names

    async def measure(self) -> None:
        """Update the metrics that nothing else updates."""
        statuses = await self._routes.statuses()
        self._metrics.model_info.clear()
        for status in statuses:
            self._metrics.model_info.labels(status.name, status.version or "", status.digest).set(1)
            self._metrics.waiting_megapixels.labels(status.name).set(self.waiting.megapixels(status.name))

    async def measure_replicas(self) -> None:
        """Check every model with a permanent replica, for the metrics."""
        ready: dict[str, bool] = {}
        for reference, answers in (await self._alive()).items():
            name = (await self.status(reference, None)).name
            ready[name] = ready.get(name, True) and answers
        for name, all_answer in ready.items():
            self._metrics.model_ready.labels(name).set(all_answer)

    async def status(self, model: str, version: str | None) -> ModelStatus:
        """Describe one model."""
        return (await self._routes.find(model, version)).target.status

    async def statuses(self) -> list[ModelStatus]:
        """Describe everything that is served."""
        return await self._routes.statuses()

    async def require_ready(self) -> None:
        """Raise :class:`PlatformError` unless every model with a permanent replica has one that answers.

        Open to everyone at any rate: the replicas are called at most once a second.
        """
        async with self._readiness:
            if time.monotonic() > self._ready_until:
                self._not_ready = await self._look_whether_ready()
                self._ready_until = time.monotonic() + _READY_SECONDS
        if self._not_ready is not None:
            raise self._not_ready

    async def _look_whether_ready(self) -> PlatformError | None:
        try:
            await self._look_at_replicas()
        except PlatformError as error:
            return error
        return None

    async def _look_at_replicas(self) -> None:
        missing = [reference for reference, answers in (await self._alive()).items() if not answers]
        if missing:
            raise PlatformError(f"no replica of {', '.join(missing)} answers", hint="they are starting: try again")
        await self._routes.statuses()

    async def _alive(self) -> dict[str, bool]:
        """Return whether a replica answers, by the reference of each model with a permanent replica."""
        kept = {_lasting(one.model) for one in self._config.models if one.replicas.min_replicas > 0}
        names = [name for name in self._deployments if name in kept]
        alive = await asyncio.gather(*(self._deployments[name].alive() for name in names))
        return dict(zip(names, alive, strict=True))

    async def _admitted(
        self, label: str, route: Route, question: Question, deadline: float | None, caller: Caller | None
    ) -> Answer:
        if not question.megapixels:
            declared = await _declared(question.image)
            question = replace(question, megapixels=declared.pixels / 1e6)
        if route.alias is not None:
            self._asked[label, route.alias] += 1
        if route.watched:
            question = replace(question, summary=True, lane=route.lane)
        self._require_size(question)
        seconds = min(deadline or self._config.limits.seconds, self._config.limits.seconds)
        with self.waiting.request(label, question.megapixels, caller):
            work = _within(seconds, self._ask(route, question), asked=deadline is not None)
            answer = await (self._watched(route, question, work) if route.watched else work)
        self.waiting.answered(label, question.megapixels)
        if route.shadow is not None and len(self._mirrored) < _MIRRORED:
            self._mirror(route, route.shadow, question)
        return answer

    async def _ask(self, route: Route, question: Question) -> Answer:
        """Retry until no replica is lost: a question changes nothing, so a retry is safe.

        A question that was in a replica when it ended is retried once, separately from other such questions. So the
        question that ends replicas is found, and all others are answered.
        """
        for attempt in itertools.count(1):
            try:
                return await (self._ask_alone if question.doubted else self._ask_once)(route, question)
            except ReplicaLostError as error:
                if question.doubted and error.at_work:
                    raise UnanswerableError(
                        f"two replicas of {route.name} ended while they processed this request",
                        field="image",
                        hint="send a smaller part of the image; see the log of the service for the cause",
                    ) from error
                if attempt == _TRIES:
                    raise
                question = replace(question, doubted=question.doubted or error.at_work)
                log.warning("a replica of %s was lost, the request is retried: %s", route.name, error.__cause__)
                await asyncio.sleep(0.1 * (2 ** (attempt - 1) - 1))  # the first retry is immediate
                # The alias may have moved in the meantime; the same keys keep the share of a canary.
                route = await self._routes.find(route.name, route.version, keys=route.keys)
        raise AssertionError("the loop above always returns")

    async def _ask_alone(self, route: Route, question: Question) -> Answer:
        """Retry when no other suspect question runs in the same replica, from this gateway or another."""
        async with _turn(self._turns[route.target.deployment]):
            while True:
                sent = time.monotonic()
                try:
                    return await self._ask_once(route, question)
                except OverloadedError:
                    await asyncio.sleep(_TURN_SECONDS)
                except ReplicaLostError as error:
                    # Sooner than that it was not at work: the replica was lost while it refused this question.
                    error.at_work = error.at_work and time.monotonic() - sent >= SUSPECT_SECONDS
                    raise

    async def _watched(self, route: Route, question: Question, work: Awaitable[Answer]) -> Answer:
        """Wait for an answer, and record the outcome while a canary is running."""
        begun = time.perf_counter()

        def note(outcome: Outcome) -> None:
            status = route.target.status
            self._reports.append(Observed(status.name, status.version or "", outcome))

        try:
            answer = await work
        except UnanswerableError:  # the version may be the cause
            note(Outcome(True, time.perf_counter() - begun, question.megapixels))
            raise
        except (InputError, OverloadedError, asyncio.CancelledError):
            raise  # errors of callers, full queues and disconnected callers say nothing about a version
        except Exception:
            note(Outcome(True, time.perf_counter() - begun, question.megapixels))
            raise
        # One answer counts for a pass of the network: the others have the same time.
        timed = question.lane > 0 and answer.place == 0
        seconds = own_seconds(answer)
        note(Outcome(False, seconds, question.megapixels, answer.summary, timed=timed, batch=answer.batch))
        return answer

    def _mirror(self, route: Route, shadow: Target, question: Question) -> None:
        """Send the question to a shadow in the background, and record its agreement."""

        async def compare() -> None:
            found = await self._of(route.target).compare(route.target.exact, shadow.exact, question)
            if isinstance(found, CytorayError):
                log.warning("the shadow %s did not answer: %s", shadow.reference, found.message)
            else:
                self._reports.append(Compared(shadow.status.name, shadow.status.version or "", found))

        task = asyncio.ensure_future(compare())
        self._mirrored.add(task)
        task.add_done_callback(self._mirrored.discard)

    async def _ask_once(self, route: Route, question: Question) -> Answer:
        before = list(route.before)
        if question.segmentation is not None:
            before.append(await self._routes.find_segmentation(question.segmentation))
        given: Any = None
        movie = "T" in route.target.status.axes
        for target in before:
            given = self._of(target).step(target.exact, question, given, movie=movie)
        answer = await self._of(route.target).answer(route.target.exact, question, given)
        if isinstance(answer, CytorayError):
            raise answer
        return answer

    def _of(self, target: Target) -> Deployment:
        return self._deployments[target.deployment]

    def _require_size(self, question: Question) -> None:
        largest = self._config.largest_image / 1e6
        if question.megapixels > largest:
            raise ImageTooLargeError(
                f"expected an image of at most {largest:.0f} megapixels, got {question.megapixels:.0f}",
                field="image",
                hint="submit a job: POST /models/{model}/jobs with the URI of the image",
            )

    def _count(self, model: str, answer: Answer) -> None:
        metrics = self._metrics
        metrics.requests.labels(model, "200").inc()
        metrics.latency.labels(model).observe(answer.seconds["total"])
        for stage, taken in answer.seconds.items():
            if stage != "total":
                metrics.stages.labels(model, stage).observe(taken)
        metrics.megapixels.labels(model).inc(answer.megapixels)
        metrics.objects.labels(model).inc(answer.objects)
        metrics.batch_images.labels(model).observe(answer.batch)
        metrics.body_bytes.labels(model, "in").inc(answer.body_in)
        metrics.body_bytes.labels(model, "out").inc(len(answer.body))


def own_seconds(answer: Answer) -> float:
    """Return the time of a version for an answer, without queueing and without earlier models."""
    return sum(taken for stage, taken in answer.seconds.items() if stage != "queue" and not stage.startswith("step"))


def _lasting(model: str) -> str:
    """Return the reference of the replicas of a model: for a bundle folder its absolute path."""
    return str(Path(model).absolute()) if Path(model).is_dir() else model


async def _declared(image: bytes) -> Declared:
    """Return the declared size in the header of an image."""
    if len(image) <= _SMALL and image.startswith(_QUICK):
        with suppress(ImageTooLargeError):  # more pages than are counted here
            return declared_size(image, limits=_IN_PASSING)
    # In a thread: for files with thousands of pages, and for vendor formats, this takes seconds.
    return await asyncio.to_thread(declared_size, image, limits=UPLOADED)


async def _within(seconds: float, work: Awaitable[T], *, asked: bool) -> T:
    """Wait for at most this time, then cancel the work."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        if isinstance(error, CytorayError):
            raise
        message = f"expected an answer within {seconds:g} s, got none"
        if asked:
            raise DeadlineError(message, field="timeout", hint="allow more time, or submit a job") from error
        raise PlatformError(message, hint="submit a job: POST /models/{model}/jobs") from error


@asynccontextmanager
async def _turn(lock: asyncio.Lock) -> AsyncIterator[None]:
    """Hold a lock, but release it for others after some time."""
    await lock.acquire()
    held = [lock]

    def let_go() -> None:
        while held:
            held.pop().release()

    timer = asyncio.get_running_loop().call_later(_ALONE_SECONDS, let_go)
    try:
        yield
    finally:
        timer.cancel()
        let_go()


def _cancelled(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError)
