"""The HTTP face of the jobs service: who may do what, within which quota, and what is written down of it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from cytoray_analysis.errors import (
    CytorayError,
    ForbiddenError,
    InputError,
    JobNotFoundError,
    OverloadedError,
    RequestError,
)
from cytoray_services.access import Access, Caller
from cytoray_services.http_api import begin_api
from cytoray_services.http_errors import ErrorBody, invalid_request
from cytoray_services.jobs.job import Job, State
from cytoray_services.jobs.place import Place
from cytoray_services.jobs.service.audit import Act, Audit, Outcome, Refusals, What, now
from cytoray_services.jobs.service.config import JobsServiceConfig
from cytoray_services.jobs.service.quotas import require_quota
from cytoray_services.jobs.service.schema import Checked, JobList, JobRequest, Ready
from cytoray_services.jobs.service.streams import Followers
from cytoray_services.jobs.service.watch import Watch
from cytoray_services.jobs.submission import Submission, read_submission

_ACTS: dict[str, What] = {"POST": "submit", "DELETE": "stop"}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "Data or a scale that the cluster cannot use, or a body too large."},
    401: {"model": ErrorBody, "description": "No token, or one that is not valid."},
    403: {"model": ErrorBody, "description": "The token lacks the scope, or the job is larger than the quota."},
    404: {"model": ErrorBody, "description": "No such job, or none of this team."},
    422: {"model": ErrorBody, "description": "The recipe, or the request, is wrong; the message names the field."},
    429: {"model": ErrorBody, "description": "The quota is used up; Retry-After says when to come again."},
    503: {"model": ErrorBody, "description": "The cluster does not answer, or the audit trail cannot be written."},
}
_LOG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "What the job has printed."}
}


def create_jobs_api(place: Place, config: JobsServiceConfig, *, access: Access, registry: CollectorRegistry) -> FastAPI:
    """Build the HTTP application.

    Parameters
    ----------
    place
        Where jobs run.
    config
        What the operator has decided.
    access
        Who may ask.
    registry
        Of the metrics.
    """
    audit, followers = Audit(config.audit), Followers(config.followers)
    watch = Watch(place, registry, config.look_seconds)

    api = begin_api("Cytoray jobs", "Recipes in, trainings on a cluster.", registry, background=watch.run)
    _add_readiness(api, config, watch)
    may_submit = [Depends(access.require("submit"))]
    route = _guarded_route(access, config, audit)
    _add_questions(APIRouter(tags=["jobs"], dependencies=may_submit, route_class=route), api, place, config, followers)
    _add_acts(APIRouter(tags=["jobs"], dependencies=may_submit, route_class=route), api, place, config, audit)
    return api


def _add_questions(
    router: APIRouter, api: FastAPI, place: Place, config: JobsServiceConfig, followers: Followers
) -> None:
    """Add what changes nothing."""

    @router.get("/jobs", responses=_only(401, 403, 422, 503))
    async def list_jobs(
        request: Request,
        state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
        team: Annotated[str | None, Query(description="Only jobs of this team.")] = None,
    ) -> JobList:
        """List the jobs of the caller's team, the newest first; who administers sees those of all."""
        jobs = await asyncio.to_thread(place.list)
        seen = [job for job in jobs if _sees(request.state.caller, job)]
        return JobList(jobs=[job for job in seen if state in (None, job.state) and team in (None, job.team)])

    @router.post("/jobs/check", responses=_only(400, 401, 403, 422, 503))
    async def check(request: Request, asked: JobRequest) -> Checked:
        """Check a recipe whole, and say what would be sent to the cluster."""
        caller: Caller = request.state.caller
        team = _team(caller, asked.team, config)
        submission = await asyncio.to_thread(_read, asked)
        _require_choices(caller, submission, config)
        manifest = await asyncio.to_thread(place.manifest, submission, owner=caller.name, team=team)
        return Checked(name=submission.name, command=submission.command, manifest=manifest)

    @router.get("/jobs/{job_id}", responses=_only(401, 403, 404, 422, 503))
    async def show(request: Request, job_id: str) -> Job:
        """Say where a job stands."""
        return await _find(place, request.state.caller, job_id)

    @router.get(
        "/jobs/{job_id}/log",
        response_class=StreamingResponse,
        responses={**_LOG, **_only(401, 403, 404, 422, 429, 503)},
    )
    async def log(
        request: Request,
        job_id: str,
        follow: Annotated[bool, Query(description="Go on until the job has ended.")] = False,
    ) -> StreamingResponse:
        """Give what a job has printed, as it comes."""
        await _find(place, request.state.caller, job_id)
        pieces = followers.follow(place.logs(job_id, follow=follow))
        return StreamingResponse(pieces, media_type="text/plain; charset=utf-8")

    api.include_router(router)


def _add_acts(router: APIRouter, api: FastAPI, place: Place, config: JobsServiceConfig, audit: Audit) -> None:
    """Add what changes something, and leaves two lines in the trail: that it begins, and what came of it."""
    one_at_a_time = asyncio.Lock()  # between the look at the quota and the job that uses it up

    @router.post("/jobs", status_code=201, responses=_only(400, 401, 403, 422, 429, 503))
    async def submit(request: Request, response: Response, asked: JobRequest) -> Job:
        """Start a job."""
        caller: Caller = request.state.caller
        request.state.recipe = hashlib.sha256(asked.recipe.encode("utf-8", "surrogatepass")).hexdigest()
        team = request.state.team = _team(caller, asked.team, config)
        submission = await asyncio.to_thread(_read, asked)
        _require_choices(caller, submission, config)
        async with one_at_a_time:
            if team is not None and team in config.teams:
                jobs = await asyncio.to_thread(place.list)
                require_quota(team, config.teams[team], jobs, submission.scale)
            request.state.job = submission.id
            await asyncio.to_thread(audit.append, _act(request, "begun"))
            request.state.begun = True
            job = await asyncio.to_thread(place.submit, submission, owner=caller.name, team=team)
        response.headers["Location"] = f"/jobs/{job.id}"
        return job

    @router.delete("/jobs/{job_id}", responses=_only(401, 403, 404, 422, 503))
    async def stop(request: Request, job_id: str) -> Job:
        """Cancel a job; one that has ended stays as it is."""
        request.state.job = job_id
        job = await _find(place, request.state.caller, job_id)
        request.state.team = job.team
        await asyncio.to_thread(audit.append, _act(request, "begun"))
        request.state.begun = True
        return await asyncio.to_thread(place.stop, job_id)

    api.include_router(router)


def _add_readiness(api: FastAPI, config: JobsServiceConfig, watch: Watch) -> None:
    @api.get("/health/ready", tags=["health"], responses=_only(503))
    async def ready() -> Ready:
        """Say that the cluster answers."""
        watch.require_answer()
        return Ready(place=config.place)


def _guarded_route(access: Access, config: JobsServiceConfig, audit: Audit) -> type[APIRoute]:
    """Return routes that ask who it is before a body is read, and write down every act, refused ones too."""
    refusals = Refusals()

    class Guarded(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                try:
                    request.state.caller = access.check(request.headers.get("authorization"), "submit")
                    _require_length(request, int(config.recipe_megabytes * 2**20))
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
    """Return what came of an act."""
    told = invalid_request(error) if isinstance(error, RequestValidationError) else error
    if told is None:
        return _act(request, "done")
    untouched = isinstance(told, InputError | OverloadedError) and not getattr(request.state, "begun", False)
    reason = told.message if isinstance(told, CytorayError) else type(told).__name__
    return _act(request, "refused" if untouched else "failed", reason)


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
    """Return text that JSON can say; a request may hold half a character."""
    return text[:longest].encode("utf-8", "replace").decode()


def _read(asked: JobRequest) -> Submission:
    return read_submission(asked.recipe, asked.overrides, command=asked.command)


def _require_choices(caller: Caller, submission: Submission, config: JobsServiceConfig) -> None:
    """Refuse what only who administers may choose of the cluster."""
    if not caller.administers:
        config.choices.require(submission.scale)


async def _find(place: Place, caller: Caller, job_id: str) -> Job:
    """Return a job; one of another team is told from none at all by nobody."""
    found: Job | None = None
    with contextlib.suppress(JobNotFoundError):
        found = await asyncio.to_thread(place.show, job_id)
    if found is None or not _sees(caller, found):
        raise JobNotFoundError(f"expected the id of a job, got {job_id!r}", field="id", hint="GET /jobs lists them")
    return found


def _sees(caller: Caller, job: Job) -> bool:
    return caller.administers or caller.team == job.team


def _team(caller: Caller, wanted: str | None, config: JobsServiceConfig) -> str | None:
    """Return for whom a job is."""
    team = wanted or caller.team
    if team != caller.team and not caller.administers:
        raise ForbiddenError(
            f"expected a token of the team {team}, got one of {caller.team or 'no team'}",
            field="team",
            hint="leave the team out",
        )
    if config.teams and team not in config.teams and not (team is None and caller.administers):
        raise ForbiddenError(
            f"expected a token of a team with a quota, got one of {team or 'no team'}",
            field="team",
            hint="ask the operator for a token of a team: cytoray tokens create NAME --team TEAM --scope submit",
        )
    return team


def _require_length(request: Request, most: int) -> None:
    """Refuse bodies that are too large before they are read."""
    if request.method != "POST":
        return
    declared = request.headers.get("content-length", "")
    if not declared.isdigit():
        raise RequestError("expected the header Content-Length, got none", field="Content-Length")
    if len(declared) > 15 or int(declared) > most:
        raise RequestError(f"expected at most {most} bytes, got {declared[:20]}", field="Content-Length")


def _only(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _REFUSALS[status] for status in statuses}
