"""The Kubernetes backend: KubeRay runs jobs, Kueue may queue them, and their state comes from the cluster."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from pydantic import ValidationError

from cytoray_analysis.errors import CytorayError, JobNotFoundError, PlatformError, RequestError
from cytoray_analysis.plain_yaml import load_yaml
from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.kubernetes.checks import check_access, check_namespace, check_room
from cytoray_services.jobs.kubernetes.code import pack_code
from cytoray_services.jobs.kubernetes.connection import Cluster, JsonObject, connect, no_cluster
from cytoray_services.jobs.kubernetes.errors import RefusedError, explain
from cytoray_services.jobs.kubernetes.logs import read
from cytoray_services.jobs.kubernetes.manifest import JOB_LABEL, KUEUE_GROUP, PART_OF, RAY_GROUP, Manifest, build
from cytoray_services.jobs.kubernetes.status import CANCELLED, describe, is_queued_by_kueue, state_of
from cytoray_services.jobs.platform import CONFIG_MAP, KEY, Platform
from cytoray_services.jobs.submission import AnySubmission, Submission, recipe_of

_SELECTOR = ",".join(f"{key}={value}" for key, value in PART_OF.items())
_WORKLOAD_OF = f"{KUEUE_GROUP}/job-uid"
_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")


def _say(text: str) -> None:
    """Print a remark on standard error."""
    print(text, file=sys.stderr, flush=True)


class KubernetesBackend(JobBackend):
    """Jobs as RayJobs in one namespace. Creating an instance makes no request to the cluster.

    The platform may name another namespace.

    Parameters
    ----------
    client
        ``kubernetes.client.ApiClient``; None without a cluster, which is enough for `manifest`.
    namespace
        Namespace of the platform, and of jobs unless the platform names another.
    context
        Context of the kubeconfig; empty inside a cluster.
    code
        Whether the packages of this installation are sent with each job and take precedence over those of its image.
    """

    def __init__(self, client: Any, namespace: str, *, context: str = "", code: bool = False) -> None:
        self._cluster = None if client is None else Cluster(client, namespace, context)
        self._jobs: Cluster | None = None  # namespace of the jobs, once it is known
        self._code = code
        self.namespace = namespace
        self.context = context
        self.name = f"kubernetes:{context}/{namespace}" if context else "kubernetes"

    def manifest(self, submission: Submission, *, owner: str, team: str | None = None) -> str:
        """Return the YAML that would be submitted, for ``kubectl apply``; needs no cluster."""
        self._warn_of_paths(submission)
        platform = self._platform_or_defaults()
        return self._build(submission, platform, owner, team).as_yaml(platform.namespace or self.namespace)

    def submit(self, submission: AnySubmission, *, owner: str, team: str | None = None) -> Job:
        """Start a job, after a check that the cluster can ever run it."""
        submission = recipe_of(submission)
        with self._explained() as cluster:
            check_access(cluster)
            platform = self._read_platform()
            manifest = self._build(submission, platform, owner, team)
            self._warn_of_paths(submission)
            check_room(cluster, manifest, platform, _say)
            rayjob = self._send(cluster, manifest)
            self._forget(cluster, timedelta(days=platform.keep_days))
            return describe(rayjob, place=self.name)

    def list(self) -> list[Job]:
        """Return all jobs of the namespace, newest first."""
        with self._explained() as cluster:
            rayjobs, _ = cluster.list(cluster.path(RAY_GROUP, "rayjobs"), labelSelector=_SELECTOR)
            if not rayjobs:  # the list of a namespace that does not exist is empty
                check_namespace(cluster)
            jobs = self._describe(cluster, rayjobs)
        return sorted(jobs, key=lambda job: (job.created or datetime.min.replace(tzinfo=UTC), job.id), reverse=True)

    def show(self, job_id: str) -> Job:
        """Return the status of a job."""
        with self._explained() as cluster:
            return self._describe(cluster, [self._find(cluster, job_id)])[0]

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the log of the job line by line; see :func:`cytoray_services.jobs.kubernetes.logs.read`."""
        with self._explained() as cluster:

            def look_again() -> tuple[Job, JsonObject]:
                rayjob = self._find(cluster, job_id)
                return self._describe(cluster, [rayjob])[0], rayjob

            yield from read(cluster, look_again, follow=follow, say=_say)

    def stop(self, job_id: str) -> Job:
        """Cancel a job; a job that has ended is unchanged.

        KubeRay removes the cluster of a suspended job and keeps the RayJob, which then shows that it was cancelled.
        """
        with self._explained() as cluster:
            rayjob = self._find(cluster, job_id)
            if state_of(rayjob) not in ("queued", "running"):
                return describe(rayjob, place=self.name)
            change: JsonObject = {"metadata": {"annotations": {CANCELLED: datetime.now(UTC).isoformat()}}}
            if not (is_queued_by_kueue(rayjob) and self._deactivate(cluster, rayjob)):
                change["spec"] = {"suspend": True}
            return describe(cluster.merge(cluster.path(RAY_GROUP, "rayjobs", job_id), change), place=self.name)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[Cluster]:
        if self._cluster is None:
            raise no_cluster()
        cluster = self._cluster
        try:
            if self._jobs is None:
                namespace = self._read_platform(quietly=True).namespace or cluster.namespace
                self._jobs = Cluster(cluster.client, namespace, cluster.context)
            cluster = self._jobs
            yield cluster
        except RefusedError as refused:
            raise explain(refused, namespace=cluster.namespace, context=self.context) from refused

    def _build(self, submission: Submission, platform: Platform, owner: str, team: str | None) -> Manifest:
        code = pack_code() if self._code else None
        return build(submission, platform, owner=owner, team=team, code=code)

    def _send(self, cluster: Cluster, manifest: Manifest) -> JsonObject:
        """Apply the RayJob and then the ConfigMap that it owns, for which its pods wait. All or nothing."""
        name = manifest.rayjob["metadata"]["name"]
        path = cluster.path(RAY_GROUP, "rayjobs", name)
        if cluster.find(path) is not None:
            raise RequestError(f"the job {name} exists already", field="id", hint="submit the recipe again")
        rayjob = cluster.apply(path, manifest.rayjob)
        owned = {
            **manifest.config_map,
            "metadata": {**manifest.config_map["metadata"], "ownerReferences": [_owner(rayjob)]},
        }
        try:
            cluster.apply(cluster.path("v1", "configmaps", name), owned)
        except (RefusedError, CytorayError):
            cluster.delete(path)
            raise
        return rayjob

    def _find(self, cluster: Cluster, job_id: str) -> JsonObject:
        rayjob = cluster.find(cluster.path(RAY_GROUP, "rayjobs", job_id)) if _NAME.match(job_id) else None
        labels = rayjob["metadata"].get("labels") or {} if rayjob else {}
        if rayjob is None or not PART_OF.items() <= labels.items():
            raise JobNotFoundError(
                f"there is no job {job_id} in the namespace {cluster.namespace}",
                hint="cytoray jobs list with the same --on lists all; records are removed some weeks after the end",
            )
        return rayjob

    def _describe(self, cluster: Cluster, rayjobs: Sequence[JsonObject]) -> Sequence[Job]:
        """Describe jobs; pods, events and queues are read if they add something."""
        states = [state_of(one) for one in rayjobs]
        pods: Sequence[JsonObject] = []
        events: Sequence[JsonObject] = []
        workloads: Mapping[str, JsonObject] = {}
        if any(state in ("queued", "running", "failed") for state in states):
            only = f"{JOB_LABEL}={rayjobs[0]['metadata']['name']}" if len(rayjobs) == 1 else _SELECTOR
            pods = self._optional(cluster, cluster.path("v1", "pods"), labelSelector=only)
        if "queued" in states:
            events = self._optional(cluster, cluster.path("v1", "events"), fieldSelector="type=Warning")
            if any(map(is_queued_by_kueue, rayjobs)):
                workloads = {
                    (one["metadata"].get("labels") or {}).get(_WORKLOAD_OF, ""): one
                    for one in self._workloads(cluster)[1]
                }
        return [
            describe(
                one, place=self.name, pods=pods, events=events, workload=workloads.get(one["metadata"].get("uid", ""))
            )
            for one in rayjobs
        ]

    def _optional(self, cluster: Cluster, path: str, **query: str) -> Sequence[JsonObject]:
        """Read optional details; without the rights, print a remark and continue without them."""
        try:
            return cluster.list(path, **query)[0]
        except RefusedError as refused:
            if refused.code not in (403, 404):
                raise
            if refused.code == 403:
                _say(f"not checked, because of missing permissions: {path.rpartition('/')[2]}")
            return []

    def _workloads(self, cluster: Cluster) -> tuple[str, Sequence[JsonObject]]:
        """Return the path of Kueue's workloads, and all workloads; none without Kueue."""
        version = cluster.preferred(KUEUE_GROUP)
        if version is None:
            return "", []
        path = cluster.path(version, "workloads")
        return path, self._optional(cluster, path)

    def _deactivate(self, cluster: Cluster, rayjob: JsonObject) -> bool:
        """Deactivate a job in Kueue, which would otherwise start it again; return False if Kueue has no workload."""
        path, workloads = self._workloads(cluster)
        uid = rayjob["metadata"]["uid"]
        own = [one for one in workloads if (one["metadata"].get("labels") or {}).get(_WORKLOAD_OF) == uid]
        for one in own:
            cluster.merge(f"{path}/{one['metadata']['name']}", {"spec": {"active": False}})
        return bool(own)

    def _forget(self, cluster: Cluster, after: timedelta) -> None:
        """Remove records of jobs that ended long ago: KubeRay removes only their clusters."""
        rayjobs, _ = cluster.list(cluster.path(RAY_GROUP, "rayjobs"), labelSelector=_SELECTOR)
        for rayjob in rayjobs:
            job = describe(rayjob, place=self.name)
            if job.has_ended and job.ended is not None and job.ended + after < datetime.now(UTC):
                try:
                    cluster.delete(cluster.path(RAY_GROUP, "rayjobs", job.id))
                except RefusedError as refused:
                    if refused.code != 403:
                        raise
                    _say("not removed, because of missing permissions: records of jobs that ended long ago")
                    return

    def _platform_or_defaults(self) -> Platform:
        try:
            with self._explained():
                return self._read_platform()
        except CytorayError as error:
            _say(f"the configuration of the cluster cannot be read, so defaults are shown: {error.message}")
            return Platform()

    def _read_platform(self, *, quietly: bool = False) -> Platform:
        cluster = self._cluster
        if cluster is None:
            raise no_cluster()
        try:
            found = cluster.find(cluster.path("v1", "configmaps", CONFIG_MAP))
        except RefusedError as refused:
            if refused.code != 403:
                raise
            found = None
        if found is None:
            if not quietly:
                _say(f"no ConfigMap {CONFIG_MAP} can be read in the namespace {self.namespace}: using defaults")
            return Platform()
        return parse_platform((found.get("data") or {}).get(KEY) or "")

    def _warn_of_paths(self, submission: Submission) -> None:
        for path in submission.data:
            if "://" not in path or path.startswith("file://"):
                _say(
                    f"warning: the data {path} is a path, which the nodes of a cluster can read only if their image "
                    "contains it; use s3://… or pvc://CLAIM/PATH"
                )


def parse_platform(text: str) -> Platform:
    """Read the platform that the chart writes.

    Raises
    ------
    PlatformError
        It is not a valid platform; the message names the field.
    """
    field = CONFIG_MAP
    try:
        return Platform.model_validate(load_yaml(text) or {})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        problem = first["msg"]
    except yaml.YAMLError as error:
        problem = f"it is not YAML: {error}"
    raise PlatformError(
        f"the ConfigMap {CONFIG_MAP} is invalid: {problem}", field=field, hint="correct the values of the chart"
    )


def open_kubernetes(rest: str, *, code: bool = False) -> KubernetesBackend:
    """Open the backend for the part after ``kubernetes:``.

    Parameters
    ----------
    rest
        Empty, ``CONTEXT`` or ``CONTEXT/NAMESPACE``; an empty context is the current one. Contexts may contain slashes:
        the longest name in the kubeconfig counts.
    code
        Whether the packages of this installation are sent with each job.

    Raises
    ------
    RequestError
        There is no such context, or the name of the namespace is invalid.
    PlatformError
        The kubeconfig cannot be used.
    """
    context, _, namespace = rest.rpartition("/") if "/" in rest else (rest, "", "")
    try:
        cluster = connect(context, namespace)
    except RequestError as unknown:
        if not namespace:
            raise
        try:
            cluster = connect(rest, "")  # as in arn:aws:eks:eu-central-1:1:cluster/lab
        except RequestError:
            raise unknown from None
    if cluster is None:
        if context:
            raise no_cluster()
        return KubernetesBackend(None, namespace or "default", code=code)
    if not _NAME.match(cluster.namespace):
        raise RequestError(
            f"expected a namespace of lower-case letters, digits and '-', got {cluster.namespace!r}", field="--on"
        )
    return KubernetesBackend(cluster.client, cluster.namespace, context=cluster.context, code=code)


def _owner(rayjob: JsonObject) -> JsonObject:
    return {
        "apiVersion": RAY_GROUP,
        "kind": "RayJob",
        "name": rayjob["metadata"]["name"],
        "uid": rayjob["metadata"]["uid"],
        "controller": False,
        "blockOwnerDeletion": False,
    }
