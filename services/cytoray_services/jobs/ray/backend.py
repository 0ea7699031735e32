"""Jobs of Ray clusters; the only module that uses Ray's job API."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from cytoray_analysis.errors import (
    CytorayError,
    JobNotFoundError,
    PlatformError,
    RequestError,
)
from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.history import ID, JobHistory, said_last
from cytoray_services.jobs.job import Job, State
from cytoray_services.jobs.progress import training_progress
from cytoray_services.jobs.ray.local import LocalCluster, LocalRay
from cytoray_services.jobs.ray.logs import followed
from cytoray_services.jobs.ray.refusals import refused, require_absolute, require_reachable, require_same_ray, unknown
from cytoray_services.jobs.scale import Scale
from cytoray_services.jobs.submission import AnySubmission, Submission, recipe_of
from cytoray_services.settings import Settings

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

LOCAL = "local"
RECIPE = "recipe.yaml"
# Metadata of a job, with the same names as on Kubernetes.
_MODEL, _COMMAND, _OWNER, _TEAM, _SCALE = (
    f"cytoray.io/{name}" for name in ("model", "command", "owner", "team", "scale")
)
_STATES: dict[str, State] = {
    "PENDING": "queued",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "FAILED": "failed",
    "STOPPED": "cancelled",
}
_PACKAGES = ("cytoray_analysis", "cytoray_services", "cytoray_training", "cytoray_serving")
_STOP_SECONDS = 15.0


def open_ray(on: str, settings: Settings, *, code: bool = False) -> RayBackend:
    """Return the jobs of a Ray cluster.

    Parameters
    ----------
    on
        ``local``, ``http(s)://HOST:8265`` or ``ray://HOST:10001``. No request is made yet, and ``local`` starts
        nothing before a job is submitted.
    code
        Whether the packages of this installation are sent with each job; on this machine they are installed already.

    Raises
    ------
    RequestError
        It is not an address.
    """
    try:
        named = on == LOCAL or (urlsplit(on).hostname is not None and urlsplit(on).port != 0)
    except ValueError:
        named = False
    if not named:
        raise RequestError(
            f"expected the address of a Ray cluster, got {on!r}", field="--on", hint="use for example http://HOST:8265"
        )
    return RayBackend(on, settings, code=code)


class RayBackend(JobBackend):
    """Jobs of a Ray cluster through its job API; states come from Ray.

    Jobs of this machine are also stored as files, which remain when the cluster has ended.

    Parameters
    ----------
    on, code
        See :func:`open_ray`.
    settings
        Settings of this process; jobs on this machine get the same.
    """

    def __init__(self, on: str, settings: Settings, *, code: bool = False) -> None:
        self._on = on
        self._code = code
        self._settings = settings
        self._local = LocalRay(settings) if on == LOCAL else None
        self._history = JobHistory(settings.home / "ray" / "jobs")

    def manifest(self, submission: Submission, *, owner: str, team: str | None = None) -> str:
        """Return the YAML that would be submitted."""
        request = self._request(submission, owner, team)
        request["runtime_env"]["working_dir"] = {RECIPE: _Block(submission.recipe)}
        return yaml.dump(request, Dumper=_Dumper, sort_keys=False)

    def submit(self, submission: AnySubmission, *, owner: str, team: str | None = None) -> Job:
        """Start a job, after a check that the cluster can ever run it."""
        submission = recipe_of(submission)
        request = self._request(submission, owner, team)
        if self._local is not None:
            self._local.start(submission.scale)
        with self._told():
            client = self._connect()
            require_same_ray(client, self._on)
            waits = self._look(client, submission.scale)
            with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
                (Path(folder) / RECIPE).write_text(submission.recipe, encoding="utf-8")
                request["runtime_env"]["working_dir"] = folder
                if self._local is not None:
                    self._history.begin(submission.id)
                try:
                    client.submit_job(**request)
                except BaseException:
                    self._history.discard(submission.id)
                    raise
        job = self._current(submission.id).model_copy(update=waits)
        self._history.keep(job)
        return job

    def list(self) -> list[Job]:
        """Return all jobs of Cytoray on the cluster; on this machine also those of earlier clusters.

        The newest jobs come first.
        """
        known = {} if self._local is None else {job.id: job for job in self._history.jobs()}
        if not self._gone():
            with self._told():
                client = self._connect()
                address = client.get_address()
                jobs = [self._job(one, address) for one in client.list_jobs() if _MODEL in (one.metadata or {})]
            known |= {job.id: job for job in jobs}
        found = [self._with_progress(job) for job in known.values()]
        return sorted(found, key=lambda job: job.created or datetime.min.replace(tzinfo=UTC), reverse=True)

    def show(self, job_id: str) -> Job:
        """Return the status of a job, and why it failed."""
        try:
            job = self._current(job_id)
        except JobNotFoundError:
            kept = None if self._local is None else self._history.find(job_id)
            if kept is None:
                raise
            return self._with_progress(kept)
        if self._local is not None and job.has_ended:
            self._history.keep(job)
        return self._with_progress(job)

    def _with_progress(self, job: Job) -> Job:
        """Return a job of this machine with its progress from its log."""
        if self._local is None:
            return job
        return job.model_copy(update={"progress": training_progress([self._history.log(job.id)])})

    def _current(self, job_id: str) -> Job:
        """Return a job from the cluster."""
        if self._gone():
            raise unknown(job_id, "no Ray cluster runs on this machine, and no earlier one has run it")
        if not re.fullmatch(ID, job_id):
            raise unknown(job_id)
        with self._told(job_id):
            client = self._connect()
            details = client.get_job_info(job_id)
            if _MODEL not in (details.metadata or {}):
                raise unknown(job_id)
            job = self._job(details, client.get_address())
            return job if job.state != "failed" else job.model_copy(update=_failure(client, details))

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the log of the job; with `follow` until it has ended, with empty pieces while there is no output."""
        job = self.show(job_id)
        if self._local is not None and (not follow or job.has_ended) and (printed := self._history.log(job_id)):
            yield printed
            return
        if self._gone():
            return
        with self._told(job_id):
            client = self._connect()
            if not follow or job.has_ended:
                yield client.get_job_logs(job_id)
                return
            yield from followed(client.tail_job_logs(job_id))

    def stop(self, job_id: str) -> Job:
        """Cancel a job; a job that has ended is unchanged."""
        job = self.show(job_id)
        if not job.has_ended:
            with self._told(job_id):
                self._connect().stop_job(job_id)
        until = time.monotonic() + _STOP_SECONDS
        while not job.has_ended and time.monotonic() < until:
            time.sleep(0.2)
            job = self.show(job_id)
        return job

    def _request(self, submission: Submission, owner: str, team: str | None) -> dict[str, Any]:
        """Return the arguments for the job API, without the folder of the recipe."""
        metadata = {_MODEL: submission.name, _COMMAND: submission.command, _OWNER: owner}
        metadata |= {} if team is None else {_TEAM: team}
        metadata[_SCALE] = submission.scale.model_dump_json(exclude_defaults=True)
        runtime: dict[str, Any] = {"env_vars": self._environment()}
        if self._local is not None:
            # Paths in a recipe are relative to this folder, which a job on another cluster does not have.
            recorder = [sys.executable, "-m", "cytoray_services.jobs.recorder", self._history.folder_of(submission.id)]
            before = f"job=$PWD; cd {shlex.quote(str(Path.cwd()))} && exec {shlex.join(map(str, recorder))} "
            recipe = f'"$job/{RECIPE}"'
        else:
            require_absolute(submission.data)
            before, recipe = "", RECIPE
            if self._code:
                found = [spec for name in _PACKAGES if (spec := find_spec(name))]
                runtime |= {"py_modules": [place for spec in found for place in spec.submodule_search_locations or ()]}
                runtime |= {"excludes": ["__pycache__"]}
        return {
            "entrypoint": f"{before}cytoray {submission.command} {recipe} --on auto --json",
            "submission_id": submission.id,
            "metadata": metadata,
            "runtime_env": runtime,
        }

    def _environment(self) -> dict[str, str]:
        """Return the variables of a job: here all variables of this process, elsewhere a registry that is reachable."""
        settings = self._settings
        if self._local is None:
            remote = settings.tracking_uri.startswith(("http://", "https://"))
            return {"MLFLOW_TRACKING_URI": settings.tracking_uri} if remote else {}
        variables = {"CYTORAY_HOME": str(settings.home), "CYTORAY_CACHE": str(settings.cache)}
        variables |= {"MLFLOW_TRACKING_URI": settings.tracking_uri}
        return variables | ({} if settings.artifacts_uri is None else {"CYTORAY_ARTIFACTS": settings.artifacts_uri})

    def _cluster(self) -> LocalCluster | None:
        return None if self._local is None else self._local.running()

    def _gone(self) -> bool:
        """Whether this machine has no cluster, and so no jobs."""
        return self._local is not None and self._cluster() is None

    def _connect(self) -> JobSubmissionClient:
        """Return a client with a connection to the cluster."""
        cluster = self._cluster()
        return _client(self._on if cluster is None else cluster.address, _headers(cluster))

    def _look(self, client: JobSubmissionClient, scale: Scale) -> dict[str, str]:
        """Refuse what the cluster can never run; return why it will wait if the cluster may grow."""
        cluster = self._cluster()
        nodes = _nodes(client.get_address(), _headers(cluster))
        for kind, each, field in (
            ("GPU", scale.gpus_per_worker, "scale.gpus_per_worker"),
            ("CPU", scale.cpus_per_worker, "scale.workers"),
        ):
            wanted = each * scale.least_workers
            have = sum(int((node.resources_total or {}).get(kind, 0)) for node in nodes)
            if wanted <= have:
                continue
            excess = f"expected at most {have} {kind}s, got {wanted} ({scale.least_workers} workers)"
            if any("ray.io/node-group" in (node.labels or {}) for node in nodes):
                return {"reason": f"{excess}; it waits until the cluster grows", "hint": "see the autoscaler's log"}
            hint = "use fewer workers, or a larger cluster"
            if cluster is not None and kind == "CPU":
                hint = f"end the cluster with {cluster.ending}: the next one has the size that the job needs"
            raise RequestError(excess, field=field, hint=hint)
        return {}

    def _job(self, details: JobDetails, address: str) -> Job:
        metadata = details.metadata or {}
        state = _STATES[str(details.status.value)]
        created, ended = _time(details.start_time), _time(details.end_time)
        started = None if state == "queued" else created
        seconds = 0.0 if started is None else ((ended or datetime.now(UTC)) - started).total_seconds()
        return Job(
            id=details.submission_id or "",
            command="tune" if metadata.get(_COMMAND) == "tune" else "train",
            name=metadata[_MODEL],
            state=state,
            place=self._on,
            owner=metadata.get(_OWNER, ""),
            team=metadata.get(_TEAM),
            scale=_scale(metadata.get(_SCALE, "{}")),
            reason=details.message if state == "queued" else None,
            dashboard=f"{address}/#/jobs/{details.submission_id}",
            created=created,
            started=started,
            ended=ended,
            seconds=round(max(0.0, seconds), 3),
        )

    @contextmanager
    def _told(self, job_id: str | None = None) -> Iterator[None]:
        """Translate exceptions of Ray's client to an error with one sentence."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except CytorayError:
            raise
        except AuthenticationError as error:
            raise refused(self._on, str(error)) from error
        except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:  # exceptions of requests are OSErrors
            text = str(error).strip()
            if "status code 404" in text and job_id is not None:
                raise unknown(job_id) from error
            raise PlatformError(
                f"expected Ray's job API at {self._on}, got another response: {text.partition(chr(10))[0][:300]}",
                field="--on",
                hint="use the address of Ray's dashboard, such as http://HOST:8265",
            ) from error


class _Block(str):
    """Text that YAML writes as a block."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|"))


def _client(address: str, headers: dict[str, str]) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if os.environ.get(name, address) != address:
            raise RequestError(
                f"expected {name} to be unset or {address}, got {os.environ[name]}, which Ray would use instead",
                field=name,
                hint=f"unset {name}",
            )
    require_reachable(address)
    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    return JobSubmissionClient(address, headers=headers)


def _headers(cluster: LocalCluster | None) -> dict[str, str]:
    """Return the headers for a local cluster; for others Ray's client finds the token itself."""
    return {} if cluster is None else {"Authorization": f"Bearer {cluster.token}"}


def _nodes(address: str, headers: dict[str, str]) -> list[Any]:
    """Return the live nodes."""
    from ray.util.state import StateApiClient
    from ray.util.state.common import ListApiOptions, StateResource

    states = StateApiClient(address, headers=headers)
    nodes: list[Any] = states.list(
        StateResource.NODES, ListApiOptions(limit=10_000, detail=True), raise_on_missing_output=False
    )
    return [node for node in nodes if node.state == "ALIVE"]


def _failure(client: JobSubmissionClient, details: JobDetails) -> dict[str, str | None]:
    """Return why a job failed, from the last error of the command or from Ray."""
    if said := said_last(client.get_job_logs(details.submission_id or "")):
        return said
    message = (details.message or "it ended without a reason").strip().splitlines()[0]
    return {"reason": message, "hint": "see cytoray jobs logs"}


def _scale(text: str) -> Scale | None:
    try:
        return Scale.model_validate_json(text)
    except ValidationError:  # from another version, or edited by hand
        return None


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)
