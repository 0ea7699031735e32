"""KubeRay's part, played for tests: its rules for a RayJob, and the states that its operator takes one through."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest

from deploy.charts import CRDS, validate
from deploy.kuberay_rules import LONGEST_NAME, cluster_problems
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.objects import Json, StatusError

NAMESPACE = "lab"


def check_rayjob(resource: str, body: Json) -> None:
    """Refuse what the definition of RayJob does not have, in the words of server-side apply."""
    if resource != "rayjobs" or not CRDS.is_dir():
        return
    problems = validate({"metadata": {"name": "x"}, **body})
    if problems:
        raise StatusError(500, "", f"failed to create typed patch object: {problems[0]}: field not declared in schema")


def refused_by_operator(rayjob: Json) -> str | None:
    """Return why KubeRay v1.7.0 sets a RayJob to ValidationFailed (its ValidateRayJobSpec); None where it does not."""
    spec, metadata = rayjob["spec"], rayjob["metadata"]
    cluster = spec["rayClusterSpec"]
    shuts_down = spec.get("shutdownAfterJobFinishes")
    rules = [
        (len(metadata["name"]) > LONGEST_NAME, "RayJob name should be no more than 47 characters"),
        (not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", metadata["name"]), "RayJob name should be a DNS1035 label"),
        (spec.get("suspend") and not shuts_down, "suspend wants shutdownAfterJobFinishes"),
        (spec.get("ttlSecondsAfterFinished", 0) and not shuts_down, "TTL wants shutdownAfterJobFinishes"),
        (spec.get("activeDeadlineSeconds", 1) <= 0, "activeDeadlineSeconds must be a positive integer"),
        (spec.get("backoffLimit", 0) < 0, "backoffLimit must be a positive integer"),
        (
            spec["submissionMode"] == "SidecarMode" and ("submitterPodTemplate" in spec or "submitterConfig" in spec),
            "SidecarMode doesn't support SubmitterPodTemplate",
        ),
        # Kueue's webhook, for a job with a queue.
        (
            cluster.get("enableInTreeAutoscaling") and "kueue.x-k8s.io/queue-name" in metadata.get("labels", {}),
            "a kueue managed job should not use autoscaling",
        ),
    ]
    own = [text for broken, text in rules if broken]
    return next(iter([*own, *cluster_problems(cluster, metadata.get("annotations"))]), None)


class Operator:
    """Does to a RayJob what KubeRay's operator does, one step at a call."""

    def __init__(self, server: ApiServer, name: str) -> None:
        self.server, self.name = server, name
        self.cluster = f"{name}-{uuid.uuid4().hex[:5]}"

    @property
    def rayjob(self) -> Json:
        return self.server.objects.get("rayjobs", NAMESPACE, self.name)

    def status(self, **fields: Any) -> None:
        self.server.objects.merge("rayjobs", NAMESPACE, self.name, {"status": fields}, "kuberay-operator")

    def initialize(self) -> None:
        """New → Initializing (or, where it is suspended, Suspended): finalizer, names, and the RayCluster."""
        refused = refused_by_operator(self.rayjob)
        if refused:
            self.status(jobDeploymentStatus="ValidationFailed", reason="ValidationFailed", message=refused)
            return
        finalizers = {"metadata": {"finalizers": ["ray.io/rayjob-finalizer"]}}
        self.server.objects.merge("rayjobs", NAMESPACE, self.name, finalizers, "kuberay-operator")
        if self.rayjob["spec"].get("suspend"):
            self.status(jobDeploymentStatus="Suspended", jobStatus="")
            return
        job_id = f"{self.name}-{uuid.uuid4().hex[:5]}"
        self.status(
            jobDeploymentStatus="Initializing",
            jobId=job_id,
            rayClusterName=self.cluster,
            startTime="2026-11-20T10:00:00Z",
        )
        self._own("rayclusters", self.cluster, {"spec": self.rayjob["spec"]["rayClusterSpec"]})

    def make_pods(self, *, phase: str = "Pending", **status: Any) -> list[str]:
        """Create the head and the workers that the RayCluster starts with."""
        cluster = self.rayjob["spec"]["rayClusterSpec"]
        wanted = [("head", 1, cluster["headGroupSpec"])]
        wanted += [("worker", group["replicas"], group) for group in cluster.get("workerGroupSpecs", ())]
        names = []
        for kind, number, group in wanted:
            for at in range(number):
                name = f"{self.cluster}-{kind}-{at}"
                labels = group["template"]["metadata"]["labels"] | {
                    "ray.io/node-type": kind,
                    "ray.io/cluster": self.cluster,
                }
                body = {"spec": group["template"]["spec"], "status": {"phase": phase, **status}}
                names.append(self._own("pods", name, body, labels))
        return names

    def set_pod(self, name: str, **status: Any) -> None:
        self.server.objects.merge("pods", NAMESPACE, name, {"status": status}, "kubelet")

    def warn(self, reason: str, message: str, *, about: str | None = None, at: str = "2026-11-20T10:00:05Z") -> None:
        event = {
            "metadata": {"generateName": "event-"},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "involvedObject": {"kind": "RayCluster", "name": about or self.cluster},
            "lastTimestamp": at,
        }
        self.server.objects.create("events", NAMESPACE, event)

    def run(self) -> str:
        """Initializing → Running: pods are ready, the submitter follows the driver; returns the submitter's pod."""
        for pod in self.server.objects.list("pods", NAMESPACE, [("label:ray.io/cluster", self.cluster)]):
            ready = [{"type": "Ready", "status": "True"}]
            self.set_pod(pod["metadata"]["name"], phase="Running", conditions=ready)
        self.status(
            jobDeploymentStatus="Running",
            jobStatus="RUNNING",
            dashboardURL=f"{self.cluster}-head-svc.{NAMESPACE}.svc.cluster.local:8265",
            rayJobInfo={"startTime": "2026-11-20T10:01:00Z"},
        )
        return self.submit()

    def submit(self, number: int = 0) -> str:
        """Create a pod of the submitting Job, which runs."""
        template = self.rayjob["spec"]["submitterPodTemplate"]
        name = f"{self.name}-{number}"
        body = {
            "spec": template["spec"],
            "status": {"containerStatuses": [{"name": "ray-job-submitter", "state": {"running": {}}}]},
        }
        created = f"2026-11-20T10:0{number + 1}:00Z"
        return self._own("pods", name, body, template["metadata"]["labels"] | {"job-name": self.name}, created)

    def finish(self, job: str = "SUCCEEDED", **status: Any) -> None:
        """Running → Complete or Failed."""
        deployment = "Failed" if job == "FAILED" else "Complete"
        info = {"startTime": "2026-11-20T10:01:00Z", "endTime": "2026-11-20T10:03:00Z"}
        self.status(
            jobDeploymentStatus=deployment, jobStatus=job, rayJobInfo=info, endTime="2026-11-20T10:03:05Z", **status
        )

    def suspend(self) -> None:
        """Running → Suspending → Suspended: the cluster and the submitting Job are deleted, the status is reset."""
        assert self.rayjob["spec"]["suspend"], "nobody has asked for it"
        self.status(jobDeploymentStatus="Suspending")
        for pod in self.server.objects.names("pods", NAMESPACE):
            self.server.objects.delete("pods", NAMESPACE, pod)
        self.status(
            jobDeploymentStatus="Suspended", jobStatus="", rayClusterName="", jobId="", dashboardURL="", rayJobInfo=None
        )

    def release(self) -> None:
        """Let a deleted RayJob go: remove the finalizer."""
        self.server.objects.merge(
            "rayjobs", NAMESPACE, self.name, {"metadata": {"finalizers": None}}, "kuberay-operator"
        )

    def _own(self, resource: str, name: str, body: Json, labels: Json | None = None, created: str | None = None) -> str:
        owner = {"kind": "RayJob", "apiVersion": "ray.io/v1", "name": self.name, "uid": self.rayjob["metadata"]["uid"]}
        metadata = {"name": name, "labels": labels or {}, "ownerReferences": [owner], "creationTimestamp": created}
        self.server.objects.create(resource, NAMESPACE, {**body, "metadata": metadata}, "kuberay-operator")
        return name


needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason="there is no ../shared/kuberay-crds beside this checkout")
