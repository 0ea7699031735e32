"""Assembles a gateway from its parts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from cytoray_analysis.errors import CytorayError
from cytoray_services.corrections.store import DatasetStore
from cytoray_services.rollouts.controller import Report
from cytoray_services.storage.allowed import Allowed
from cytoray_services.telemetry import JobWatch, SeenJob, job_metrics, serving_metrics
from cytoray_services.tokens.access import Access, Caller
from cytoray_services.tokens.tokens import TokenFile, tokens_path
from cytoray_serving.datasets.routes import dataset_routes
from cytoray_serving.front.rules import Rules, own_names
from cytoray_serving.gateway.dispatch import Deployment, Dispatch
from cytoray_serving.gateway.gateway import create_api
from cytoray_serving.gateway.jobs_service import jobs_service_routes
from cytoray_serving.gateway.page import page_routes
from cytoray_serving.gateway.permitted import Permitted, require_model
from cytoray_serving.gateway.route import Served
from cytoray_serving.gateway.routes import Routes
from cytoray_serving.gateway.sources import fetch_question, job_of
from cytoray_serving.gateway.teams import allowed_for
from cytoray_serving.jobs.request import JobStatus
from cytoray_serving.jobs.routes import job_routes
from cytoray_serving.jobs.store import JobStore
from cytoray_serving.jobs.taking import JobTaker
from cytoray_serving.messages import Count, Question
from cytoray_serving.open_inference.rest import open_inference_routes
from cytoray_serving.schema import UriQuestion
from cytoray_serving.service.config import ServiceConfig
from cytoray_serving.service.warmth import SharedUse
from cytoray_serving.viewer.routes import image_routes
from cytoray_serving.viewer.store import ImageStore
from cytoray_serving.viewer.viewer import Viewing

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

_MEASURE_SECONDS = 10.0


@dataclass(frozen=True)
class Assembled:
    """A gateway: its application, the dispatch behind it, and the rules of the front."""

    api: FastAPI
    dispatch: Dispatch
    routes: Routes
    access: Access
    rules: Rules
    metrics: CollectorRegistry

    def answering(self, authorization: str | None) -> Permitted:
        """Return the service for the caller of a token.

        Raises
        ------
        UnauthorizedError, ForbiddenError
            See :meth:`cytoray_services.tokens.access.Access.check`.
        """
        return Permitted(self.dispatch, self.access.check(authorization, "predict"))


def assemble(
    deployments: Mapping[str, Deployment],
    report: Callable[[Sequence[Report | SharedUse]], Awaitable[None]],
    served: Sequence[Served],
    settings: Settings,
    config: ServiceConfig,
    viewer: Viewing,
    warm: Sequence[str] = (),
) -> Assembled:
    """Assemble a gateway.

    Parameters
    ----------
    deployments
        Deployments of replicas by reference, and ``shared``.
    report
        Sends observations of canaries, shadows and traffic; see
        :class:`cytoray_serving.service.controller.RemoteController`.
    served
        Models with dedicated replicas.
    viewer
        Stores and draws images.
    warm
        Other references to look up before the first request.
    """
    registry = CollectorRegistry()
    routes = Routes(
        settings,
        served,
        config.pipelines,
        shared=config.shared is not None,
        prepare=lambda target: deployments[target.deployment].prepare(target.exact),
    )
    dispatch = Dispatch(routes, deployments, config, serving_metrics(registry))

    async def follow() -> None:
        """Follow the registry while the gateway runs."""
        for reference in warm:
            with suppress(CytorayError):  # a request for it gets the error
                await routes.find(reference)
        while True:
            try:
                await routes.statuses()  # so that no request has to look first
                await routes.follow()
                if reports := [*dispatch.take_reports(), *routes.take_shared_use()]:
                    await report(reports)
            except CytorayError as error:
                log.warning("%s", error.message)
            except Exception:
                log.exception("following the registry failed, trying again")
            await asyncio.sleep(config.poll_seconds)

    store = JobStore(settings.home / "jobs")
    taker = JobTaker(store, settings, config)
    bulk = JobWatch(job_metrics(registry), "bulk")

    async def measure() -> None:
        """Update the metrics that depend on other processes while the gateway runs."""
        while True:
            try:
                await dispatch.measure()
                await dispatch.measure_replicas()
                bulk.look([_seen(status) for status in (await asyncio.to_thread(store.states)).jobs])
            except CytorayError as error:
                log.warning("some metrics are not up to date: %s", error.message)
            except Exception:
                log.exception("some metrics are not up to date, trying again")
            await asyncio.sleep(_MEASURE_SECONDS)

    async def background() -> None:
        await asyncio.gather(follow(), measure())

    tokens = None if config.insecure_local else TokenFile(config.tokens or tokens_path(settings))
    access = Access(tokens)

    async def exact(caller: Caller, model: str, version: str | None) -> tuple[str, ...]:
        require_model(caller, model)
        return await routes.exact(model, version)

    async def submit(model: str, version: str | None, asked: UriQuestion, request: Request) -> JobStatus:
        """Turn a request with an output URI into a job."""
        caller = access.check(request.headers.get("authorization"), "submit")
        steps = await exact(caller, model, version)
        if asked.segmentation is not None:
            steps = (*await exact(caller, asked.segmentation, None), *steps)
        return await asyncio.to_thread(taker.take, steps, job_of(asked), caller)

    may_submit = (Depends(access.require("submit")),)
    jobs = job_routes(
        store,
        taker.take,
        exact,
        submitting=may_submit,
        watching=may_submit,
    )

    def permitted(request: Request) -> Permitted:
        return Permitted(dispatch, request.state.caller)

    may_predict = access.require("predict")
    may_read = (Depends(may_predict),)
    images = ImageStore(settings.home / "images", config.viewer)
    sets = DatasetStore(settings.home / "datasets", config.viewer.owner_megabytes)
    datasets = dataset_routes(sets, images, viewer, changing=may_submit, reading=may_read)
    protocol = open_inference_routes(
        permitted,
        require_ready=dispatch.require_ready,
        guard=may_read,
    )

    def fetch(asked: UriQuestion, caller: Caller, count: Count) -> Question:
        return fetch_question(asked, None, config, allowed(caller), count)

    def allowed(caller: Caller) -> Allowed:
        return allowed_for(caller, config.allowed, config.teams)

    training = jobs_service_routes(config.jobs.url, guard=access.require("submit"))
    stored = image_routes(images, viewer, permitted, fetch, allowed, dispatch.making.bodies, guard=may_predict)
    api = create_api(
        dispatch,
        registry,
        config=config,
        access=access,
        submit=submit,
        routers=(jobs, datasets, protocol, stored, training, page_routes(access, config.limits.body_megabytes)),
        background=background,
    )
    rules = Rules(
        access.known,
        config.limits.body_megabytes * 2**20,
        dispatch.making.bodies,
        limits=config.front,
        refused=dispatch.refused,
        names=own_names(config.public_names) if config.insecure_local else None,
        origins=frozenset(config.allowed.origins),
    )
    return Assembled(api, dispatch, routes, access, rules, registry)


def _seen(status: JobStatus) -> SeenJob:
    return SeenJob(status.id, status.state, progress=(status.items_done, status.items_failed, status.blocks_done))
