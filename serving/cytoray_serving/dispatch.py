"""From a question to its answer: which version, within which limits, on which replicas, and what is learnt from it.

Every door of the service (HTTP, the Open Inference Protocol over HTTP and gRPC) comes through here. Knows nothing of
Ray: it calls anything that answers like :class:`Deployment`, so it is tested against real models in one process.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Mapping
from contextlib import suppress
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
)
from cytoray_analysis.images import Declared, Limits, declared_size
from cytoray_services.http_errors import LEFT
from cytoray_services.rollouts.judge import Outcome
from cytoray_services.rollouts.leader import Compared, Counted, Observed, Report
from cytoray_services.telemetry import ServingMetrics
from cytoray_serving.exchange import UPLOADED, Answer, Question
from cytoray_serving.routes import Route, Routes, Target
from cytoray_serving.schema import ModelStatus
from cytoray_serving.service_config import ServiceConfig
from cytoray_serving.waiting import Waiting

log = logging.getLogger(__name__)

T = TypeVar("T")

random = SystemRandom().random
_SMALL = 2**22  # bytes
_QUICK = (b"II*\0", b"MM\0*", b"\x89PNG", b"\xff\xd8\xff")
_IN_PASSING = Limits(frames=4)
_MIRRORED = 4  # shadows that are asked at a time; more questions are not mirrored meanwhile
_READY_SECONDS = 1.0  # that an answer about readiness holds
_TRIES = 8  # about 13 seconds: longer than a replica takes to start again


class Deployment(Protocol):
    """Replicas that answer with any version of the models that they are for; errors of callers come back as values."""

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        """Answer with the version `reference`, told what earlier models found."""
        ...

    def step(self, reference: str, question: Question, given: Any, *, movie: bool) -> Any:
        """Begin the work of a model before the last one; what is returned is `given` to the next and nothing else."""
        ...

    async def compare(self, reference: str, other: str, question: Question) -> dict[str, float] | CytorayError:
        """Answer with two versions, and say how far the second agrees with the first."""
        ...

    async def prepare(self, reference: str) -> None:
        """Load a version on every replica; raises where one fails."""
        ...

    async def alive(self) -> bool:
        """Whether a replica answers."""
        ...


class Dispatch:
    """Answers for everything that is served; see :class:`cytoray_serving.exchange.Answering`.

    Parameters
    ----------
    routes
        Which version answers.
    deployments
        By the reference that they are for, and ``shared``.
    config
        The limits.
    metrics
        Where answers are counted.
    """

    def __init__(
        self, routes: Routes, deployments: Mapping[str, Deployment], config: ServiceConfig, metrics: ServingMetrics
    ) -> None:
        self.waiting = Waiting(config.limits)
        self._routes = routes
        self._deployments = deployments
        self._config = config
        self._metrics = metrics
        self._reports: list[Report] = []
        self._asked: Counter[tuple[str, str]] = Counter()
        self._mirrored: set[asyncio.Task[None]] = set()
        self._readiness = asyncio.Lock()
        self._ready_until = -math.inf
        self._not_ready: PlatformError | None = None

    async def answer(
        self, model: str, version: str | None, question: Question, *, deadline: float | None = None
    ) -> Answer:
        """Answer one question; see :class:`cytoray_serving.exchange.Answering`."""
        label = "unknown"
        begun = time.perf_counter()
        try:
            route = await self._routes.find(model, version, keys=(random(), random()))
            label = route.target.status.name
            with self._metrics.in_flight.labels(label).track_inprogress():
                answer = await self._admitted(label, route, question, deadline)
        except BaseException as error:
            status = error.status if isinstance(error, CytorayError) else LEFT if _cancelled(error) else 500
            self._metrics.requests.labels(label, str(status)).inc()
            raise
        answer = replace(answer, seconds=answer.seconds | {"total": time.perf_counter() - begun})
        self._count(label, answer)
        return answer

    def refused(self, error: CytorayError) -> None:
        """Count a request that came to no question."""
        self._metrics.requests.labels("unknown", str(error.status)).inc()

    def left(self) -> None:
        """Count a request whose caller went away before it had come whole."""
        self._metrics.requests.labels("unknown", str(LEFT)).inc()

    def take_reports(self) -> list[Report]:
        """Return what was seen of canaries and shadows, and how many requests came, since this was last called."""
        reports, self._reports = self._reports, []
        asked, self._asked = self._asked, Counter()
        return [*reports, *(Counted(model, alias, requests) for (model, alias), requests in asked.items())]

    @property
    def names(self) -> tuple[str, ...]:
        """The names in addresses of what keeps replicas, and of pipelines."""
        return self._routes.names

    async def measure(self) -> None:
        """Bring the metrics up to date that nothing else counts."""
        statuses = await self._routes.statuses()
        self._metrics.model_info.clear()
        for status in statuses:
            self._metrics.model_info.labels(status.name, status.version or "", status.digest).set(1)
            self._metrics.waiting_megapixels.labels(status.name).set(self.waiting.megapixels(status.name))

    async def measure_replicas(self) -> None:
        """Ask every model that keeps a replica whether one answers, for the metrics."""
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
        """Raise :class:`PlatformError` unless every model that keeps a replica has one that answers.

        Anybody may ask, as often as they like: the replicas are asked once a second at most.
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
            raise PlatformError(f"no replica of {', '.join(missing)} answers", hint="they are starting; try again")
        await self._routes.statuses()

    async def _alive(self) -> dict[str, bool]:
        """Return whether a replica answers, by the reference of each model that keeps one."""
        kept = {_lasting(one.model) for one in self._config.models if one.replicas.least > 0}
        names = [name for name in self._deployments if name in kept]
        alive = await asyncio.gather(*(self._deployments[name].alive() for name in names))
        return dict(zip(names, alive, strict=True))

    async def _admitted(self, label: str, route: Route, question: Question, deadline: float | None) -> Answer:
        if not question.megapixels:
            declared = await _declared(question.image)
            question = replace(question, megapixels=declared.pixels / 1e6)
        if route.alias is not None:
            self._asked[label, route.alias] += 1
        if route.watched:
            question = replace(question, summary=True, lane=route.lane)
        self._require_size(question)
        seconds = min(deadline or self._config.limits.seconds, self._config.limits.seconds)
        with self.waiting.request(label, question.megapixels):
            work = _within(seconds, self._ask(route, question), asked=deadline is not None)
            answer = await (self._watched(route, question, work) if route.watched else work)
        self.waiting.answered(label, question.megapixels)
        if route.shadow is not None and len(self._mirrored) < _MIRRORED:
            self._mirror(route, route.shadow, question)
        return answer

    async def _ask(self, route: Route, question: Question) -> Answer:
        """Ask until no replica is lost on the way: a question changes nothing, so it can be asked again."""
        for attempt in itertools.count(1):
            try:
                return await self._ask_once(route, question)
            except ReplicaLostError as error:
                if attempt == _TRIES:
                    raise
                log.warning("a replica of %s was lost, the question is asked again: %s", route.name, error.__cause__)
                await asyncio.sleep(0.1 * (2 ** (attempt - 1) - 1))  # the first time at once
                # The alias may have moved meanwhile; the same keys, so that a canary's share stays what it is.
                route = await self._routes.find(route.name, route.version, keys=route.keys)
        raise AssertionError("the loop above ends by itself")

    async def _watched(self, route: Route, question: Question, work: Awaitable[Answer]) -> Answer:
        """Wait for an answer, and note what becomes of it while a canary is running."""
        begun = time.perf_counter()

        def note(outcome: Outcome) -> None:
            status = route.target.status
            self._reports.append(Observed(status.name, status.version or "", outcome))

        try:
            answer = await work
        except (InputError, OverloadedError, asyncio.CancelledError):
            raise  # callers' mistakes, full queues and callers who go away speak neither for nor against a version
        except Exception:
            note(Outcome(True, time.perf_counter() - begun, question.megapixels))
            raise
        # One answer speaks for a pass of the network: the times of the others are the same one.
        timed = question.lane > 0 and answer.place == 0
        seconds = own_seconds(answer)
        note(Outcome(False, seconds, question.megapixels, answer.summary, timed=timed, batch=answer.batch))
        return answer

    def _mirror(self, route: Route, shadow: Target, question: Question) -> None:
        """Ask a shadow in the background, and note how far it agrees."""

        async def compare() -> None:
            found = await self._of(route.target).compare(route.target.reference, shadow.reference, question)
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
            given = self._of(target).step(target.reference, question, given, movie=movie)
        answer = await self._of(route.target).answer(route.target.reference, question, given)
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
                hint="send a job: POST /models/{model}/jobs with its URI",
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
    """Return what a version took for an answer: not how long it waited, nor what the models before it took."""
    return sum(taken for stage, taken in answer.seconds.items() if stage != "queue" and not stage.startswith("step"))


def _lasting(model: str) -> str:
    """Return the reference of the replicas that are for a model: of a bundle folder its absolute path."""
    return str(Path(model).absolute()) if Path(model).is_dir() else model


async def _declared(image: bytes) -> Declared:
    """Return what the header of an image says."""
    if len(image) <= _SMALL and image.startswith(_QUICK):
        with suppress(ImageTooLargeError):  # more pages than are counted in passing
            return declared_size(image, limits=_IN_PASSING)
    # In a thread: of files with thousands of pages, and of vendors' formats, this takes seconds.
    return await asyncio.to_thread(declared_size, image, limits=UPLOADED)


async def _within(seconds: float, work: Awaitable[T], *, asked: bool) -> T:
    """Wait at most so long; the work is cancelled then, wherever it is."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        if isinstance(error, CytorayError):
            raise
        message = f"there was no answer within {seconds:g} s"
        if asked:
            raise DeadlineError(message, field="timeout", hint="allow more time, or send a job") from error
        raise PlatformError(message, hint="send a job: POST /models/{model}/jobs") from error


def _cancelled(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError)
