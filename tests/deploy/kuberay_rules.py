"""What KubeRay 1.7 refuses beyond its schemas: the rules of its operator and of its webhook, for what is checked here.

They are the functions ``ValidateRayServiceMetadata``, ``ValidateRayServiceSpec`` and ``ValidateRayClusterSpec`` of
KubeRay; an object that breaks one is taken by the API server and then never runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# KubeRay appends six characters for the cluster, and ten for its longest service.
LONGEST_NAME = 47
UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
_DNS_1035 = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")
_SIZES = ("num-cpus", "num-gpus", "memory", "resources")
_MANAGED = ("REDIS_PASSWORD", "REDIS_USERNAME", "RAY_REDIS_ADDRESS", "RAY_enable_autoscaler_v2")

Json = Mapping[str, Any]


def service_problems(service: Json) -> list[str]:
    """Return what KubeRay would refuse in a RayService."""
    return list(_of_service(service))


def cluster_problems(cluster: Json, annotations: Json | None = None) -> list[str]:
    """Return what KubeRay would refuse in the specification of a Ray cluster.

    Parameters
    ----------
    cluster
        ``rayClusterConfig`` of a RayService, ``rayClusterSpec`` of a RayJob or ``spec`` of a RayCluster.
    annotations
        Of that object.
    """
    return [*_of_cluster(cluster, annotations or {}), *_of_groups(cluster)]


def _of_service(service: Json) -> Iterator[str]:
    metadata, spec = service["metadata"], service["spec"]
    if len(metadata["name"]) > LONGEST_NAME or not _DNS_1035.match(metadata["name"]):
        yield f"metadata.name: {metadata['name']!r} is too long, or no DNS-1035 label"
    upgrade = spec.get("upgradeStrategy", {})
    if upgrade.get("type", "NewCluster") not in UPGRADES:
        yield f"upgradeStrategy.type: {upgrade['type']!r} is none of {UPGRADES}"
    if upgrade.get("type") == "NewClusterWithIncrementalUpgrade":
        options = upgrade.get("clusterUpgradeOptions") or {}
        if not options.get("gatewayClassName") or options.get("intervalSeconds", 0) <= 0:
            yield "clusterUpgradeOptions: needs gatewayClassName and intervalSeconds"
        if not 0 <= options.get("stepSizePercent", -1) <= options.get("maxSurgePercent", 100) <= 100:
            yield "clusterUpgradeOptions: stepSizePercent must lie between 0 and maxSurgePercent"
        if not spec["rayClusterConfig"].get("enableInTreeAutoscaling"):
            yield "upgradeStrategy: incremental upgrades need the autoscaler"
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "rayClusterDeletionDelaySeconds is negative"
    if "headService" in spec["rayClusterConfig"]["headGroupSpec"]:
        yield "headGroupSpec.headService: KubeRay names it itself"
    if spec["rayClusterConfig"].get("upgradeStrategy"):
        yield "rayClusterConfig.upgradeStrategy: only for clusters that nobody else made"
    yield from cluster_problems(spec["rayClusterConfig"], metadata.get("annotations"))


def _of_cluster(cluster: Json, annotations: Json) -> Iterator[str]:
    head = cluster["headGroupSpec"]
    names = {one["name"] for one in head["template"]["spec"]["containers"][0].get("env", ())}
    if taken := names.intersection(_MANAGED):
        yield f"head: sets {sorted(taken)}, which KubeRay sets"
    tolerance = cluster.get("gcsFaultToleranceOptions")
    if tolerance is not None:
        if {"ray.io/ft-enabled", "ray.io/external-storage-namespace"} & annotations.keys():
            yield "annotations: GCS fault tolerance is set twice"
        if tolerance.get("backend", "redis") == "redis" and "storage" in tolerance:
            yield "gcsFaultToleranceOptions.storage: not with Redis"
    if "redis-password" in head["rayStartParams"] or "redis-username" in head["rayStartParams"]:
        yield "head: rayStartParams names the login of Redis"
    options = cluster.get("autoscalerOptions") or {}
    if cluster.get("enableInTreeAutoscaling") and options.get("version") == "v2":
        for place, template in _templates(cluster):
            if template["spec"].get("restartPolicy", "Never") != "Never":
                yield f"{place}: restartPolicy must be Never or unset with autoscaler v2"
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds is negative"
    if any(one["name"] == "KUBERAY_GEN_AUTOSCALER_START_CMD" for one in options.get("env", ())):
        yield "autoscalerOptions.env: sets a variable of KubeRay"
    if (cluster.get("authOptions") or {}).get("mode") == "token" and not cluster.get("rayVersion"):
        yield "authOptions: needs rayVersion"


def _of_groups(cluster: Json) -> Iterator[str]:
    groups = cluster.get("workerGroupSpecs", [])
    names = [one["groupName"] for one in groups]
    if len(set(names)) != len(names):
        yield f"workerGroupSpecs: names are not unique: {names}"
    scales = bool(cluster.get("enableInTreeAutoscaling"))
    second = (cluster.get("autoscalerOptions") or {}).get("version") == "v2"
    for place, group in (("head", cluster["headGroupSpec"]), *zip(names, groups, strict=True)):
        parameters = group.get("rayStartParams", {})
        if group.get("resources") and any(parameters.get(size) for size in _SIZES):
            yield f"{place}: resources are given twice"
        if "labels" in parameters:
            yield f"{place}: rayStartParams.labels is not supported"
        if "resources" in parameters:
            json.loads(parameters["resources"].strip("'\"").replace("\\", ""))
        if place == "head":
            continue
        if not _DNS_1035.match(place):
            yield f"{place}: no name that pods can carry"
        if not scales and not {"minReplicas", "maxReplicas"} <= group.keys():
            yield f"{place}: needs minReplicas and maxReplicas without the autoscaler"
        if not 0 <= group.get("minReplicas", 0) <= group.get("maxReplicas", 2**31 - 1):
            yield f"{place}: minReplicas is more than maxReplicas, or negative"
        if "idleTimeoutSeconds" in group and not (scales and second):
            yield f"{place}: idleTimeoutSeconds needs autoscaler v2"
        if scales and group.get("suspend"):
            yield f"{place}: cannot be suspended with the autoscaler"


def _templates(cluster: Json) -> Iterator[tuple[str, Json]]:
    yield "head", cluster["headGroupSpec"]["template"]
    for group in cluster.get("workerGroupSpecs", []):
        yield group["groupName"], group["template"]
