"""Checks before a job is submitted: whether the cluster can ever run it, and whether the caller is allowed to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_services.jobs.kubernetes.connection import Cluster
from cytoray_services.jobs.kubernetes.errors import RefusedError, explain_quota, no_kuberay, no_namespace, no_right
from cytoray_services.jobs.kubernetes.manifest import JOB_LABEL, KUEUE_GROUP, QUEUE_LABEL, RAY_GROUP, Manifest
from cytoray_services.jobs.kubernetes.quantities import needs, quantity, reserved, written
from cytoray_services.jobs.platform import Platform

Say = Callable[[str], None]

# Verbs and resources that a submission needs.
_RIGHTS = (
    ("get", "ray.io", "rayjobs"),
    ("create", "ray.io", "rayjobs"),
    ("patch", "ray.io", "rayjobs"),
    ("create", "", "configmaps"),
    ("patch", "", "configmaps"),
)
_HINT_NODES = "request less in the section scale of the recipe, or add nodes"


def check_access(cluster: Cluster) -> None:
    """Refuse if no job can be submitted at all: no such namespace, no KubeRay, no permissions.

    Raises
    ------
    CytorayError
        In one sentence, with what to do.
    """
    check_namespace(cluster)
    _kuberay(cluster)
    for verb, group, resource in _RIGHTS:
        if not cluster.allows(verb, group, resource):
            raise no_right(verb, f"{resource}.{group}".rstrip("."), cluster.namespace)


def check_room(cluster: Cluster, manifest: Manifest, platform: Platform, say: Say) -> None:
    """Refuse a job that would wait for ever: an object is missing, or a quota or the nodes are too small.

    Parameters
    ----------
    cluster
        Cluster of the job.
    manifest
        Manifest of the job.
    platform
        Configuration of the cluster.
    say
        Called with checks that were not possible, and with warnings.

    Raises
    ------
    CytorayError
        In one sentence, with what to do.
    """
    _references(cluster, manifest, say)
    _quotas(cluster, manifest, say)
    _nodes(cluster, manifest, platform, say)


def check_namespace(cluster: Cluster) -> None:
    """Refuse a namespace that does not exist, if the caller may read it."""
    try:
        found = cluster.find(f"/api/v1/namespaces/{cluster.namespace}")
    except RefusedError as refused:
        if refused.code == 403:  # a user of a single namespace may not be allowed to read it
            return
        raise
    if found is None:
        raise no_namespace(cluster.namespace)


def _kuberay(cluster: Cluster) -> None:
    kinds = cluster.find(f"/apis/{RAY_GROUP}")
    if kinds is None or not any(one.get("name") == "rayjobs" for one in kinds.get("resources") or []):
        raise no_kuberay()


def _references(cluster: Cluster, manifest: Manifest, say: Say) -> None:
    """Check that all objects in the manifest exist."""
    for path, what, name, hint in _named(cluster, manifest):
        try:
            found = cluster.find(path)
        except RefusedError as refused:
            if refused.code != 403:
                raise
            say(f"not checked, because of missing permissions: {what} {name}")
            continue
        if found is None:
            raise PlatformError(f"there is no {what} {name} in the namespace {cluster.namespace}", hint=hint)


def _named(cluster: Cluster, manifest: Manifest) -> Iterator[tuple[str, str, str, str]]:
    """Yield path, kind and name of all objects in the manifest, and the hint if one is missing."""
    pods = [manifest.head, *([manifest.worker] if manifest.worker else [])]
    claims: dict[str, str] = {}
    secrets: set[str] = set()
    for pod in pods:
        for volume in pod["volumes"]:
            if "persistentVolumeClaim" in volume:
                claims[volume["persistentVolumeClaim"]["claimName"]] = volume["name"]
        secrets |= {one["name"] for one in pod.get("imagePullSecrets") or []}
        for source in pod["containers"][0].get("envFrom") or []:
            secrets.add(source["secretRef"]["name"])
    for name, volume in sorted(claims.items()):
        hint = (
            "install the chart helm/cytoray, which creates it, and name its namespace, or create one (ReadWriteMany)"
            if volume == "home"
            else "check the data of the recipe: pvc://CLAIM/…"
        )
        yield cluster.path("v1", "persistentvolumeclaims", name), "volume claim", name, hint
    for name in sorted(secrets):
        yield cluster.path("v1", "secrets", name), "secret", name, "create the secrets that the platform names"
    account = manifest.head["serviceAccountName"]
    make = f"install the chart helm/cytoray, which creates it, or: kubectl create serviceaccount {account}"
    yield cluster.path("v1", "serviceaccounts", account), "service account", account, make
    queue = manifest.rayjob["metadata"]["labels"].get(QUEUE_LABEL)
    if queue:
        version = cluster.preferred(KUEUE_GROUP)
        if version is None:
            raise PlatformError(
                f"the job requests the queue {queue}, but this cluster has no Kueue",
                field="scale.queue",
                hint="remove scale.queue, or install Kueue",
            )
        path = cluster.path(version, "localqueues", queue)
        yield path, "queue of Kueue", queue, "name another in scale.queue, or create the queue"
    priority = (manifest.worker or manifest.head).get("priorityClassName")
    if priority:
        path = f"/apis/scheduling.k8s.io/v1/priorityclasses/{priority}"
        yield path, "priority class", priority, "name another in scale.priority"


def _pods(manifest: Manifest) -> list[tuple[Mapping[str, Any], int]]:
    """Return the pods at the start of a job, each with its number."""
    spec = manifest.rayjob["spec"]
    submitter = spec.get("submitterPodTemplate")
    return [
        (manifest.head, 1),
        *([(manifest.worker, manifest.least_nodes)] if manifest.worker else []),
        *([(submitter["spec"], 1)] if submitter else []),
        *([({"containers": [spec["rayClusterSpec"]["autoscalerOptions"]]}, 0)] if _scales(manifest) else []),
    ]


def _scales(manifest: Manifest) -> bool:
    return bool(manifest.rayjob["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"])


def _quotas(cluster: Cluster, manifest: Manifest, say: Say) -> None:
    """Compare the resources at the start of the job with the quotas of the namespace."""
    path = cluster.path("v1", "resourcequotas")
    quotas = _listed(cluster, path, say, unknown="the quotas of the namespace")
    if quotas is None:
        return
    asked = _asked(manifest)
    queued = QUEUE_LABEL in manifest.rayjob["metadata"]["labels"]
    for quota in quotas:
        spec, status = quota.get("spec") or {}, quota.get("status") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue  # only for some kinds of pods
        name, used = quota["metadata"]["name"], status.get("used") or {}
        for resource, limit in (status.get("hard") or spec.get("hard") or {}).items():
            need, hard = asked.get(resource, Decimal(0)), quantity(limit)
            if need + quantity(used.get(resource, "0")) <= hard or not need:
                continue
            excess = explain_quota(
                f"exceeded quota: {name}, requested: {resource}={written(need)}, "
                f"used: {resource}={used.get(resource, '0')}, limited: {resource}={limit}"
            )
            assert excess is not None  # it has the format of the API server  # noqa: S101
            if queued and need <= hard:
                say(f"the job will wait: {excess[0]}")
            else:
                raise PlatformError(excess[0], hint=excess[1])


def _asked(manifest: Manifest) -> dict[str, Decimal]:
    """Return the resources at the start of a job, by their names in quotas."""
    asked: dict[str, Decimal] = {}

    def add(name: str, amount: Decimal) -> None:
        asked[name] = asked.get(name, Decimal(0)) + amount

    for pod, number in _pods(manifest):
        times = max(number, 1)  # the autoscaler is a container of the head's pod
        for name, amount in needs(pod).items():
            add(f"requests.{name}", amount * times)
            if name in ("cpu", "memory", "ephemeral-storage"):
                add(name, amount * times)
        for name, amount in needs(pod, "limits").items():
            add(f"limits.{name}", amount * times)
        for name in ("pods", "count/pods"):
            add(name, Decimal(number))
    for name in (
        "count/rayjobs.ray.io",
        "count/rayclusters.ray.io",
        "count/jobs.batch",
        "configmaps",
        "count/configmaps",
    ):
        add(name, Decimal(1))
    return asked


def _nodes(cluster: Cluster, manifest: Manifest, platform: Platform, say: Say) -> None:
    """Check that the existing nodes can run the job: besides permanent pods, and besides all running pods."""
    nodes = _listed(cluster, "/api/v1/nodes", say, unknown="whether there are nodes for the job")
    if nodes is None:
        return
    running = _running(cluster, say)
    pods = [(manifest.head, 1), *([(manifest.worker, manifest.least_nodes)] if manifest.worker else [])]
    lasting = _rooms(nodes, [one for one in running if not _ends(one)])
    problems = [one for one in dict.fromkeys(_no_room(pod, number, lasting) for pod, number in pods) if one]
    for problem in problems:
        if not platform.autoscaled:
            raise RequestError(problem, field="scale", hint=_HINT_NODES)
        say(f"warning: {problem}; the job waits until the cluster has added nodes")
    if not problems and (waits := _no_room_together(pods, _rooms(nodes, running))):
        say(f"the job will wait: {waits}")


def _running(cluster: Cluster, say: Say) -> list[Mapping[str, Any]]:
    """Return the unfinished pods of all namespaces that have a node; none if the caller may not read them."""
    unknown = "the running pods, so nodes count as empty"
    pods = _listed(cluster, "/api/v1/pods", say, unknown=unknown) or []
    return [one for one in pods if (one.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]


def _listed(cluster: Cluster, path: str, say: Say, *, unknown: str) -> list[dict[str, Any]] | None:
    """Return all objects of a kind; if the caller may not read them, report what is unknown and return None."""
    try:
        found, _ = cluster.list(path)
    except RefusedError as refused:
        if refused.code != 403:
            raise
        say(f"not checked, because of missing permissions: {unknown}")
        return None
    return list(found)


def _ends(pod: Mapping[str, Any]) -> bool:
    """Whether a pod ends by itself: a pod of a job, of Cytoray or of Kubernetes."""
    owners = {one.get("kind") for one in pod["metadata"].get("ownerReferences") or []}
    return "Job" in owners or JOB_LABEL in (pod["metadata"].get("labels") or {})


@dataclass(frozen=True)
class _Room:
    """The free resources of a node."""

    labels: Mapping[str, str]
    offers: Mapping[str, Decimal]
    left: dict[str, Decimal]


def _rooms(nodes: list[dict[str, Any]], pods: list[Mapping[str, Any]]) -> list[_Room]:
    """Return the free resources of the schedulable nodes."""
    rooms: dict[str, _Room] = {}
    for node in nodes:
        if not (node.get("spec") or {}).get("unschedulable"):
            offers = (node.get("status") or {}).get("allocatable") or {}
            amounts = {name: quantity(amount) for name, amount in offers.items()}
            rooms[node["metadata"]["name"]] = _Room(node["metadata"].get("labels") or {}, amounts, dict(amounts))
    for pod in pods:
        room = rooms.get((pod.get("spec") or {}).get("nodeName") or "")
        if room is not None:
            for name, amount in reserved(pod["spec"]).items():
                room.left[name] = room.left.get(name, Decimal(0)) - amount
    return list(rooms.values())


def _no_room_together(pods: Sequence[tuple[Mapping[str, Any], int]], rooms: list[_Room]) -> str | None:
    """Return how many pods do not fit on the nodes together; None if all fit. The largest are placed first."""
    total = sum(number for _, number in pods)
    placed = 0
    for pod, number in sorted(pods, key=lambda each: -needs(each[0]).get("memory", Decimal(0))):
        asked, selector = needs(pod), pod.get("nodeSelector") or {}
        for room in rooms:
            while number and selector.items() <= room.labels.items() and _fits(asked, room.left):
                for name, amount in asked.items():
                    room.left[name] = room.left.get(name, Decimal(0)) - amount
                number, placed = number - 1, placed + 1
    if placed == total:
        return None
    return f"the cluster's nodes have room for {placed} of {total} pods of the job besides the running pods"


def _fits(asked: Mapping[str, Decimal], left: Mapping[str, Decimal]) -> bool:
    return all(left.get(name, Decimal(0)) >= amount for name, amount in asked.items())


def _no_room(pod: Mapping[str, Any], number: int, rooms: list[_Room]) -> str | None:
    """Return what the nodes lack for this number of pods; None if nothing."""
    selector = pod.get("nodeSelector") or {}
    fit = [one for one in rooms if selector.items() <= one.labels.items()]
    if not fit:
        wanted = ", ".join(f"{key}={value}" for key, value in selector.items())
        return f"the cluster has no node with {wanted}" if selector else "the cluster has no node"
    asked = {name: amount for name, amount in needs(pod).items() if amount}
    room = 0
    most: dict[str, Decimal] = dict.fromkeys(asked, Decimal(0))
    for node in fit:
        has = {name: max(node.left.get(name, Decimal(0)), Decimal(0)) for name in asked}
        most = {name: max(most[name], has[name]) for name in asked}
        room += int(min(has[name] // amount for name, amount in asked.items()))
    for name, amount in asked.items():
        offered = max(node.offers.get(name, Decimal(0)) for node in fit)
        if not offered:
            return f"no node of the cluster offers {name}, requested: {written(amount)}"
        if offered < amount:
            return f"no node of the cluster offers {written(amount)} of {name}; the largest has {written(offered)}"
        if most[name] < amount:
            left = written(most[name])
            return f"no node of the cluster has {written(amount)} of {name} left; the largest has {left} left"
    if room >= number:
        return None
    beside = " left" if any(node.left != node.offers for node in fit) else ""
    return f"the cluster's nodes have room{beside} for {room} of {number} pods of the job"
