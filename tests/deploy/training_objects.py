"""What runs in the training namespace: the objects that Cytoray sends, and those that KubeRay makes of them."""

from __future__ import annotations

import copy
from typing import Any

from cytoray_services.jobs.kubernetes.manifest import build
from cytoray_services.jobs.platform import Platform
from deploy.charts import Manifest, render
from services.jobs.kubernetes.lab import make_submission

NAMESPACE = "cytoray-training"


def chart(**training: Any) -> list[Manifest]:
    choices = {"priorities": ["urgent"]}
    training = {"namespace": NAMESPACE, "dataClaims": ["images"], "priorities": ["usual"], **training}
    return render(
        {
            "training": training,
            "image": {"pullSecrets": ["registry"]},
            "platform": {"secrets": ["data-login"], "priority": "low"},
            "jobs": {"config": {"choices": choices}},
        }
    )


def rayjob(platform: Platform, **scale: Any) -> Manifest:
    submission = make_submission(data=("pvc://images/nuclei",), workers=2, **scale)
    return build(submission, platform, owner="ann", team="cells").rayjob


def cluster_of(job: Manifest) -> Manifest:
    """Return the Ray cluster that KubeRay makes for a job."""
    spec = copy.deepcopy(job["spec"]["rayClusterSpec"])
    if job["spec"]["submissionMode"] == "SidecarMode":
        submitter = {"name": "ray-job-submitter", "image": "a:1", "env": auth_of(job)}
        spec["headGroupSpec"]["template"]["spec"]["containers"].append(submitter)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": f"{job['metadata']['name']}-abcde", "labels": job["metadata"]["labels"]},
        "spec": spec,
    }


def auth_of(job: Manifest) -> list[Manifest]:
    """Return the variables with which KubeRay gives containers the token of their cluster."""
    token = {"secretKeyRef": {"name": f"{job['metadata']['name']}-abcde", "key": "auth_token"}}
    return [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": token}]


def pods_of(job: Manifest) -> list[Manifest]:
    """Return the pods of a job, with what KubeRay adds."""
    cluster = cluster_of(job)["spec"]
    auth = auth_of(job)
    templates = [cluster["headGroupSpec"]["template"], *(one["template"] for one in cluster["workerGroupSpecs"])]
    pods: list[Manifest] = []
    name = job["metadata"]["name"]
    for template in (
        *templates,
        *([job["spec"].get("submitterPodTemplate")] if "submitterPodTemplate" in job["spec"] else []),
    ):
        spec = copy.deepcopy(template["spec"])
        if template is templates[0] and cluster["enableInTreeAutoscaling"]:
            own = ("version", "upscalingMode", "idleTimeoutSeconds")  # of the autoscaler, not of its container
            options = {name: value for name, value in cluster["autoscalerOptions"].items() if name not in own}
            spec["containers"].append({"name": "autoscaler", "image": "a:1", **options})
        if template in templates[1:]:
            spec["initContainers"] = [{"name": "wait-gcs-ready", "image": "a:1"}]
        for container in (*spec["containers"], *spec.get("initContainers", [])):
            container["env"] = [*container.get("env", []), *auth]
        found = {"ray.io/cluster": f"{name}-abcde"} if template in templates else {"batch.kubernetes.io/job-name": name}
        metadata = {"name": f"pod-{len(pods)}", **template["metadata"]}
        metadata["labels"] = found | metadata["labels"]  # KubeRay leaves what a template has
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    return pods


def head(job: Manifest) -> Any:
    return job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]


def worker(job: Manifest) -> Any:
    return job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]


def submitter(job: Manifest) -> Any:
    return job["spec"]["submitterPodTemplate"]["spec"]
