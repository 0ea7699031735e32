"""Deployments of Ray Serve: replicas of models, and gateways in front of them.

Only replicas load PyTorch.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from prometheus_client import start_http_server

from cytoray_analysis.devices import return_large_memory
from cytoray_analysis.errors import CytorayError, OverloadedError, PlatformError, ReplicaLostError
from cytoray_serving.front.limits import Front
from cytoray_serving.front.rules import set_rules
from cytoray_serving.gateway.route import Served
from cytoray_serving.messages import SUSPECT_SECONDS, Answer, Question
from cytoray_serving.open_inference.grpc import InferenceMethods
from cytoray_serving.service.assembly import assemble
from cytoray_serving.service.autoscaling import PER_REQUEST, WAITING
from cytoray_serving.service.config import ServiceConfig
from cytoray_serving.service.controller import RemoteController

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cytoray_services.settings import Settings
    from cytoray_services.tokens.access import Caller
    from cytoray_serving.replica.options import ReplicaOptions
    from cytoray_serving.replica.replica import LoadedModel, StepInput
    from cytoray_serving.viewer.records import AskedAnswer, StoredAnswer, StoredImage
    from cytoray_serving.viewer.viewer import Sent, Tile, TileAsked

log = logging.getLogger(__name__)

_READY_SECONDS = 2.0
_PREPARE_SECONDS = 300.0
_ALONE_SECONDS = 10.0  # a suspect question that has run alone for so long is no longer suspect


class Replica:
    """A process with loaded models.

    Parameters
    ----------
    preloaded
        References to load before the replica is ready.
    held
        Maximum number of versions in memory; the least recently used is removed first.
    warm
        References to load as well, if possible; after a failure they are loaded on the first request.
    """

    def __init__(
        self,
        preloaded: Sequence[str],
        held: int,
        settings: Settings,
        options: ReplicaOptions,
        warm: Sequence[str] = (),
    ) -> None:
        from ray import serve

        from cytoray_serving.replica.replica import exact_reference, load_model

        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damage is returned as an error, not logged
        self._settings, self._options = settings, options
        self._ready: dict[str, LoadedModel] = {}
        for reference in preloaded:
            exact = exact_reference(reference, settings)
            self._ready[exact] = load_model(exact, settings, options)
        self._unasked = load_unasked(warm[:held], settings, options)

        async def load(reference: str) -> LoadedModel:  # Serve decorates functions here, not bound methods
            return await self._load(reference)

        self._models = serve.multiplexed(max_num_models_per_replica=held)(load)
        self._unanswered: dict[int, float] = {}
        self._mean = 0.0
        self._doubted_until = -math.inf

    async def answer(self, reference: str, question: Question, given: StepInput | CytorayError | None) -> Any:
        """Answer one question with one version; suspect ones one at a time."""
        if not question.doubted:
            return await self._counted(question, lambda: self._answer(reference, question, given))
        if time.monotonic() < self._doubted_until:
            return OverloadedError("another suspect question is being answered", hint="try again immediately")
        until = self._doubted_until = time.monotonic() + _ALONE_SECONDS
        try:
            await asyncio.sleep(SUSPECT_SECONDS)
            return await self._counted(question, lambda: self._answer(reference, question, given))
        finally:
            if self._doubted_until == until:
                self._doubted_until = -math.inf

    async def step(
        self, reference: str, question: Question, given: StepInput | CytorayError | None, movie: bool
    ) -> Any:
        """Run a model before the last one of a pipeline."""
        return await self._counted(question, lambda: self._step(reference, question, given, movie))

    async def compare(self, reference: str, other: str, question: Question) -> dict[str, float] | CytorayError:
        """Answer one question with two versions, and return their agreement."""
        try:
            first, second = await self._models(reference), await self._models(other)
            return await first.compare(second, question)  # type: ignore[no-any-return]
        except CytorayError as error:
            return error

    async def prepare(self, reference: str) -> CytorayError | None:
        """Load a version before its first question."""
        try:
            await self._models(reference)
        except CytorayError as error:
            return error
        return None

    async def alive(self) -> bool:
        """Report that this process answers."""
        return True

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Report the unanswered megapixels, and the megapixels of a request, to Ray Serve."""
        return {WAITING: sum(self._unanswered.values()), PER_REQUEST: self._mean}

    async def _answer(self, reference: str, question: Question, given: StepInput | CytorayError | None) -> Any:
        model = await self._models(reference)
        return await model.answer(question, given)

    async def _step(
        self, reference: str, question: Question, given: StepInput | CytorayError | None, movie: bool
    ) -> Any:
        model = await self._models(reference)
        return await model.step(question, given, movie=movie)

    async def _counted(self, question: Question, work: Callable[[], Awaitable[Any]]) -> Any:
        key = id(question)
        self._unanswered[key] = question.megapixels
        self._mean = 0.9 * self._mean + 0.1 * question.megapixels if self._mean else question.megapixels
        try:
            return await work()
        except CytorayError as error:
            return error
        finally:
            del self._unanswered[key]

    async def _load(self, reference: str) -> LoadedModel:
        ready = self._ready.pop(reference, None) or self._unasked.pop(reference, None)
        if ready is not None:
            return ready
        if self._unasked:  # unused ones make room
            self._unasked.popitem()[1].close()
        from cytoray_serving.replica.replica import load_model

        return await asyncio.to_thread(load_model, reference, self._settings, self._options)


def load_unasked(references: Sequence[str], settings: Settings, options: ReplicaOptions) -> dict[str, LoadedModel]:
    """Load what was warm before, within five minutes; failures are logged, and raised again on a request."""
    from cytoray_serving.replica.replica import exact_reference, load_model

    loaded: dict[str, LoadedModel] = {}

    def load() -> None:
        for reference in references:
            try:
                exact = exact_reference(reference, settings)
                loaded[exact] = load_model(exact, settings, options)
            except Exception as error:  # noqa: BLE001 - no failure may prevent the start of the service
                log.warning("%s is not loaded in advance: %s", reference, error)

    thread = threading.Thread(target=load, name="warm", daemon=True)
    thread.start()
    thread.join(_PREPARE_SECONDS)
    return dict(loaded)


class RemoteDeployment:
    """A deployment of :class:`Replica` behind a Ray Serve handle, for gateways."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        # Creating one takes a tenth of a millisecond. The result of an earlier model is passed by reference, from its
        # replica to the next one through shared memory.
        self._by_value = lru_cache(64)(lambda reference: handle.options(multiplexed_model_id=reference))
        self._by_reference = lru_cache(64)(
            lambda reference: handle.options(multiplexed_model_id=reference, _by_reference=True)
        )

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        """Answer one question; raise ReplicaLostError for a lost replica, OverloadedError for too many requests."""
        handle = self._by_value(reference) if given is None else self._by_reference(reference)
        return await _answered(handle.answer.remote(reference, question, given))  # type: ignore[no-any-return]

    async def compare(self, reference: str, other: str, question: Question) -> dict[str, float] | CytorayError:
        """Answer with two versions; if the replica fails, this comparison is skipped."""
        try:
            return await _answered(self._handle.compare.remote(reference, other, question))  # type: ignore[no-any-return]
        except PlatformError as error:
            return error

    def step(self, reference: str, question: Question, given: Any, *, movie: bool) -> Any:
        """Start an earlier model."""
        return self._by_reference(reference).step.remote(reference, question, given, movie)

    async def prepare(self, reference: str) -> None:
        """Load a version on every replica; if one is lost in the meantime, on at least one other."""
        try:
            outcomes = await self._broadcast(_PREPARE_SECONDS, "prepare", reference)
        except PlatformError:
            outcomes = [await _answered(self._by_value(reference).prepare.remote(reference))]
        for error in outcomes:
            if isinstance(error, CytorayError):
                raise error

    async def alive(self) -> bool:
        """Whether a replica answers within two seconds."""
        try:
            return any(await self._broadcast(_READY_SECONDS, "alive"))
        except PlatformError:
            return False

    async def _broadcast(self, seconds: float, method: str, *arguments: Any) -> list[Any]:
        from grpc import RpcError  # type: ignore[import-untyped]
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        try:
            found: list[Any] = await self._handle.broadcast(method, *arguments).results_async(timeout_s=seconds)
        except (RayError, RayServeException, RpcError, TimeoutError) as error:
            raise PlatformError(f"not every replica answered: {error}", hint="wait: this is retried") from error
        return found


async def _answered(response: Any) -> Any:
    """Wait for a replica; cancel its work if the wait is cancelled."""
    from grpc import RpcError
    from ray.exceptions import ObjectLostError, RayActorError
    from ray.serve.exceptions import BackPressureError, RayServeException

    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except BackPressureError as error:
        raise OverloadedError("the queue of the model is full", hint="try again later") from error
    except (RayActorError, ObjectLostError, RayServeException, RpcError) as error:
        lost = ReplicaLostError("the model is restarting", hint="try again in a few seconds")
        # Ray Serve retries requests that no replica had accepted. In a pipeline, the cause is the error of an earlier
        # model.
        lost.at_work = any(isinstance(one, RayActorError) for one in (error, error.__cause__))
        raise lost from error


class RemoteViewer:
    """The viewer behind a Ray Serve handle, for gateways."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def add(self, caller: Caller, sent: Sent) -> StoredImage | CytorayError:
        """Store an image."""
        return await _answered(self._handle.add.remote(caller, sent))  # type: ignore[no-any-return]

    async def tile(self, caller: Caller, image_id: str, asked: TileAsked) -> Tile | CytorayError:
        """Draw a tile."""
        return await _answered(self._handle.tile.remote(caller, image_id, asked))  # type: ignore[no-any-return]

    async def keep(
        self, caller: Caller, image_id: str, asked: AskedAnswer, answer: Answer, seconds: float
    ) -> StoredAnswer | CytorayError:
        """Store an answer."""
        return await _answered(self._handle.keep.remote(caller, image_id, asked, answer, seconds))  # type: ignore[no-any-return]


class Gateway(InferenceMethods):
    """A process with the HTTP application and the calls of gRPC.

    Parameters
    ----------
    handles
        Handles of the deployments of replicas, by reference, and ``shared``.
    controller
        The handle of the :class:`~cytoray_serving.service.controller.ServiceController`.
    viewer
        The handle of the :class:`~cytoray_serving.viewer.viewer.Viewer`.
    served
        Models with dedicated replicas.
    warm
        Other references to look up before the first request.
    """

    def __init__(
        self,
        handles: Mapping[str, Any],
        controller: Any,
        viewer: Any,
        served: Sequence[Served],
        settings: Settings,
        config: ServiceConfig,
        warm: Sequence[str] = (),
    ) -> None:
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        return_large_memory()
        deployments = {reference: RemoteDeployment(handle) for reference, handle in handles.items()}
        report = RemoteController(controller).report
        self._assembled = assemble(deployments, report, served, settings, config, RemoteViewer(viewer), warm)
        super().__init__(self._assembled.answering, require_ready=self._assembled.dispatch.require_ready)
        set_rules(self._assembled.rules)
        if config.metrics_port is not None:
            # On a cluster Prometheus connects from another pod; on one machine the callers of the service.
            everywhere = "0.0.0.0"  # noqa: S104
            start_http_server(config.metrics_port, Front.of().host or everywhere, registry=self._assembled.metrics)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; called by Ray Serve."""
        return self._assembled.api
