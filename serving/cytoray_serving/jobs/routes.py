"""Jobs over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from cytoray_analysis.errors import OverloadedError, RequestError
from cytoray_services.http_errors import ErrorBody
from cytoray_serving.jobs.request import JobList, JobRequest, JobStatus, event_id

_MOST_STREAMS = 256  # of events, at one gateway
Resolve = Callable[[str, str | None], Awaitable[tuple[str, ...]]]
JobId = Annotated[str, Path(min_length=1, max_length=64, description="As the answer to the submission names it.")]
ModelName = Annotated[str, Path(min_length=1, max_length=256)]


class Jobs(Protocol):
    """What the routes need of a :class:`~cytoray_serving.jobs.service.JobService`."""

    async def submit(self, steps: tuple[str, ...], request: JobRequest, owner: str) -> JobStatus:
        """Take a job."""
        ...

    async def show(self, job_id: str) -> JobStatus:
        """Return where a job stands."""
        ...

    async def list(self) -> JobList:
        """Return where all jobs stand, and which are damaged."""
        ...

    async def stop(self, job_id: str) -> JobStatus:
        """Cancel a job."""
        ...

    async def logs(self, job_id: str) -> str:
        """Return what its processes said."""
        ...

    def events(self, job_id: str) -> AsyncIterator[JobStatus]:
        """Yield where a job stands whenever that changes, until it has ended."""
        ...


def _errors(**described: str) -> dict[int | str, dict[str, Any]]:
    return {int(name.lstrip("_")): {"model": ErrorBody, "description": text} for name, text in described.items()}


_NO_JOB = _errors(_404="No such job.", _422="The request cannot be understood.", _503="The jobs are starting again.")
_SUBMITTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The job is taken.",
        "headers": {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}},
    },
    **_errors(
        _400="The request is malformed, something lies at the output already, or the models do not suit it.",
        _403="A place may not be used.",
        _404="No such model, or nothing at the input.",
        _422="The request or a model cannot be understood.",
        _503="A model or a store cannot be reached, or the jobs are starting again.",
    ),
}


def job_routes(
    service: Jobs,
    resolve: Resolve,
    *,
    submitter: Callable[[Request], str] = lambda request: "",
    submitting: tuple[Any, ...] = (),
    watching: tuple[Any, ...] = (),
) -> APIRouter:
    """Make the routes of jobs.

    Parameters
    ----------
    service
        What takes and runs them.
    resolve
        Turns a model (or pipeline) of an address, and the version in it, into exact references, in order.
    submitter
        Says who asks.
    submitting, watching
        Dependencies (``Depends(…)``) of the routes that start and stop jobs, and of those that show them: they refuse
        callers without the scope.
    """
    router = APIRouter(tags=["jobs"])

    async def submit(
        model: str, version: str | None, job: JobRequest, request: Request, response: Response
    ) -> JobStatus:
        steps = await resolve(model, version)
        if job.segmentation is not None:
            steps = (*await resolve(job.segmentation, None), *steps)
            if job.masks is not None or job.boxes is not None:
                raise RequestError(
                    "expected masks, boxes or a segmentation, got more than one",
                    field="segmentation",
                    hint="each of them says where the objects are",
                )
        status = await service.submit(steps, job, submitter(request))
        response.headers["Location"] = f"/jobs/{status.id}"
        return status

    @router.post("/models/{model}/jobs", status_code=202, responses=_SUBMITTED, dependencies=list(submitting))
    async def submit_job(model: ModelName, job: JobRequest, request: Request, response: Response) -> JobStatus:
        """Answer images that are too many or too large for a request, from a URI to a URI."""
        return await submit(model, None, job, request, response)

    @router.post(
        "/models/{model}/versions/{version}/jobs",
        status_code=202,
        responses=_SUBMITTED,
        dependencies=list(submitting),
    )
    async def submit_job_to_version(
        model: ModelName,
        version: Annotated[str, Path(min_length=1, max_length=64, description="Version in the registry.")],
        job: JobRequest,
        request: Request,
        response: Response,
    ) -> JobStatus:
        """Answer images with one version of a model."""
        return await submit(model, version, job, request, response)

    @router.get("/jobs", responses=_errors(_503="The jobs are starting again."), dependencies=list(watching))
    async def list_jobs() -> JobList:
        """List all jobs, the newest first, and those whose record is damaged."""
        return await service.list()

    @router.get("/jobs/{job_id}", responses=_NO_JOB, dependencies=list(watching))
    async def show_job(job_id: JobId) -> JobStatus:
        """Show where a job stands."""
        return await service.show(job_id)

    @router.delete("/jobs/{job_id}", responses=_NO_JOB, dependencies=list(submitting))
    async def stop_job(job_id: JobId) -> JobStatus:
        """Cancel a job: what is finished stays; a job that has ended stays as it is."""
        return await service.stop(job_id)

    @router.get("/jobs/{job_id}/log", response_class=PlainTextResponse, responses=_NO_JOB, dependencies=list(watching))
    async def job_log(job_id: JobId) -> str:
        """Give what the processes of a job said, the last megabyte of it."""
        return await service.logs(job_id)

    async def known(job_id: JobId) -> JobStatus:
        # Asked before the stream begins, while the answer can still be an error.
        return await service.show(job_id)

    streams = 0

    async def room() -> AsyncIterator[None]:
        nonlocal streams
        if streams >= _MOST_STREAMS:
            raise OverloadedError(
                f"expected at most {_MOST_STREAMS} jobs to be followed at a time, got one more",
                hint="ask GET /jobs/{job_id} now and then, or try again later",
            )
        streams += 1
        try:
            yield
        finally:
            streams -= 1

    @router.get(
        "/jobs/{job_id}/events",
        response_class=EventSourceResponse,
        responses=_NO_JOB | _errors(_429="As many are followed as may be."),
        dependencies=[*watching, Depends(known), Depends(room)],
    )
    async def job_events(
        job_id: JobId,
        last_event_id: Annotated[str | None, Header(max_length=64)] = None,
    ) -> AsyncIterator[ServerSentEvent]:
        """Tell where a job stands whenever that changes, until it has ended.

        Events are named after the state and carry the status; a caller that comes back with `Last-Event-ID` is told
        only what is new.
        """
        async for one in service.events(job_id):
            number = event_id(one)
            if number != last_event_id or one.has_ended:
                yield ServerSentEvent(data=one, event=one.state, id=number)

    return router
