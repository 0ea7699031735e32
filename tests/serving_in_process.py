"""A service over real models, in this process and without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx

from cytoray_analysis.errors import CytorayError
from cytoray_services.registry import Registry
from cytoray_services.rollouts.controller import RolloutController
from cytoray_services.settings import Settings
from cytoray_serving.front.entrance import Entrance
from cytoray_serving.gateway.route import SHARED
from cytoray_serving.messages import Answer, Question
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.replica.replica import LoadedModel, load_model
from cytoray_serving.service.application import served_models
from cytoray_serving.service.assembly import Assembled, assemble
from cytoray_serving.service.config import ModelConfig, RequestLimits, ServiceConfig
from cytoray_serving.viewer.viewer import Viewer
from serving_samples import LARGEST_BODY

Ask = Callable[..., httpx.Response]
OPTIONS = ReplicaOptions(threads=1)


class InProcess:
    """Replicas, one of them, as the gateway calls it."""

    def __init__(self, settings: Settings, options: ReplicaOptions = OPTIONS) -> None:
        self._settings, self._options = settings, options
        self._models: dict[str, LoadedModel] = {}

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        found = await self._given(given)
        if isinstance(found, CytorayError):
            return found
        try:
            return await self._model(reference).answer(question, found)
        except CytorayError as error:
            return error

    def step(self, reference: str, question: Question, given: Any, *, movie: bool) -> Awaitable[Any]:
        async def work() -> Any:
            found = await self._given(given)
            if isinstance(found, CytorayError):
                return found
            return await self._model(reference).step(question, found, movie=movie)

        return work()

    async def compare(self, reference: str, other: str, question: Question) -> dict[str, float] | CytorayError:
        return await self._model(reference).compare(self._model(other), question)

    async def prepare(self, reference: str) -> None:
        self._model(reference)

    async def alive(self) -> bool:
        return True

    async def _given(self, given: Any) -> Any:
        return None if given is None else await given

    def _model(self, reference: str) -> LoadedModel:
        if reference not in self._models:
            self._models[reference] = load_model(reference, self._settings, self._options)
        return self._models[reference]


def config_of(models: Sequence[str], **changes: Any) -> ServiceConfig:
    """Describe a service of these models that anybody on this machine may ask."""
    limits = RequestLimits(body_megabytes=LARGEST_BODY // 2**20)
    known: dict[str, Any] = {"insecure_local": True, "limits": limits, "poll_seconds": 0.05} | changes
    return ServiceConfig(models=tuple(ModelConfig(model=model) for model in models), **known)


def in_process(settings: Settings, config: ServiceConfig, deployment: Any = None) -> Assembled:
    """Put a service together whose replicas are all the same object in this process."""
    served, _ = served_models(config, settings)
    replicas = deployment or InProcess(settings)
    deployments = {one.reference: replicas for one in served} | {SHARED: replicas}
    rollouts = RolloutController(Registry.open(settings))

    async def report(reports: Sequence[Any]) -> None:
        rollouts.observe(reports)

    viewer = Viewer(settings, config.viewer, config.largest_image)
    return assemble(deployments, report, served, settings, config, viewer)


def asker(service: Assembled) -> Ask:
    """Return the function that sends one request."""

    def ask(method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            entrance = Entrance(service.api, secret=None, rules=lambda: service.rules)
            transport = httpx.ASGITransport(entrance, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    return ask
