"""The parts of a gateway, put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fastapi import Depends, Request
from prometheus_client import CollectorRegistry

from cytoray_analysis.errors import CytorayError
from cytoray_services.access import Access
from cytoray_services.rollouts.leader import Report
from cytoray_services.telemetry import JobWatch, SeenJob, job_metrics, serving_metrics
from cytoray_services.tokens import TokenFile, tokens_path
from cytoray_serving.dispatch import Deployment, Dispatch
from cytoray_serving.front.rules import HeldBytes, Rules, own_names
from cytoray_serving.gateway import create_api
from cytoray_serving.jobs.request import JobStatus
from cytoray_serving.jobs.routes import Jobs, job_routes
from cytoray_serving.open_inference.rest import open_inference_routes
from cytoray_serving.routes import Routes, Served
from cytoray_serving.schema import UriQuestion
from cytoray_serving.service_config import ServiceConfig
from cytoray_serving.sources import job_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

_MEASURE_SECONDS = 10.0
_ANSWER_SECONDS = 5.0  # for the steward to answer


@dataclass(frozen=True)
class Assembled:
    """A gateway: its application, what is behind it, and what is asked of requests in front of it."""

    api: FastAPI
    dispatch: Dispatch
    routes: Routes
    access: Access
    rules: Rules
    metrics: CollectorRegistry


class Backstage(Jobs, Protocol):
    """What a service does once, behind all gateways; see :class:`cytoray_serving.steward.RemoteSteward`."""

    async def report(self, reports: Sequence[Report]) -> None:
        """Take what was seen of canaries and shadows."""
        ...


def assemble(
    deployments: Mapping[str, Deployment],
    backstage: Backstage,
    served: Sequence[Served],
    settings: Settings,
    config: ServiceConfig,
) -> Assembled:
    """Put a gateway together.

    Parameters
    ----------
    deployments
        Replicas by the reference that they are for, and ``shared``.
    backstage
        Leads rollouts and sees jobs through.
    served
        What has replicas of its own.
    """
    registry = CollectorRegistry()
    routes = Routes(
        settings,
        served,
        config.pipelines,
        shared=config.shared is not None,
        prepare=lambda target: deployments[target.deployment].prepare(target.reference),
    )
    dispatch = Dispatch(routes, deployments, config, serving_metrics(registry))

    async def follow() -> None:
        """Follow the registry for as long as the gateway runs."""
        while True:
            try:
                await routes.statuses()  # so that nobody's request is the first to look
                await routes.follow()
                if reports := dispatch.take_reports():
                    await backstage.report(reports)
            except CytorayError as error:
                log.warning("%s", error.message)
            except Exception:
                log.exception("following the registry failed; it is tried again")
            await asyncio.sleep(config.poll_seconds)

    bulk = JobWatch(job_metrics(registry), "bulk")

    async def measure() -> None:
        """Keep the metrics true that somebody else has to be asked for, for as long as the gateway runs."""
        while True:
            try:
                await dispatch.measure()
                await dispatch.measure_replicas()
                async with asyncio.timeout(_ANSWER_SECONDS):
                    bulk.look([_seen(status) for status in (await backstage.list()).jobs])
            except CytorayError as error:
                log.warning("some metrics are not up to date: %s", error.message)
            except TimeoutError:
                log.warning("some metrics are not up to date: nothing is heard of the jobs")
            except Exception:
                log.exception("some metrics are not up to date; it is tried again")
            await asyncio.sleep(_MEASURE_SECONDS)

    async def background() -> None:
        await asyncio.gather(follow(), measure())

    tokens = None if config.insecure_local else TokenFile(config.tokens or tokens_path(settings))
    access = Access(tokens)

    async def submit(model: str, version: str | None, asked: UriQuestion, request: Request) -> JobStatus:
        """Turn a question whose answer shall lie somewhere else into a job."""
        caller = access.check(request.headers.get("authorization"), "submit")
        steps = await routes.exact(model, version)
        if asked.segmentation is not None:
            steps = (*await routes.exact(asked.segmentation, None), *steps)
        return await backstage.submit(steps, job_of(asked), caller.name)

    may_submit = (Depends(access.require("submit")),)
    jobs = job_routes(
        backstage,
        routes.exact,
        submitter=lambda request: str(request.state.caller.name),
        submitting=may_submit,
        watching=may_submit,
    )
    protocol = open_inference_routes(
        dispatch,
        require_ready=dispatch.require_ready,
        guard=[Depends(access.require("predict"))],
    )
    api = create_api(
        dispatch,
        registry,
        config=config,
        access=access,
        submit=submit,
        routers=(jobs, protocol),
        background=background,
    )
    rules = Rules(
        access.known,
        config.limits.body_megabytes * 2**20,
        HeldBytes(config.limits.bodies_megabytes * 2**20),
        limits=config.front,
        refused=dispatch.refused,
        names=own_names(config.public_names) if config.insecure_local else None,
    )
    return Assembled(api, dispatch, routes, access, rules, registry)


def _seen(status: JobStatus) -> SeenJob:
    return SeenJob(status.id, status.state, progress=(status.items_done, status.items_failed, status.blocks_done))
