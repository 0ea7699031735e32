"""The HTTP routes of jobs, which write and read their folders."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from cytoray_analysis.errors import JobNotFoundError, OverloadedError, RequestError
from cytoray_services.http.errors import ErrorBody
from cytoray_services.tokens.access import Caller
from cytoray_serving.jobs.request import JobList, JobRequest, JobStatus, event_id
from cytoray_serving.jobs.store import JobStore

_MOST_STREAMS = 256  # event streams at one gateway; a quarter of them for one caller
_LOOK_SECONDS = 0.5
Resolve = Callable[[Caller, str, str | None], Awaitable[tuple[str, ...]]]
Take = Callable[[tuple[str, ...], JobRequest, Caller], JobStatus]
JobId = Annotated[str, Path(min_length=1, max_length=64, description="ID, from the response to the submission.")]
ModelName = Annotated[str, Path(min_length=1, max_length=256)]


def _errors(**described: str) -> dict[int | str, dict[str, Any]]:
    return {int(name.lstrip("_")): {"model": ErrorBody, "description": text} for name, text in described.items()}


_NO_JOB = _errors(_404="No such job.", _422="The request cannot be understood.", _503="A record cannot be read.")
_SUBMITTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The job is accepted.",
        "headers": {"Location": {"description": "Address of the job.", "schema": {"type": "string"}}},
    },
    **_errors(
        _400="The request is malformed, the output is not empty, or the models do not match the request.",
        _403="A location is not allowed.",
        _404="No such model, or no file at the input.",
        _422="The request or a model cannot be understood.",
        _503="A model or a store cannot be reached, or the job cannot be saved.",
    ),
}


def job_routes(
    store: JobStore,
    take: Take,
    resolve: Resolve,
    *,
    submitting: tuple[Any, ...] = (),
    watching: tuple[Any, ...] = (),
) -> APIRouter:
    """Create the routes of jobs.

    Parameters
    ----------
    store
        Store of the jobs.
    take
        Checks and saves a job; see :meth:`cytoray_serving.jobs.taking.JobTaker.take`.
    resolve
        Returns the exact references, in order, of a model (or pipeline) and version in an address; raises if the
        caller may not use it.
    submitting, watching
        Dependencies (``Depends(…)``) of the routes that start and stop jobs, and of those that show them: they refuse
        callers without the scope, and store the caller in ``request.state.caller``.
    """
    router = APIRouter(tags=["jobs"])

    async def submit(
        model: str, version: str | None, job: JobRequest, request: Request, response: Response
    ) -> JobStatus:
        who: Caller = request.state.caller
        steps = await resolve(who, model, version)
        if job.segmentation is not None:
            steps = (*await resolve(who, job.segmentation, None), *steps)
            if job.masks is not None or job.boxes is not None:
                raise RequestError(
                    "expected masks, boxes or a segmentation, got more than one",
                    field="segmentation",
                    hint="each of them gives the objects: keep one",
                )
        status = await asyncio.to_thread(take, steps, job, who)
        response.headers["Location"] = f"/jobs/{status.id}"
        return status

    async def known(job_id: JobId, request: Request) -> JobStatus:
        """Return a job; for a job that the caller may not see, the error is the same as for none."""
        found: JobStatus | None = None
        with contextlib.suppress(JobNotFoundError):
            found = await asyncio.to_thread(lambda: store.find(job_id).state())
        if found is None or not request.state.caller.sees(found.owner, found.team):
            raise JobNotFoundError(
                f"there is no job {job_id!r}", field="id", hint="use GET /jobs or cytoray jobs list to list all"
            )
        return found

    @router.post("/models/{model}/jobs", status_code=202, responses=_SUBMITTED, dependencies=list(submitting))
    async def submit_job(model: ModelName, job: JobRequest, request: Request, response: Response) -> JobStatus:
        """Predict many or large images, from a URI to a URI."""
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
        """Predict many or large images with one version of a model."""
        return await submit(model, version, job, request, response)

    @router.get("/jobs", responses=_errors(_503="A record cannot be read."), dependencies=list(watching))
    async def list_jobs(request: Request) -> JobList:
        """List the jobs of the caller and of the caller's teams, newest first.

        With the scope `administer`, list all jobs, including damaged ones.
        """
        who, found = request.state.caller, await asyncio.to_thread(store.states)
        seen = [job for job in found.jobs if who.sees(job.owner, job.team)]
        return JobList(jobs=seen, damaged=found.damaged if who.administers else [])

    @router.get("/jobs/{job_id}", responses=_NO_JOB, dependencies=list(watching))
    async def show_job(job_id: JobId, request: Request) -> JobStatus:
        """Show the status of a job."""
        return await known(job_id, request)

    @router.delete("/jobs/{job_id}", responses=_NO_JOB, dependencies=list(submitting))
    async def stop_job(job_id: JobId, request: Request) -> JobStatus:
        """Cancel a job. Finished answers are kept; a job that has ended is unchanged."""
        folder = store.find((await known(job_id, request)).id)
        return await asyncio.to_thread(folder.stop)

    @router.get("/jobs/{job_id}/log", response_class=PlainTextResponse, responses=_NO_JOB, dependencies=list(watching))
    async def job_log(job_id: JobId, request: Request) -> str:
        """Return the last megabyte of the log of a job."""
        folder = store.find((await known(job_id, request)).id)
        return await asyncio.to_thread(folder.log_text)

    streams: Counter[str] = Counter()

    async def room(request: Request) -> AsyncIterator[None]:
        who: Caller = request.state.caller
        own = _MOST_STREAMS if who.administers else max(1, _MOST_STREAMS // 4)
        for most, now, whose in (
            (_MOST_STREAMS, streams.total(), "at a time"),
            (own, streams[who.name], f"by the caller {who.name}"),
        ):
            if now >= most:
                raise OverloadedError(
                    f"expected at most {most} event streams {whose}, got one more",
                    field="caller",
                    hint="poll GET /jobs/{job_id}, or try again later",
                )
        streams[who.name] += 1
        try:
            yield
        finally:
            streams[who.name] -= 1
            if not streams[who.name]:
                del streams[who.name]

    @router.get(
        "/jobs/{job_id}/events",
        response_class=EventSourceResponse,
        responses=_NO_JOB | _errors(_429="Too many event streams."),
        # The job is checked before the stream begins, while the response can still be an error.
        dependencies=[*watching, Depends(known), Depends(room)],
    )
    async def job_events(
        job_id: JobId,
        last_event_id: Annotated[str | None, Header(max_length=64)] = None,
    ) -> AsyncIterator[ServerSentEvent]:
        """Send the status of a job after each change, until it has ended.

        Events have the name of the state and contain the status; a caller that reconnects with `Last-Event-ID` gets
        only new events.
        """
        async for one in _states(store, job_id):
            number = event_id(one)
            if number != last_event_id or one.has_ended:
                yield ServerSentEvent(data=one, event=one.state, id=number)

    return router


async def _states(store: JobStore, job_id: str) -> AsyncIterator[JobStatus]:
    """Yield the status of a job, now and after each change, until it has ended."""
    folder, last = store.find(job_id), None
    while last is None or not last.has_ended:
        status = await asyncio.to_thread(folder.state)
        if status != last:
            last = status
            yield status
        await asyncio.sleep(_LOOK_SECONDS)
