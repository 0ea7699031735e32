"""What a service does once, however many gateways it has: it leads rollouts and sees jobs through."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cytoray_analysis.errors import CytorayError, PlatformError
from cytoray_services.registry import Registry, parse_reference
from cytoray_services.rollouts.leader import Report, RolloutKeeper
from cytoray_serving.jobs.request import JobList, JobRequest, JobStatus
from cytoray_serving.jobs.service import JobService
from cytoray_serving.routes import Served
from cytoray_serving.service_config import ServiceConfig

if TYPE_CHECKING:
    from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

_LEAD_SECONDS = 2.0
_LOOK_SECONDS = 0.5


class Steward:
    """A process of its own, of which there is one.

    Parameters
    ----------
    served
        What has replicas of its own.
    """

    def __init__(self, served: Sequence[Served], settings: Settings, config: ServiceConfig) -> None:
        import ray

        names = {parse_reference(one.reference).name for one in served if one.registered}
        self._keeper = RolloutKeeper(Registry.open(settings), names)
        self._jobs = JobService(
            settings.home / "jobs",
            settings,
            config.allowed,
            ray.get_runtime_context().gcs_address,
            workers=config.jobs.workers,
            at_once=config.jobs.at_once,
            options=config.jobs.run,
            cpus_per_worker=config.jobs.needs.cpus,
            gpus_per_worker=config.jobs.needs.gpus or 0.0,
        )
        self._jobs.start()
        threading.Thread(target=self._lead, name="rollouts", daemon=True).start()

    async def report(self, reports: Sequence[Report]) -> None:
        """Take what a gateway saw of canaries, shadows and traffic."""
        self._keeper.observe_many(reports)

    async def submit(self, steps: tuple[str, ...], request: JobRequest, owner: str) -> JobStatus | CytorayError:
        """Take a job."""
        return await _value(self._jobs.submit(steps, request, owner))  # type: ignore[no-any-return]

    async def show(self, job_id: str) -> JobStatus | CytorayError:
        """Return where a job stands."""
        return await _value(self._jobs.show(job_id))  # type: ignore[no-any-return]

    async def list_jobs(self) -> JobList | CytorayError:
        """Return where all jobs stand."""
        return await _value(self._jobs.list())  # type: ignore[no-any-return]

    async def stop(self, job_id: str) -> JobStatus | CytorayError:
        """Cancel a job."""
        return await _value(self._jobs.stop(job_id))  # type: ignore[no-any-return]

    async def logs(self, job_id: str) -> str | CytorayError:
        """Return what the processes of a job said."""
        return await _value(self._jobs.logs(job_id))  # type: ignore[no-any-return]

    def _lead(self) -> None:
        pause = threading.Event()
        while not pause.wait(_LEAD_SECONDS):
            try:
                self._keeper.step(datetime.now(UTC))
            except Exception:
                log.exception("leading the rollouts failed; it is tried again")


class RemoteSteward:
    """The steward behind a Ray Serve handle, as gateways call it; jobs as their routes need them."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def report(self, reports: Sequence[Report]) -> None:
        """Hand over what was seen of canaries, shadows and traffic."""
        await _asked(self._handle.report.remote(list(reports)))

    async def submit(self, steps: tuple[str, ...], request: JobRequest, owner: str) -> JobStatus:
        """Take a job."""
        return await _asked(self._handle.submit.remote(steps, request, owner))  # type: ignore[no-any-return]

    async def show(self, job_id: str) -> JobStatus:
        """Return where a job stands."""
        return await _asked(self._handle.show.remote(job_id))  # type: ignore[no-any-return]

    async def list(self) -> JobList:
        """Return where all jobs stand."""
        return await _asked(self._handle.list_jobs.remote())  # type: ignore[no-any-return]

    async def stop(self, job_id: str) -> JobStatus:
        """Cancel a job."""
        return await _asked(self._handle.stop.remote(job_id))  # type: ignore[no-any-return]

    async def logs(self, job_id: str) -> str:
        """Return what the processes of a job said."""
        return await _asked(self._handle.logs.remote(job_id))  # type: ignore[no-any-return]

    async def events(self, job_id: str) -> AsyncIterator[JobStatus]:
        """Yield where a job stands, now and whenever that changes, until it has ended."""
        told = None
        while told is None or not told.has_ended:
            status = await self.show(job_id)
            if status != told:
                told = status
                yield status
            await asyncio.sleep(_LOOK_SECONDS)


async def _value(work: Any) -> Any:
    """Wait, and return errors of callers as values: they are nothing of the process's."""
    try:
        return await work
    except CytorayError as error:
        return error


async def _asked(response: Any) -> Any:
    from grpc import RpcError  # type: ignore[import-untyped]
    from ray.exceptions import RayActorError
    from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

    try:
        found = await response
    except (RayActorError, DeploymentUnavailableError, BackPressureError, RpcError) as error:
        raise PlatformError("the jobs are starting again", hint="try again in a few seconds") from error
    if isinstance(found, CytorayError):
        raise found
    return found
