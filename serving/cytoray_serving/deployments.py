"""What runs in processes of its own under Ray Serve: replicas of models, and gateways in front of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from prometheus_client import start_http_server

from cytoray_analysis.errors import CytorayError, OverloadedError, PlatformError, ReplicaLostError
from cytoray_serving.assembly import assemble
from cytoray_serving.autoscaling import PER_REQUEST, WAITING
from cytoray_serving.exchange import Answer, Question
from cytoray_serving.front.rules import set_rules
from cytoray_serving.open_inference.grpc import InferenceMethods
from cytoray_serving.replica import Given, LoadedModel, ReplicaOptions, exact_reference, load_model
from cytoray_serving.routes import Served
from cytoray_serving.service_config import ServiceConfig
from cytoray_serving.steward import RemoteSteward

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cytoray_services.settings import Settings

_READY_SECONDS = 2.0
_PREPARE_SECONDS = 300.0


class Replica:
    """Loaded models in a process of their own.

    Parameters
    ----------
    preloaded
        References that are loaded before the replica is ready.
    held
        Versions in memory at most; the one that was not asked for the longest goes first.
    """

    def __init__(self, preloaded: Sequence[str], held: int, settings: Settings, options: ReplicaOptions) -> None:
        from ray import serve

        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # damage comes back as an error, not as lines of a log
        self._settings, self._options = settings, options
        self._ready: dict[str, LoadedModel] = {}
        for reference in preloaded:
            exact = exact_reference(reference, settings)
            self._ready[exact] = load_model(exact, settings, options)

        async def load(reference: str) -> LoadedModel:  # Serve decorates functions here, not bound methods
            return await self._load(reference)

        self._models = serve.multiplexed(max_num_models_per_replica=held)(load)
        self._unanswered: dict[int, float] = {}
        self._mean = 0.0

    async def answer(self, reference: str, question: Question, given: Given | CytorayError | None) -> Any:
        """Answer one question with one version."""
        return await self._counted(question, lambda: self._answer(reference, question, given))

    async def step(self, reference: str, question: Question, given: Given | CytorayError | None, movie: bool) -> Any:
        """Do the work of a model before the last one of a pipeline."""
        return await self._counted(question, lambda: self._step(reference, question, given, movie))

    async def compare(self, reference: str, other: str, question: Question) -> dict[str, float] | CytorayError:
        """Answer one question with two versions, and say how far they agree."""
        try:
            first, second = await self._models(reference), await self._models(other)
            return await first.compare(second, question)  # type: ignore[no-any-return]
        except CytorayError as error:
            return error

    async def prepare(self, reference: str) -> CytorayError | None:
        """Load a version, so that the first question about it does not wait."""
        try:
            await self._models(reference)
        except CytorayError as error:
            return error
        return None

    async def alive(self) -> bool:
        """Say that this process answers."""
        return True

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray Serve the megapixels that are unanswered, and those of a request."""
        return {WAITING: sum(self._unanswered.values()), PER_REQUEST: self._mean}

    async def _answer(self, reference: str, question: Question, given: Given | CytorayError | None) -> Any:
        model = await self._models(reference)
        return await model.answer(question, given)

    async def _step(self, reference: str, question: Question, given: Given | CytorayError | None, movie: bool) -> Any:
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
        ready = self._ready.pop(reference, None)
        if ready is not None:
            return ready
        return await asyncio.to_thread(load_model, reference, self._settings, self._options)


class RemoteDeployment:
    """A deployment of :class:`Replica` behind a Ray Serve handle, as the gateway calls it."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        # Making one takes a tenth of a millisecond. What an earlier model returned goes by reference: from its replica
        # to the next one, through shared memory.
        self._by_value = lru_cache(64)(lambda reference: handle.options(multiplexed_model_id=reference))
        self._by_reference = lru_cache(64)(
            lambda reference: handle.options(multiplexed_model_id=reference, _by_reference=True)
        )

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        """Answer one question; a lost replica is a ReplicaLostError, too many requests an OverloadedError."""
        handle = self._by_value(reference) if given is None else self._by_reference(reference)
        return await _answered(handle.answer.remote(reference, question, given))  # type: ignore[no-any-return]

    async def compare(self, reference: str, other: str, question: Question) -> dict[str, float] | CytorayError:
        """Answer with two versions; a replica that cannot is no more than a comparison less."""
        try:
            return await _answered(self._handle.compare.remote(reference, other, question))  # type: ignore[no-any-return]
        except PlatformError as error:
            return error

    def step(self, reference: str, question: Question, given: Any, *, movie: bool) -> Any:
        """Begin the work of an earlier model."""
        return self._by_reference(reference).step.remote(reference, question, given, movie)

    async def prepare(self, reference: str) -> None:
        """Load a version on every replica there is; where one is lost meanwhile, on another one at least."""
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
            raise PlatformError(f"not every replica answered: {error}", hint="it is tried again") from error
        return found


async def _answered(response: Any) -> Any:
    """Wait for a replica; when nobody waits any longer, its work is cancelled."""
    from grpc import RpcError
    from ray.exceptions import ObjectLostError, RayActorError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except BackPressureError as error:
        raise OverloadedError("the model has as many requests waiting as it takes", hint="try again later") from error
    except (RayActorError, ObjectLostError, DeploymentUnavailableError, RpcError) as error:
        raise ReplicaLostError("the model is starting again", hint="try again in a few seconds") from error


class Gateway(InferenceMethods):
    """The HTTP application, and the calls of gRPC, in a process of their own.

    Parameters
    ----------
    handles
        Of the deployments of replicas, by the reference that they are for, and ``shared``.
    steward
        The handle of the steward.
    served
        What has replicas of its own.
    """

    def __init__(
        self,
        handles: Mapping[str, Any],
        steward: Any,
        served: Sequence[Served],
        settings: Settings,
        config: ServiceConfig,
    ) -> None:
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        deployments = {reference: RemoteDeployment(handle) for reference, handle in handles.items()}
        self._assembled = assemble(deployments, RemoteSteward(steward), served, settings, config)
        access, dispatch = self._assembled.access, self._assembled.dispatch
        super().__init__(
            dispatch,
            authorize=lambda authorization: access.check(authorization, "predict"),
            require_ready=dispatch.require_ready,
            holding=self._assembled.rules.bodies.holding,
        )
        set_rules(self._assembled.rules)
        if config.metrics_port is not None:
            start_http_server(config.metrics_port, registry=self._assembled.metrics)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Give the application; called by Ray Serve."""
        return self._assembled.api
