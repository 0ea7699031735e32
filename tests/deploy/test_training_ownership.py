"""The admission policy between jobs of one namespace: none reaches the cluster, the token or the pods of another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from cytoray_services.jobs.platform import Platform
from deploy.admission import refusals
from deploy.charts import Manifest, validate
from deploy.training_objects import NAMESPACE, cluster_of, head, pods_of, rayjob, submitter, worker

OTHERS = "team-b-job-x7k2q-abcde"
TOKEN = {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": {"name": OTHERS, "key": "auth_token"}}}
MOUNT = {"name": "api-access", "mountPath": "/token", "readOnly": True}
ELASTIC = {"min_workers": 1, "workers_per_node": 1}


def refused(policies: list[Manifest], what: Manifest, sentence: str, **how: Any) -> None:
    assert validate(what) == []  # without the policy an API server takes it
    found = refusals(policies, what, namespace=NAMESPACE, **how)
    assert len(found) == 1, found
    assert sentence in found[0]


def test_a_job_is_not_sent_to_the_cluster_of_others_once_it_has_been_let_in(
    policies: list[Manifest], platform: Platform
) -> None:
    before = rayjob(platform)
    before["spec"]["suspend"] = True
    job = copy.deepcopy(before)
    job["spec"] |= {"clusterSelector": {"ray.io/cluster": OTHERS}, "suspend": False}
    refused(policies, job, "no clusterSelector", before=before)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "goes on": lambda spec: spec.update(suspend=False),
    "forgets that it is stopped": lambda spec: spec.pop("suspend"),
    "does something else": lambda spec: spec.update(entrypoint="sleep 1"),
    "does it in another way": lambda spec: spec.update(submissionMode="HTTPMode"),
    "has no submitter": lambda spec: spec.pop("submitterPodTemplate"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_in_a_job_but_its_end_is_looked_at(
    policies: list[Manifest], platform: Platform, change: str
) -> None:
    before = rayjob(platform)
    before["spec"]["suspend"] = True
    head(before)["volumes"].append({"name": "stolen", "secret": {"secretName": "cytoray-postgresql"}})
    after = copy.deepcopy(before)
    CHANGES[change](after["spec"])
    refused(policies, after, "no other volumes", before=before)


@pytest.mark.slow
@pytest.mark.parametrize("which", [head, worker, submitter])
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_code_of_a_job_mounts_no_token_of_the_account(
    policies: list[Manifest], platform: Platform, which: Callable[[Any], Any], kind: str
) -> None:
    job = rayjob(platform, **ELASTIC)
    # A container of that name in a template is not KubeRay's.
    own = {"name": "autoscaler", "image": "a:1", "volumeMounts": [MOUNT]}
    which(job).setdefault(kind, []).append(own)
    refused(policies, job, "api-access")
    if which is not submitter:
        refused(policies, cluster_of(job), "api-access")


def test_a_container_beside_the_autoscaler_mounts_no_token_of_the_account(
    policies: list[Manifest], platform: Platform
) -> None:
    pod = pods_of(rayjob(platform, **ELASTIC))[0]
    assert [one["name"] for one in pod["spec"]["containers"]] == ["ray-head", "autoscaler"]
    pod["spec"]["containers"][0]["volumeMounts"].append(MOUNT)
    refused(policies, pod, "api-access")
    before = pods_of(rayjob(platform, **ELASTIC))[0]
    debugged = copy.deepcopy(before)
    debugged["spec"]["ephemeralContainers"] = [{"name": "debug", "image": "a:1", "volumeMounts": [MOUNT]}]
    refused(policies, debugged, "api-access", before=before, part="ephemeralcontainers")


@pytest.mark.slow
def test_a_cluster_and_a_pod_have_the_token_of_their_own_cluster_alone(
    policies: list[Manifest], platform: Platform
) -> None:
    cluster = cluster_of(rayjob(platform))
    container = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    container["env"].append(TOKEN)
    refused(policies, cluster, "no other secrets")
    container["env"][-1] = copy.deepcopy(TOKEN)
    container["env"][-1]["valueFrom"]["secretKeyRef"]["name"] = cluster["metadata"]["name"]
    assert refusals(policies, cluster, namespace=NAMESPACE) == []
    pods = pods_of(rayjob(platform))
    assert len(pods) == 3
    for pod in pods:
        pod["spec"]["containers"][0]["env"].append(TOKEN)
        refused(policies, pod, "no other secrets")
        del pod["metadata"]["labels"]
        refused(policies, pod, "no other secrets")


def test_the_token_of_a_cluster_whose_name_begins_alike_is_another_one(
    policies: list[Manifest], platform: Platform
) -> None:
    pod = pods_of(rayjob(platform))[2]
    pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] = OTHERS.removesuffix("-x7k2q-abcde")
    pod["spec"]["containers"][0]["env"] = [TOKEN]
    refused(policies, pod, "no other secrets")


@pytest.mark.parametrize(
    "label", ["ray.io/cluster", "ray.io/node-type", "ray.io/identifier", "batch.kubernetes.io/job-name"]
)
@pytest.mark.parametrize("which", ["head", "worker", "submitter"])
def test_a_template_has_no_labels_that_the_pods_of_others_are_found_by(
    policies: list[Manifest], platform: Platform, which: str, label: str
) -> None:
    job = rayjob(platform)
    cluster = job["spec"]["rayClusterSpec"]
    templates = {
        "head": cluster["headGroupSpec"]["template"],
        "worker": cluster["workerGroupSpecs"][0]["template"],
        "submitter": job["spec"]["submitterPodTemplate"],
    }
    templates[which]["metadata"]["labels"][label] = OTHERS
    refused(policies, job, "labels")
    if which != "submitter":
        refused(policies, cluster_of(job), "labels")


@pytest.mark.parametrize("which", ["headGroupSpec", "workerGroupSpecs"])
def test_a_group_has_no_such_labels_either(policies: list[Manifest], platform: Platform, which: str) -> None:
    job = rayjob(platform)
    group = job["spec"]["rayClusterSpec"][which]
    (group if which == "headGroupSpec" else group[0])["labels"] = {"ray.io/cluster": OTHERS}
    refused(policies, job, "labels")


def test_every_template_says_that_it_wants_no_token_of_the_account(
    policies: list[Manifest], platform: Platform
) -> None:
    for which in (head, worker, submitter):
        job = rayjob(platform)
        del which(job)["automountServiceAccountToken"]
        refused(policies, job, "without a token")
