"""A look before a job is submitted: whether the cluster can ever run it, and whether the caller may ask it to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_services.jobs.kubernetes.connection import Cluster
from cytoray_services.jobs.kubernetes.errors import RefusedError, explain_quota, no_kuberay, no_namespace, no_right
from cytoray_services.jobs.kubernetes.manifest import KUEUE_GROUP, QUEUE_LABEL, RAY_GROUP, Manifest
from cytoray_services.jobs.kubernetes.quantities import needs, quantity, written
from cytoray_services.jobs.platform import Platform

Say = Callable[[str], None]

# What is done, and with what.
_RIGHTS = (
    ("get", "ray.io", "rayjobs"),
    ("create", "ray.io", "rayjobs"),
    ("patch", "ray.io", "rayjobs"),
    ("create", "", "configmaps"),
    ("patch", "", "configmaps"),
)
_HINT_NODES = "ask for less in the recipe's section scale, or add nodes"


def check_access(cluster: Cluster) -> None:
    """Refuse where no job can be submitted at all: no such namespace, no KubeRay, no rights.

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
    """Refuse a job that would only wait for ever: what it names is missing, a quota or the nodes do not suffice.

    Parameters
    ----------
    cluster
        Where it is to run.
    manifest
        What would be sent.
    platform
        What the cluster's operator has decided.
    say
        Told of what could not be looked at, and of what may come yet.

    Raises
    ------
    CytorayError
        In one sentence, with what to do.
    """
    _references(cluster, manifest, say)
    _quotas(cluster, manifest, say)
    _nodes(cluster, manifest, platform, say)


def check_namespace(cluster: Cluster) -> None:
    """Refuse a namespace that does not exist, where the caller may look at it."""
    try:
        found = cluster.find(f"/api/v1/namespaces/{cluster.namespace}")
    except RefusedError as refused:
        if refused.code == 403:  # whoever may use one namespace only need not be allowed to look at it
            return
        raise
    if found is None:
        raise no_namespace(cluster.namespace)


def _kuberay(cluster: Cluster) -> None:
    kinds = cluster.find(f"/apis/{RAY_GROUP}")
    if kinds is None or not any(one.get("name") == "rayjobs" for one in kinds.get("resources") or []):
        raise no_kuberay()


def _references(cluster: Cluster, manifest: Manifest, say: Say) -> None:
    """Look whether all that the manifest names is there."""
    for path, what, name, hint in _named(cluster, manifest):
        try:
            found = cluster.find(path)
        except RefusedError as refused:
            if refused.code != 403:
                raise
            say(f"not looked at, for want of rights: {what} {name}")
            continue
        if found is None:
            raise PlatformError(f"there is no {what} {name} in the namespace {cluster.namespace}", hint=hint)


def _named(cluster: Cluster, manifest: Manifest) -> Iterator[tuple[str, str, str, str]]:
    """Yield address, kind and name of all that is named, and what to do without it."""
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
            "install the chart helm/cytoray, which makes it, or make one of that name, ReadWriteMany for several nodes"
            if volume == "home"
            else "look at the recipe's data: pvc://CLAIM/…"
        )
        yield cluster.path("v1", "persistentvolumeclaims", name), "volume claim", name, hint
    for name in sorted(secrets):
        yield cluster.path("v1", "secrets", name), "secret", name, "have the secrets that the platform names set up"
    account = manifest.head["serviceAccountName"]
    make = f"install the chart helm/cytoray, which makes it, or: kubectl create serviceaccount {account}"
    yield cluster.path("v1", "serviceaccounts", account), "service account", account, make
    queue = manifest.rayjob["metadata"]["labels"].get(QUEUE_LABEL)
    if queue:
        version = cluster.preferred(KUEUE_GROUP)
        if version is None:
            raise PlatformError(
                f"the job asks for the queue {queue}, but this cluster has no Kueue",
                field="scale.queue",
                hint="leave scale.queue out, or have Kueue installed",
            )
        path = cluster.path(version, "localqueues", queue)
        yield path, "queue of Kueue", queue, "name another in scale.queue, or have the queue set up"
    priority = (manifest.worker or manifest.head).get("priorityClassName")
    if priority:
        path = f"/apis/scheduling.k8s.io/v1/priorityclasses/{priority}"
        yield path, "priority class", priority, "name another in scale.priority"


def _pods(manifest: Manifest) -> list[tuple[Mapping[str, Any], int]]:
    """Return the pods that a job starts with, each with its number."""
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
    """Compare what the job starts with to what the namespace may have."""
    try:
        quotas, _ = cluster.list(cluster.path("v1", "resourcequotas"))
    except RefusedError as refused:
        if refused.code != 403:
            raise
        say("not looked at, for want of rights: the quotas of the namespace")
        return
    asked = _asked(manifest)
    queued = QUEUE_LABEL in manifest.rayjob["metadata"]["labels"]
    for quota in quotas:
        spec, status = quota.get("spec") or {}, quota.get("status") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue  # for some kinds of pods only
        name, used = quota["metadata"]["name"], status.get("used") or {}
        for resource, limit in (status.get("hard") or spec.get("hard") or {}).items():
            need, hard = asked.get(resource, Decimal(0)), quantity(limit)
            if need + quantity(used.get(resource, "0")) <= hard or not need:
                continue
            told = explain_quota(
                f"exceeded quota: {name}, requested: {resource}={written(need)}, "
                f"used: {resource}={used.get(resource, '0')}, limited: {resource}={limit}"
            )
            assert told is not None  # it is in the words of the API server  # noqa: S101
            if queued and need <= hard:
                say(f"it will wait: {told[0]}")
            else:
                raise PlatformError(told[0], hint=told[1])


def _asked(manifest: Manifest) -> dict[str, Decimal]:
    """Return what a job starts with, under the names that quotas have for it."""
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
    """Look whether the nodes of today could take the job if they were empty."""
    try:
        nodes, _ = cluster.list("/api/v1/nodes")
    except RefusedError as refused:
        if refused.code != 403:
            raise
        say("not looked at, for want of rights: whether there are nodes for it")
        return
    pods = [(manifest.head, 1), *([(manifest.worker, manifest.least_nodes)] if manifest.worker else [])]
    for problem in dict.fromkeys(_no_room(pod, number, nodes) for pod, number in pods):
        if problem is None:
            continue
        if not platform.autoscaled:
            raise RequestError(problem, field="scale", hint=_HINT_NODES)
        say(f"warning: {problem}; it waits until the cluster has added nodes")


def _no_room(pod: Mapping[str, Any], number: int, nodes: list[dict[str, Any]]) -> str | None:
    """Return what nodes do not have that so many pods need; None where it is all there."""
    selector = pod.get("nodeSelector") or {}
    fit = [
        one
        for one in nodes
        if not (one.get("spec") or {}).get("unschedulable")
        and selector.items() <= (one["metadata"].get("labels") or {}).items()
    ]
    if not fit:
        wanted = ", ".join(f"{key}={value}" for key, value in selector.items())
        return f"the cluster has no node with {wanted}" if selector else "the cluster has no node"
    asked = needs(pod)
    room = 0
    most: dict[str, Decimal] = dict.fromkeys(asked, Decimal(0))
    for node in fit:
        offers = (node.get("status") or {}).get("allocatable") or {}
        has = {name: quantity(offers.get(name, "0")) for name in asked}
        most = {name: max(most[name], has[name]) for name in asked}
        room += int(min(has[name] // asked[name] for name in asked if asked[name]))
    for name, amount in asked.items():
        if most[name] == 0:
            return f"no node of the cluster offers {name}, {written(amount)} of it asked for"
        if most[name] < amount:
            return f"no node of the cluster offers {written(amount)} of {name}; the largest has {written(most[name])}"
    return f"the cluster's nodes have room for {room} of {number} pods of the job" if room < number else None
