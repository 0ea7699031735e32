"""Ray clusters as places for jobs; the only door to Ray's job API."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shlex
import socket
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
    ForbiddenError,
    JobNotFoundError,
    PlatformError,
    RequestError,
    UnauthorizedError,
)
from cytoray_services.jobs.job import Job, State
from cytoray_services.jobs.local_ray import LocalCluster, LocalRay
from cytoray_services.jobs.scale import Scale
from cytoray_services.jobs.submission import Submission
from cytoray_services.settings import Settings

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

LOCAL = "local"
RECIPE = "recipe.yaml"
# What is kept with a job, named as on Kubernetes.
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
_ID = r"[a-z0-9-]{1,64}"
_PACKAGES = ("cytoray_analysis", "cytoray_services", "cytoray_training", "cytoray_serving")
_PORTS = {"http": 80, "https": 443, "ray": 10001}
_CONNECT_SECONDS = 10.0
_STOP_SECONDS = 15.0


def open_ray(on: str, settings: Settings, *, code: bool = False) -> RayPlace:
    """Return a Ray cluster as a place.

    Parameters
    ----------
    on
        ``local``, ``http(s)://HOST:8265`` or ``ray://HOST:10001``. Nothing is asked of it yet, and ``local`` starts
        nothing before a job is submitted.
    code
        Whether the packages of this installation travel with each job; those of this machine are there already.

    Raises
    ------
    RequestError
        It is no address.
    """
    try:
        named = on == LOCAL or (urlsplit(on).hostname is not None and urlsplit(on).port != 0)
    except ValueError:
        named = False
    if not named:
        raise RequestError(
            f"expected the address of a Ray cluster, got {on!r}", field="--on", hint="such as http://HOST:8265"
        )
    return RayPlace(on, settings, code=code)


class RayPlace:
    """Jobs of a Ray cluster, through its job API; states come from Ray.

    Parameters
    ----------
    on, code
        See :func:`open_ray`.
    settings
        Of this process; jobs on this machine get the same.
    """

    def __init__(self, on: str, settings: Settings, *, code: bool = False) -> None:
        self._on = on
        self._code = code
        self._settings = settings
        self._local = LocalRay(settings) if on == LOCAL else None

    def manifest(self, submission: Submission, *, owner: str, team: str | None = None) -> str:
        """Return what submitting would send, as YAML."""
        request = self._request(submission, owner, team)
        request["runtime_env"]["working_dir"] = {RECIPE: _Block(submission.recipe)}
        return yaml.dump(request, Dumper=_Dumper, sort_keys=False)

    def submit(self, submission: Submission, *, owner: str, team: str | None = None) -> Job:
        """Start a job, after a look at whether the cluster can ever run it."""
        request = self._request(submission, owner, team)
        if self._local is not None:
            self._local.start(submission.scale)
        with self._told():
            client = self._connect()
            _require_same_ray(client, self._on)
            waits = self._look(client, submission.scale)
            with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
                (Path(folder) / RECIPE).write_text(submission.recipe, encoding="utf-8")
                request["runtime_env"]["working_dir"] = folder
                client.submit_job(**request)
        return self.show(submission.id).model_copy(update=waits)

    def list(self) -> list[Job]:
        """Return all jobs of Cytoray that the cluster knows, the newest first."""
        if self._gone():
            return []
        with self._told():
            client = self._connect()
            address = client.get_address()
            jobs = [self._job(one, address) for one in client.list_jobs() if _MODEL in (one.metadata or {})]
        return sorted(jobs, key=lambda job: job.created or datetime.min.replace(tzinfo=UTC), reverse=True)

    def show(self, job_id: str) -> Job:
        """Return where a job stands, and why it failed."""
        if self._gone():
            raise _unknown(job_id, "no Ray cluster of this machine runs, and with the last one its jobs have gone")
        if not re.fullmatch(_ID, job_id):
            raise _unknown(job_id)
        with self._told(job_id):
            client = self._connect()
            details = client.get_job_info(job_id)
            if _MODEL not in (details.metadata or {}):
                raise _unknown(job_id)
            job = self._job(details, client.get_address())
            return job if job.state != "failed" else job.model_copy(update=_failure(client, details))

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield what the job has printed; with `follow` until it has ended."""
        job = self.show(job_id)
        with self._told(job_id):
            client = self._connect()
            if not follow or job.has_ended:
                yield client.get_job_logs(job_id)
                return
            lines, loop = client.tail_job_logs(job_id), asyncio.new_event_loop()
            try:
                while True:
                    yield loop.run_until_complete(anext(lines))
            except StopAsyncIteration:
                return
            finally:
                loop.run_until_complete(lines.aclose())  # type: ignore[attr-defined]
                loop.close()

    def stop(self, job_id: str) -> Job:
        """Cancel a job; one that has ended stays as it is."""
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
        """Return what the job API is told, all but the folder with the recipe."""
        metadata = {_MODEL: submission.name, _COMMAND: submission.command, _OWNER: owner}
        metadata |= {} if team is None else {_TEAM: team}
        metadata[_SCALE] = submission.scale.model_dump_json(exclude_defaults=True)
        runtime: dict[str, Any] = {"env_vars": self._environment()}
        if self._local is not None:
            # Paths in a recipe are meant from here, where the job of another cluster has never been.
            before, recipe = f"job=$PWD; cd {shlex.quote(str(Path.cwd()))} && exec ", f'"$job/{RECIPE}"'
        else:
            _require_absolute(submission.data)
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
        """Return the variables of a job: here all that this process has, elsewhere a registry that can be reached."""
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
        """Return a client that has talked with the cluster."""
        cluster = self._cluster()
        return _client(self._on if cluster is None else cluster.address, _headers(cluster))

    def _look(self, client: JobSubmissionClient, scale: Scale) -> dict[str, str]:
        """Refuse what the cluster can never run; return why it will wait, where the cluster may grow."""
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
            told = f"expected at most {have} {kind}s, got {wanted} ({scale.least_workers} workers)"
            if any("ray.io/node-group" in (node.labels or {}) for node in nodes):
                return {"reason": f"{told}; it waits until the cluster grows", "hint": "see the autoscaler's log"}
            hint = "use fewer workers, or a larger cluster"
            if cluster is not None and kind == "CPU":
                hint = f"end the cluster with {cluster.ending}: the next one is as large as the job needs"
            raise RequestError(told, field=field, hint=hint)
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
        """Turn what Ray's client raises into one sentence."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except CytorayError:
            raise
        except AuthenticationError as error:
            raise _refused(self._on, str(error)) from error
        except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:  # those of requests are OSErrors
            text = str(error).strip()
            if "status code 404" in text and job_id is not None:
                raise _unknown(job_id) from error
            raise PlatformError(
                f"what answers at {self._on} does not speak Ray's job API: {text.partition(chr(10))[0][:300]}",
                field="--on",
                hint="use the address of Ray's dashboard, such as http://HOST:8265",
            ) from error


class _Block(str):
    """Text that YAML shows line by line."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|"))


def _client(address: str, headers: dict[str, str]) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        if os.environ.get(name, address) != address:
            raise RequestError(
                f"expected {name} to be unset or {address}, got {os.environ[name]}, where Ray would go instead",
                field=name,
                hint=f"unset {name}",
            )
    _require_reachable(address)
    for name in ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging"):
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    return JobSubmissionClient(address, headers=headers)


def _headers(cluster: LocalCluster | None) -> dict[str, str]:
    """Return what a local cluster is shown; for others Ray's client finds the token itself."""
    return {} if cluster is None else {"Authorization": f"Bearer {cluster.token}"}


def _nodes(address: str, headers: dict[str, str]) -> list[Any]:
    """Return the nodes that are alive."""
    from ray.util.state import StateApiClient
    from ray.util.state.common import ListApiOptions, StateResource

    states = StateApiClient(address, headers=headers)
    nodes: list[Any] = states.list(
        StateResource.NODES, ListApiOptions(limit=10_000, detail=True), raise_on_missing_output=False
    )
    return [node for node in nodes if node.state == "ALIVE"]


def _failure(client: JobSubmissionClient, details: JobDetails) -> dict[str, str | None]:
    """Return why a job failed: what the command said last, or what Ray says."""
    for line in reversed(client.get_job_logs(details.submission_id or "").splitlines()[-50:]):
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and "error" in told and "message" in told:
            return {"reason": str(told["message"]), "hint": told.get("hint")}
    message = (details.message or "it ended without a reason").strip().splitlines()[0]
    return {"reason": message, "hint": "cytoray jobs logs says more"}


def _require_same_ray(client: JobSubmissionClient, on: str) -> None:
    import ray

    theirs = client._server_ray_version  # as its constructor was told
    if theirs != ray.__version__:
        raise PlatformError(
            f"expected a cluster with Ray {ray.__version__}, as is installed here, got Ray {theirs} at {on}",
            field="--on",
            hint=f"use a cluster whose image has Ray {ray.__version__}",
        )


def _require_reachable(address: str) -> None:
    """Fail soon: Ray's client waits for minutes for a machine that does not answer."""
    parts = urlsplit(address)
    try:
        port = parts.port or _PORTS[parts.scheme]
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise PlatformError(
            f"no Ray cluster answers at {address}: {error.strerror or error}",
            field="--on",
            hint="is this the address of Ray's dashboard, port 8265, and can this machine reach it?",
        ) from error


def _require_absolute(data: tuple[str, ...]) -> None:
    for place in data:
        if "://" not in place and not place.startswith("/"):
            raise RequestError(
                f"expected data that the cluster can read, got the path {place}, which is meant from this folder",
                field="data.root",
                hint="use s3://BUCKET/PATH, or an absolute path that all its nodes have",
            )


def _refused(on: str, text: str) -> CytorayError:
    if "Authentication required" not in text:
        return ForbiddenError(f"the Ray cluster at {on} refuses the token", field="RAY_AUTH_TOKEN")
    hint = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token of the cluster"
    return UnauthorizedError(f"the Ray cluster at {on} asks for a token", field="--on", hint=hint)


def _scale(text: str) -> Scale | None:
    try:
        return Scale.model_validate_json(text)
    except ValidationError:  # written by another version, or by hand
        return None


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, UTC)


def _unknown(job_id: str, reason: str = "the cluster knows no such job") -> JobNotFoundError:
    return JobNotFoundError(
        f"expected the id of a job, got {job_id!r}: {reason}", field="id", hint="cytoray jobs list shows them"
    )
