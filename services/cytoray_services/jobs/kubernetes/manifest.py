"""A submission as Kubernetes objects: the RayJob and the ConfigMap with its recipe."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from cytoray_analysis.errors import RequestError
from cytoray_services.jobs.kubernetes.quantities import quantity, total, written
from cytoray_services.jobs.kubernetes.written_back import written_back
from cytoray_services.jobs.platform import Nodes, Platform
from cytoray_services.jobs.submission import Submission

RAY_GROUP = "ray.io/v1"
KUEUE_GROUP = "kueue.x-k8s.io"
QUEUE_LABEL = f"{KUEUE_GROUP}/queue-name"
JOB_LABEL, MODEL_LABEL, TEAM_LABEL = "cytoray.io/job", "cytoray.io/model", "cytoray.io/team"
OWNER, COMMAND, NAME, SCALE = "cytoray.io/owner", "cytoray.io/command", "cytoray.io/name", "cytoray.io/scale"
PART_OF = {"app.kubernetes.io/part-of": "cytoray", "app.kubernetes.io/component": "training"}
RECIPE = "recipe.yaml"
FOLDER = "/etc/cytoray/job"
CERTIFICATES = "/etc/cytoray/ca"

_HEAD_SHARED_MEMORY = "1Gi"
_LABEL = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")
_MOST_BYTES = 2**20 - 2**12  # of the values of a ConfigMap; Kubernetes accepts 1 MiB, including names


class PlainDumper(yaml.SafeDumper):
    """Readable YAML: long texts as blocks, indented lists, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write no anchors."""
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent lists also."""
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


PlainDumper.add_representer(str, _text)


@dataclass(frozen=True)
class Manifest:
    """The objects of a job.

    Attributes
    ----------
    rayjob, config_map
        The objects, without a namespace.
    least_nodes
        Minimum number of worker pods.
    """

    rayjob: dict[str, Any]
    config_map: dict[str, Any]
    least_nodes: int

    @property
    def head(self) -> dict[str, Any]:
        """Specification of the head pod."""
        return dict(self.rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"])

    @property
    def worker(self) -> dict[str, Any] | None:
        """Specification of a worker pod; None if the head does all the work."""
        groups = self.rayjob["spec"]["rayClusterSpec"].get("workerGroupSpecs")
        return dict(groups[0]["template"]["spec"]) if groups else None

    def as_yaml(self, namespace: str) -> str:
        """Return both as YAML for ``kubectl apply``."""
        objects = [copy.deepcopy(self.rayjob), copy.deepcopy(self.config_map)]
        for one in objects:
            one["metadata"] = {"name": one["metadata"].pop("name"), "namespace": namespace, **one["metadata"]}
        return yaml.dump_all(objects, Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=120)


def build(
    submission: Submission, platform: Platform, *, owner: str, team: str | None = None, code: bytes | None = None
) -> Manifest:
    """Write a submission as Kubernetes objects.

    Parameters
    ----------
    submission
        The submission.
    platform
        Configuration of the cluster.
    owner, team
        Who submits it.
    code
        A zip with packages that take precedence over those of the image; None for none.

    Raises
    ------
    RequestError
        The platform has no such data claim, cannot run so many nodes, or Kubernetes does not accept a name.
    """
    scale = submission.scale
    per_node = min(scale.workers, scale.workers_per_node)
    nodes, least = math.ceil(scale.workers / per_node), math.ceil(scale.least_workers / per_node)
    queue = scale.queue or platform.queue
    labels = _labels(submission, team)
    rayjob: dict[str, Any] = _template()
    spec = rayjob["spec"]
    cluster = spec["rayClusterSpec"]
    head, group = cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]

    rayjob["metadata"] = {
        "name": submission.id,
        "labels": labels | ({QUEUE_LABEL: queue} if queue else {}),
        "annotations": {
            OWNER: owner,
            COMMAND: submission.command,
            NAME: submission.name,
            SCALE: scale.model_dump_json(),
        },
    }
    spec["entrypoint"] = f"cytoray {submission.command} {FOLDER}/{RECIPE} --on auto --json"
    spec["submissionMode"] = platform.submitter
    spec["ttlSecondsAfterFinished"] = platform.keep_seconds
    if queue:
        spec["suspend"] = True  # Kueue resumes it
    if scale.wait_minutes > 0:
        spec["preRunningDeadlineSeconds"] = max(1, round(scale.wait_minutes * 60))
    if platform.deadline_seconds is not None:
        spec["activeDeadlineSeconds"] = platform.deadline_seconds
    if code is not None:
        spec["runtimeEnvYAML"] = yaml.safe_dump({"py_modules": [f"file://{FOLDER}/code.zip"]})

    image = platform.images.gpu if scale.gpus_per_worker else platform.images.cpu
    claims = _data_claims(submission, platform)
    for template in (head["template"], group["template"]):
        _fill_node(template, submission, platform, labels, image, claims)
    head["template"]["spec"]["containers"][0]["name"] = "ray-head"
    group["template"]["spec"]["containers"][0]["name"] = "ray-worker"
    _size_head(head, platform)
    _size_worker(group, submission, platform, per_node)
    # Kueue admits a job as a whole and accepts none that an autoscaler changes; lost pods are still replaced.
    elastic = nodes > least and not queue
    group["replicas"] = least if elastic else nodes
    group["minReplicas"], group["maxReplicas"] = least if elastic else nodes, nodes
    cluster["enableInTreeAutoscaling"] = elastic
    if elastic:
        cluster["autoscalerOptions"]["imagePullPolicy"] = platform.images.pull_policy
        head["template"]["spec"]["volumes"].append(_api_access())
    else:
        del cluster["autoscalerOptions"]
    if platform.submitter == "K8sJobMode":
        _fill_pod(spec["submitterPodTemplate"], platform, labels, image)
    else:  # KubeRay submits itself, without a template
        del spec["submitterPodTemplate"], spec["submitterConfig"]
    if platform.home_claim is None:
        _on_the_head(cluster, nodes)
    # Then KubeRay changes nothing in it, and it can be applied again.
    return Manifest(written_back(rayjob), _config_map(submission, labels, code), least)


def _template() -> dict[str, Any]:
    text = files(__package__).joinpath("rayjob.yaml").read_text(encoding="utf-8")
    # Through JSON, because parts that YAML anchors share would be changed together.
    return dict(json.loads(json.dumps(yaml.safe_load(text))))


def _api_access() -> dict[str, Any]:
    """Return the volume with which only the autoscaler can request pods from the API server.

    By default Kubernetes mounts it into all containers of a pod; the code of the training run does not need it.
    """
    authorities = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": authorities},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": "api-access", "projected": {"sources": sources}}


def _labels(submission: Submission, team: str | None) -> dict[str, str]:
    if team is not None and not _LABEL.match(team):
        raise RequestError(
            f"expected a team that is a valid label of Kubernetes, got {team!r}",
            field="team",
            hint="use at most 63 letters, digits, '-', '_' and '.'",
        )
    named = {MODEL_LABEL: submission.name} if _LABEL.match(submission.name) else {}
    return PART_OF | {JOB_LABEL: submission.id} | named | ({TEAM_LABEL: team} if team else {})


def _data_claims(submission: Submission, platform: Platform) -> list[tuple[str, str]]:
    """Return the claims that the recipe names, each with its visible folder; empty for the whole claim."""
    named = {_claim_and_folder(one) for one in submission.data if one.startswith("pvc://")}
    seen = {(claim, "") for claim, _ in named}
    if submission.within is not None:
        seen = {_claim_and_folder(one) for one in submission.within if one.startswith("pvc://")}
    for claim in sorted({claim for claim, _ in named | seen}):
        if claim not in platform.data_claims:
            allowed = ", ".join(platform.data_claims) or "none"
            raise RequestError(
                f"expected a volume claim that jobs here may read, got {claim!r}",
                field="data",
                hint=f"allowed: {allowed}; the operator of the cluster adds others to dataClaims",
            )
    return sorted(one for one in seen if not any(other != one and _holds(other, one) for other in seen))


def _claim_and_folder(uri: str) -> tuple[str, str]:
    claim, _, folder = uri.removeprefix("pvc://").rstrip("/").partition("/")
    return claim, folder


def _holds(place: tuple[str, str], other: tuple[str, str]) -> bool:
    return place[0] == other[0] and (not place[1] or other[1].startswith(f"{place[1]}/"))


def _fill_pod(template: dict[str, Any], platform: Platform, labels: Mapping[str, str], image: str) -> None:
    """Add the parts that all pods of a job have."""
    template["metadata"]["labels"] = dict(labels)
    spec = template["spec"]
    spec["serviceAccountName"] = platform.service_account
    if platform.images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in platform.images.pull_secrets]
    if platform.priority:
        spec["priorityClassName"] = platform.priority
    spec["containers"][0] |= {"image": image, "imagePullPolicy": platform.images.pull_policy}


def _fill_node(
    template: dict[str, Any],
    submission: Submission,
    platform: Platform,
    labels: Mapping[str, str],
    image: str,
    claims: Iterable[tuple[str, str]],
) -> None:
    """Add the common parts of the head and the workers: volumes, environment, secrets."""
    _fill_pod(template, platform, labels, image)
    spec = template["spec"]
    if submission.scale.priority:
        spec["priorityClassName"] = submission.scale.priority
    container = spec["containers"][0]
    container["env"] = [one for one in container["env"] if one["name"] not in platform.environment] + [
        {"name": name, "value": value} for name, value in sorted(platform.environment.items())
    ]
    if platform.secrets:
        container["envFrom"] = [{"secretRef": {"name": name}} for name in platform.secrets]
    volumes = {one["name"]: one for one in spec["volumes"]}
    volumes["job"]["configMap"]["name"] = submission.id
    if platform.home_claim is None:
        volumes["home"] |= {"emptyDir": {}}
        del volumes["home"]["persistentVolumeClaim"]
    else:
        volumes["home"]["persistentVolumeClaim"]["claimName"] = platform.home_claim
    if platform.private_ca is not None:
        items = [{"key": platform.private_ca.key, "path": "ca.crt"}]
        spec["volumes"].append({"name": "ca", "configMap": {"name": platform.private_ca.config_map, "items": items}})
        container["volumeMounts"].append({"name": "ca", "mountPath": CERTIFICATES, "readOnly": True})
    for claim, folder in claims:
        volume = f"data-{claim}"[:63].rstrip("-.").replace(".", "-")
        source = {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        if source not in spec["volumes"]:
            spec["volumes"].append(source)
        mount = {"name": volume, "mountPath": f"/data/{claim}/{folder}".rstrip("/"), "readOnly": True}
        # The kubelet prevents that a link leads out of a folder that is mounted separately.
        container["volumeMounts"].append(mount | ({"subPath": folder} if folder else {}))


def _size_head(head: dict[str, Any], platform: Platform) -> None:
    scratch = next(one for one in head["template"]["spec"]["volumes"] if one["name"] == "scratch")
    resources = {"cpu": platform.head_cpus, "memory": total(platform.head_memory, _HEAD_SHARED_MEMORY)}
    _set_resources(head, resources, shared_memory=_HEAD_SHARED_MEMORY, scratch=scratch["emptyDir"]["sizeLimit"])


def _size_worker(group: dict[str, Any], submission: Submission, platform: Platform, per_node: int) -> None:
    scale = submission.scale
    cpus, gpus = scale.cpus_per_worker * per_node, scale.gpus_per_worker * per_node
    memory = total(*[scale.memory_per_worker] * per_node, scale.shared_memory)
    resources = {"cpu": str(cpus), "memory": memory} | ({platform.gpus.resource: str(gpus)} if gpus else {})
    group["rayStartParams"] |= {"num-cpus": str(cpus), "num-gpus": str(gpus)}
    _set_resources(group, resources, shared_memory=scale.shared_memory, scratch=scale.scratch)
    spec = group["template"]["spec"]
    kinds: list[Nodes] = [*([platform.gpus] if gpus else []), *([platform.spot] if scale.spot else [])]
    selector = {key: value for kind in kinds for key, value in kind.node_selector.items()}
    if scale.accelerator is not None:
        selector[platform.gpus.product_label] = scale.accelerator
    if selector | scale.node_selector:
        spec["nodeSelector"] = selector | scale.node_selector
    tolerations = [*[one for kind in kinds for one in kind.tolerations], *scale.tolerations]
    if tolerations:
        spec["tolerations"] = [one.model_dump(exclude_none=True) for one in dict.fromkeys(tolerations)]
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",  # with few nodes it runs nevertheless
            "labelSelector": {"matchLabels": {JOB_LABEL: submission.id, "ray.io/node-type": "worker"}},
        }
    ]


def _set_resources(group: dict[str, Any], resources: dict[str, str], *, shared_memory: str, scratch: str) -> None:
    """Set requests equal to limits, so that no pod is slowed down or ended because of its neighbours."""
    spec = group["template"]["spec"]
    spec["containers"][0]["resources"] = {
        "requests": resources | {"ephemeral-storage": scratch},
        "limits": dict(resources),
    }
    volumes = {one["name"]: one for one in spec["volumes"]}
    volumes["shared-memory"]["emptyDir"]["sizeLimit"] = shared_memory
    volumes["scratch"]["emptyDir"]["sizeLimit"] = scratch
    # Half for Ray's objects; the rest for DeepSpeed and NCCL.
    group["rayStartParams"]["object-store-memory"] = str(int(quantity(shared_memory)) // 2)


def _on_the_head(cluster: dict[str, Any], nodes: int) -> None:
    """Without a volume that all nodes share there is one node: the head does the work of the workers."""
    if nodes > 1:
        raise RequestError(
            f"expected workers on one node, because the platform has no homeClaim, got {nodes} nodes",
            field="scale.workers",
            hint="raise scale.workers_per_node, or ask the operator for a claim that all nodes can write to",
        )
    head, group = cluster["headGroupSpec"], cluster["workerGroupSpecs"].pop()
    cluster["enableInTreeAutoscaling"] = False
    cluster.pop("autoscalerOptions", None)
    group["rayStartParams"]["dashboard-host"] = head["rayStartParams"]["dashboard-host"]
    asked, drivers = (one["template"]["spec"]["containers"][0]["resources"] for one in (group, head))
    for kind in ("requests", "limits"):
        asked[kind]["memory"] = total(asked[kind]["memory"], drivers[kind]["memory"])
        asked[kind]["cpu"] = written(quantity(asked[kind]["cpu"]) + quantity(drivers[kind]["cpu"]))
    del group["template"]["spec"]["topologySpreadConstraints"]
    cluster["headGroupSpec"] = {"rayStartParams": group["rayStartParams"], "template": group["template"]}


def _config_map(submission: Submission, labels: Mapping[str, str], code: bytes | None) -> dict[str, Any]:
    import base64

    size = len(submission.recipe.encode()) + len(code or b"")
    if size > _MOST_BYTES:
        what = "the recipe and the code are" if code else "the recipe is"
        raise RequestError(
            f"{what} too large for a ConfigMap: expected at most {_MOST_BYTES // 1024} KiB, got {size // 1024}",
            field="code" if code else "recipe",
            hint="build an image with the code, and set it as the image of the platform",
        )
    packed = {"binaryData": {"code.zip": base64.b64encode(code).decode()}} if code is not None else {}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": submission.id, "labels": dict(labels)},
        "data": {RECIPE: submission.recipe},
        **packed,
    }
