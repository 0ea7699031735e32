"""The HTTP API of the jobs service: permissions, quotas and the audit trail."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from cytoray_analysis.errors import CytorayError, ForbiddenError, JobNotFoundError
from cytoray_services.http.api import begin_api
from cytoray_services.http.errors import ErrorBody, invalid_request
from cytoray_services.http.head import HeadAsGet
from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.job import Job, State
from cytoray_services.jobs.service.audit import Act, Audit, Beginnings, Outcome, Refusals, What, now
from cytoray_services.jobs.service.config import JobsServiceConfig
from cytoray_services.jobs.service.door import counted
from cytoray_services.jobs.service.quotas import require_own_room, require_quota
from cytoray_services.jobs.service.schema import Checked, JobList, JobRequest, Ready
from cytoray_services.jobs.service.shown_manifest import shown
from cytoray_services.jobs.service.streams import Followers
from cytoray_services.jobs.service.team_data import own_data
from cytoray_services.jobs.service.watch import Watch
from cytoray_services.jobs.submission import Submission, read_submission
from cytoray_services.tokens.access import Access, Caller

_ACTS: dict[str, What] = {"POST": "submit", "DELETE": "stop"}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "Data or a scale that the cluster cannot use, or a body too large."},
    401: {"model": ErrorBody, "description": "No token, or an invalid token."},
    403: {"model": ErrorBody, "description": "The token lacks the scope, or the job is larger than the quota."},
    404: {"model": ErrorBody, "description": "No such job, or none of the caller or the caller's teams."},
    408: {"model": ErrorBody, "description": "The body was sent too slowly."},
    422: {"model": ErrorBody, "description": "The recipe, or the request, is wrong; the message names the field."},
    429: {
        "model": ErrorBody,
        "description": "The quota or the limit of the caller is used up; Retry-After gives the seconds until a retry.",
    },
    503: {"model": ErrorBody, "description": "The cluster does not answer, or the audit trail cannot be written."},
}
_LOG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The log of the job."}
}


def create_jobs_api(
    backend: JobBackend, config: JobsServiceConfig, *, access: Access, registry: CollectorRegistry
) -> FastAPI:
    """Build the HTTP application.

    Parameters
    ----------
    backend
        Backend of the jobs.
    config
        Configuration of the service.
    access
        The access rules.
    registry
        Registry of the metrics.
    """
    audit, followers = Audit(config.audit), Followers(config.followers)
    watch = Watch(backend, registry, config.look_seconds)

    api = begin_api("Cytoray jobs", "Accepts recipes and runs them on a cluster.", registry, background=watch.run)
    api.add_middleware(HeadAsGet)
    _add_readiness(api, config, watch)
    may_submit = [Depends(access.require("submit"))]
    route = _guarded_route(access, config, audit)
    _add_questions(
        APIRouter(tags=["jobs"], dependencies=may_submit, route_class=route), api, backend, watch, config, followers
    )
    _add_acts(APIRouter(tags=["jobs"], dependencies=may_submit, route_class=route), api, backend, config, audit)
    return api


def _add_questions(
    router: APIRouter, api: FastAPI, backend: JobBackend, watch: Watch, config: JobsServiceConfig, followers: Followers
) -> None:
    """Add the read-only routes."""

    @router.get("/jobs", responses=_only(401, 403, 422, 503))
    async def list_jobs(
        request: Request,
        state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
        team: Annotated[str | None, Query(description="Only jobs of this team.")] = None,
    ) -> JobList:
        """List the jobs of the caller and of the caller's teams, newest first; with the scope `administer` all jobs."""
        jobs = await asyncio.to_thread(backend.list)
        seen = [job for job in jobs if request.state.caller.sees(job.owner, job.team)]
        wanted = [job for job in seen if state in (None, job.state) and team in (None, job.team)]
        return JobList(jobs=[watch.with_progress(job) for job in wanted])

    @router.post("/jobs/check", responses=_only(400, 401, 403, 408, 422, 503))
    async def check(request: Request, asked: JobRequest) -> Checked:
        """Validate a whole recipe, and return what would be submitted to the cluster."""
        caller: Caller = request.state.caller
        team = _team(caller, asked.team, config)
        submission = await asyncio.to_thread(_read, asked, caller, team, config)
        manifest = await asyncio.to_thread(backend.manifest, submission, owner=caller.name, team=team)
        return Checked(name=submission.name, command=submission.command, manifest=shown(manifest))

    @router.get("/jobs/{job_id}", responses=_only(401, 403, 404, 422, 503))
    async def show(request: Request, job_id: str) -> Job:
        """Show the status of a job."""
        return watch.with_progress(await _find(backend, request.state.caller, job_id))

    @router.get(
        "/jobs/{job_id}/log",
        response_class=StreamingResponse,
        responses={**_LOG, **_only(401, 403, 404, 422, 429, 503)},
    )
    async def log(
        request: Request,
        job_id: str,
        follow: Annotated[bool, Query(description="Continue until the job has ended.")] = False,
    ) -> StreamingResponse:
        """Return the log of a job as a stream."""
        await _find(backend, request.state.caller, job_id)
        pieces = followers.follow(backend.logs(job_id, follow=follow), request.state.caller.name)
        return StreamingResponse(pieces, media_type="text/plain; charset=utf-8")

    api.include_router(router)


def _add_acts(router: APIRouter, api: FastAPI, backend: JobBackend, config: JobsServiceConfig, audit: Audit) -> None:
    """Add the routes with two lines in the audit trail: one at the start of the act, one with its outcome."""
    one_at_a_time = asyncio.Lock()  # between the check of the quota and the start of the job
    beginnings = Beginnings(config.acts_a_minute)

    async def begin(request: Request) -> None:
        beginnings.admit(request.state.caller.name)
        await asyncio.to_thread(audit.append, _act(request, "begun"))
        request.state.begun = True

    @router.post("/jobs", status_code=201, responses=_only(400, 401, 403, 408, 422, 429, 503))
    async def submit(request: Request, response: Response, asked: JobRequest) -> Job:
        """Start a job."""
        caller: Caller = request.state.caller
        request.state.recipe = hashlib.sha256(asked.recipe.encode("utf-8", "surrogatepass")).hexdigest()
        team = request.state.team = _team(caller, asked.team, config)
        submission = await asyncio.to_thread(_read, asked, caller, team, config)
        async with one_at_a_time:
            most = None if caller.administers else config.per_caller
            quota = None if team is None else config.teams.get(team)
            if most is not None or quota is not None:
                jobs = await asyncio.to_thread(backend.list)
                if most is not None:
                    require_own_room(caller.name, most, jobs)
                if team is not None and quota is not None:
                    require_quota(team, quota, jobs, submission.scale)
            request.state.job = submission.id
            await begin(request)
            job = await asyncio.to_thread(backend.submit, submission, owner=caller.name, team=team)
        response.headers["Location"] = f"/jobs/{job.id}"
        return job

    @router.delete("/jobs/{job_id}", responses=_only(401, 403, 404, 422, 429, 503))
    async def stop(request: Request, job_id: str) -> Job:
        """Cancel a job; a job that has ended is unchanged."""
        request.state.job = job_id
        job = await _find(backend, request.state.caller, job_id)
        request.state.team = job.team
        if job.has_ended:
            return job
        await begin(request)
        return await asyncio.to_thread(backend.stop, job_id)

    api.include_router(router)


def _add_readiness(api: FastAPI, config: JobsServiceConfig, watch: Watch) -> None:
    @api.get("/health/ready", tags=["health"], responses=_only(503))
    async def ready() -> Ready:
        """Report that the cluster answers."""
        watch.require_answer()
        return Ready(place=config.place)


def _guarded_route(access: Access, config: JobsServiceConfig, audit: Audit) -> type[APIRoute]:
    """Return routes that check the token before a body is read, and record every act, including refused ones."""
    refusals = Refusals()

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                try:
                    request.state.caller = access.check(request.headers.get("authorization"), "submit")
                    most, declared = int(config.recipe_megabytes * 2**20), request.headers.get("content-length")
                    coding = request.headers.get("content-encoding")
                    request = Request(request.scope, counted(request.receive, most, declared, coding))
                    await request.body()
                    response = await answer(request)
                except Exception as error:
                    await written(request, error)
                    raise
                await written(request, None)
                return response

            async def written(request: Request, error: Exception | None) -> None:
                if request.method in _ACTS and not self.path.endswith("/check"):
                    act = refusals.admit(_ended(request, error))
                    if act is not None:
                        await asyncio.to_thread(audit.append, act)

            return guarded

    return Guarded


def _ended(request: Request, error: Exception | None) -> Act:
    """Return the outcome of an act; an act that never began counts as refused."""
    begun = getattr(request.state, "begun", False)
    if error is None:
        return _act(request, "done") if begun else _act(request, "refused", "the job has ended already")
    cause = invalid_request(error) if isinstance(error, RequestValidationError) else error
    reason = cause.message if isinstance(cause, CytorayError) else type(cause).__name__
    return _act(request, "failed" if begun else "refused", reason)


def _act(request: Request, outcome: Outcome, reason: str | None = None) -> Act:
    state = request.state
    caller: Caller | None = getattr(state, "caller", None)
    job = getattr(state, "job", request.path_params.get("job_id"))
    return Act(
        when=now(),
        who=None if caller is None else caller.name,
        token=None if caller is None else caller.token,
        team=getattr(state, "team", None if caller is None else caller.team),
        address=None if request.client is None else request.client.host,
        what=_ACTS[request.method],
        job=None if job is None else _plain(job, 100),
        recipe=getattr(state, "recipe", None),
        outcome=outcome,
        reason=None if reason is None else _plain(reason, 500),
    )


def _plain(text: str, longest: int) -> str:
    """Return text that is valid in JSON; a request may contain half a character."""
    return text[:longest].encode("utf-8", "replace").decode()


def _read(asked: JobRequest, caller: Caller, team: str | None, config: JobsServiceConfig) -> Submission:
    """Validate a recipe; refuse choices that require the scope administer, and data of other teams.

    The job itself reads only the checked locations: manifests and links are resolved only there.
    """
    submission = read_submission(asked.recipe, asked.overrides, command=asked.command)
    if caller.administers:
        return submission
    config.choices.require(submission.scale)
    within = own_data(team, submission.data, config.teams)
    if within is None:
        return submission
    return read_submission(
        submission.recipe, [f"data.within={json.dumps(within, ensure_ascii=False)}"], command=asked.command
    )


async def _find(backend: JobBackend, caller: Caller, job_id: str) -> Job:
    """Return a job; for a job of another team, the error is the same as for none."""
    found: Job | None = None
    with contextlib.suppress(JobNotFoundError):
        found = await asyncio.to_thread(backend.show, job_id)
    if found is None or not caller.sees(found.owner, found.team):
        raise JobNotFoundError(f"expected the id of a job, got {job_id!r}", field="id", hint="GET /jobs lists them")
    return found


def _team(caller: Caller, wanted: str | None, config: JobsServiceConfig) -> str | None:
    """Return the team of a job."""
    team = caller.team_for(wanted)
    if config.teams and team not in config.teams and not (team is None and caller.administers):
        raise ForbiddenError(
            f"expected a token of a team with a quota, got one of {team or 'no team'}",
            field="team",
            hint="ask the operator for a token of a team: cytoray tokens create NAME --team TEAM --scope submit",
        )
    return team


def _only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _REFUSALS[status] for status in statuses}
