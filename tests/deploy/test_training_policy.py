"""The admission policy of the namespace for training runs: attacks are refused, what Cytoray makes is let in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from cytoray_services.jobs.platform import Platform
from deploy.admission import refusals
from deploy.charts import Manifest, render, title, validate
from deploy.training_objects import NAMESPACE, chart, cluster_of, head, pods_of, rayjob, submitter, worker


@pytest.mark.slow
@pytest.mark.parametrize("submitter", ["K8sJobMode", "HTTPMode", "SidecarMode"])
@pytest.mark.parametrize(
    "scale",
    [{}, {"min_workers": 1, "workers_per_node": 1}, {"gpus_per_worker": 1, "spot": True}, {"priority": "urgent"}],
)
def test_what_cytoray_makes_is_let_in(
    policies: list[Manifest], platform: Platform, scale: dict[str, Any], submitter: str
) -> None:
    job = rayjob(platform.model_copy(update={"submitter": submitter}), **scale)
    made = [job, cluster_of(job), *pods_of(job)]
    assert len(made) >= 4
    for one in made:
        assert refusals(policies, one, namespace=NAMESPACE) == [], title(one)


SECRET_VOLUME = {"name": "stolen", "secret": {"secretName": "cytoray-postgresql"}}
SECRET_VALUE = {"name": "STOLEN", "valueFrom": {"secretKeyRef": {"name": "cytoray-postgresql", "key": "password"}}}
SECRET_SOURCE = {"secretRef": {"name": "cytoray-s3"}}
CONTAINER = {"name": "added", "image": "a:1", "env": [SECRET_VALUE]}


def volume(**source: Any) -> Manifest:
    return {"name": "added", **source}


# What a caller who may create RayJobs tries, by what is said of it.
ON_PODS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a secret as a volume": ("no other volumes", lambda pod: pod["volumes"].append(SECRET_VOLUME)),
    "a secret in a projected volume": (
        "no other volumes",
        lambda pod: pod["volumes"].append(volume(projected={"sources": [{"secret": {"name": "cytoray-s3"}}]})),
    ),
    "a token for another audience": (
        "no other volumes",
        lambda pod: pod["volumes"].append(
            volume(projected={"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]})
        ),
    ),
    "the disk of the node": ("no other volumes", lambda pod: pod["volumes"].append(volume(hostPath={"path": "/"}))),
    "a driver that reads a secret": (
        "no other volumes",
        lambda pod: pod["volumes"].append(volume(csi={"driver": "a", "nodePublishSecretRef": {"name": "cytoray-s3"}})),
    ),
    "a share of the network": (
        "no other volumes",
        lambda pod: pod["volumes"].append(volume(nfs={"server": "a", "path": "/"})),
    ),
    "a secret as a variable": ("no other secrets", lambda pod: pod["containers"][0]["env"].append(SECRET_VALUE)),
    "a secret as all variables": (
        "no other secrets",
        lambda pod: pod["containers"][0].update(envFrom=[SECRET_SOURCE]),
    ),
    "the token of another Ray cluster": (
        "no other secrets",
        lambda pod: pod["containers"][0]["env"].append(
            {"name": "STOLEN", "valueFrom": {"secretKeyRef": {"name": "other", "key": "auth_token"}}}
        ),
    ),
    "a secret in the place of Ray's token": (
        "no other secrets",
        lambda pod: pod["containers"][0]["env"].append({**SECRET_VALUE, "name": "RAY_AUTH_TOKEN"}),
    ),
    "a secret in a second container": ("no other secrets", lambda pod: pod["containers"].append(CONTAINER)),
    "a secret in an init container": ("no other secrets", lambda pod: pod.update(initContainers=[CONTAINER])),
    "a secret to fetch an image": (
        "no other imagePullSecrets",
        lambda pod: pod.update(imagePullSecrets=[{"name": "cytoray-s3"}]),
    ),
    "another service account": (
        "the service account cytoray-training",
        lambda pod: pod.update(serviceAccountName="cytoray-jobs"),
    ),
    "no service account": ("the service account cytoray-training", lambda pod: pod.pop("serviceAccountName")),
    "another volume claim": (
        "no other volume claims",
        lambda pod: pod["volumes"].append(volume(persistentVolumeClaim={"claimName": "cytoray-audit"})),
    ),
    "another priority": ("no other priority classes", lambda pod: pod.update(priorityClassName="cytoray-serving")),
    "the priority of the system": (
        "no other priority classes",
        lambda pod: pod.update(priorityClassName="system-node-critical"),
    ),
    "the network of the node": ("the network, the processes", lambda pod: pod.update(hostNetwork=True)),
    "the processes of the node": ("the network, the processes", lambda pod: pod.update(hostPID=True)),
    "the memory of the node": ("the network, the processes", lambda pod: pod.update(hostIPC=True)),
    "a privileged container": (
        "no privileged containers",
        lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
    ),
    "further capabilities": (
        "no privileged containers",
        lambda pod: pod["containers"][0]["securityContext"].update(capabilities={"add": ["SYS_ADMIN"]}),
    ),
    "further rights": (
        "no privileged containers",
        lambda pod: pod["containers"][0]["securityContext"].update(allowPrivilegeEscalation=True),
    ),
}
PROJECTED = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
ON_CLUSTERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a token of the account in a worker": (
        "without a token",
        lambda job: worker(job).update(automountServiceAccountToken=True),
    ),
    "a token of the account in a head": (
        "without a token",
        lambda job: head(job).update(automountServiceAccountToken=True),
    ),
    "the token of an autoscaler without one": (
        "no other volumes",
        lambda job: head(job)["volumes"].append({"name": "api-access", "projected": PROJECTED}),
    ),
    "the token of the autoscaler in a worker": (
        "no other volumes",
        lambda job: (
            job["spec"]["rayClusterSpec"].update(enableInTreeAutoscaling=True),
            worker(job)["volumes"].append({"name": "api-access", "projected": PROJECTED}),
        ),
    ),
    "a node by its name": ("name no node", lambda job: head(job).update(nodeName="control-plane")),
    "no token of Ray": (
        "authOptions",
        lambda job: job["spec"]["rayClusterSpec"].pop("authOptions"),
    ),
    "a secret as the token of Ray": (
        "authOptions",
        lambda job: job["spec"]["rayClusterSpec"]["authOptions"].update(secretName="cytoray-postgresql"),
    ),
    "a secret as the password of Redis": (
        "gcsFaultToleranceOptions",
        lambda job: job["spec"]["rayClusterSpec"].update(
            gcsFaultToleranceOptions={"redisAddress": "a:1", "redisPassword": {"valueFrom": SECRET_VALUE["valueFrom"]}}
        ),
    ),
    "a secret of the autoscaler": (
        "no other secrets",
        lambda job: job["spec"]["rayClusterSpec"].update(
            enableInTreeAutoscaling=True, autoscalerOptions={"version": "v2", "env": [SECRET_VALUE]}
        ),
    ),
    "a secret of the collector of logs": (
        "other fields",
        lambda job: job["spec"]["rayClusterSpec"].update(
            historyServerOptions={"collectorOptions": {"env": [SECRET_VALUE]}}
        ),
    ),
    "a network policy that opens everything": (
        "without networkPolicy",
        lambda job: job["spec"]["rayClusterSpec"].update(networkPolicy={"head": {"egressRules": [{}]}}),
    ),
    "a door to the outside": (
        "other fields",
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"].update(serviceType="LoadBalancer"),
    ),
    "an ingress": (
        "other fields",
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"].update(enableIngress=True),
    ),
}
POD = {"head": head, "worker": worker, "submitter": submitter}


@pytest.mark.slow
@pytest.mark.parametrize("which", POD)
@pytest.mark.parametrize("attack", ON_PODS)
def test_a_job_cannot_ask_for_more_than_trainings_get(
    policies: list[Manifest], platform: Platform, attack: str, which: str
) -> None:
    sentence, change = ON_PODS[attack]
    job = rayjob(platform)
    change(POD[which](job))
    assert_refused(policies, job, sentence)
    if which != "submitter":
        assert_refused(policies, cluster_of(job), sentence)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ON_CLUSTERS)
def test_a_job_cannot_ask_kuberay_for_more(policies: list[Manifest], platform: Platform, attack: str) -> None:
    sentence, change = ON_CLUSTERS[attack]
    job = rayjob(platform)
    change(job)
    assert_refused(policies, job, sentence)
    assert_refused(policies, cluster_of(job), sentence)


def assert_refused(policies: list[Manifest], what: Manifest, sentence: str) -> None:
    assert validate(what) == []  # without the policy an API server takes it
    assert refusals([], what, namespace=NAMESPACE) == []
    found = refusals(policies, what, namespace=NAMESPACE)
    assert len(found) == 1, found
    assert sentence in found[0]


@pytest.mark.parametrize("attack", ON_PODS)
def test_a_pod_that_others_make_is_refused_too(policies: list[Manifest], platform: Platform, attack: str) -> None:
    sentence, change = ON_PODS[attack]
    pod = pods_of(rayjob(platform))[1]
    pod["metadata"]["name"] = "attack"
    change(pod["spec"])
    found = refusals(policies, pod, namespace=NAMESPACE)
    assert len(found) == 1, found
    assert sentence in found[0]


def test_a_running_pod_gets_no_container_with_a_secret(policies: list[Manifest], platform: Platform) -> None:
    before = pods_of(rayjob(platform))[0]
    pod = copy.deepcopy(before)
    pod["spec"]["ephemeralContainers"] = [CONTAINER]
    found = refusals(policies, pod, namespace=NAMESPACE, before=before, part="ephemeralcontainers")
    assert len(found) == 1
    assert "no other secrets" in found[0]


def test_a_pod_with_the_volume_that_the_api_server_adds_is_let_in(policies: list[Manifest], platform: Platform) -> None:
    pod = pods_of(rayjob(platform))[0]
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    pod["spec"]["volumes"].append({"name": "kube-api-access-x7k2q", "projected": {"sources": sources}})
    assert refusals(policies, pod, namespace=NAMESPACE) == []


@pytest.mark.parametrize("name", ["kube-api-access-abcde", "api-access"])
@pytest.mark.parametrize("kind", ["serviceAccountToken", "secret"])
def test_the_name_of_the_api_servers_volume_opens_nothing(
    policies: list[Manifest], platform: Platform, kind: str, name: str
) -> None:
    sources = {
        "serviceAccountToken": {"serviceAccountToken": {"path": "t", "audience": "vault"}},
        "secret": {"secret": {"name": "cytoray-s3"}},
    }
    pod = pods_of(rayjob(platform))[0]
    pod["spec"]["volumes"].append({"name": name, "projected": {"sources": [sources[kind]]}})
    assert "no other volumes" in refusals(policies, pod, namespace=NAMESPACE)[0]


def test_a_job_runs_in_no_cluster_of_others(policies: list[Manifest], platform: Platform) -> None:
    job = rayjob(platform)
    del job["spec"]["rayClusterSpec"]
    job["spec"]["clusterSelector"] = {"ray.io/cluster": "others"}
    assert "no clusterSelector" in refusals(policies, job, namespace=NAMESPACE)[0]


def test_a_job_is_looked_at_again_when_it_changes_and_only_then(policies: list[Manifest], platform: Platform) -> None:
    good = rayjob(platform)
    attacked = copy.deepcopy(good)
    worker(attacked)["volumes"].append(SECRET_VOLUME)
    assert len(refusals(policies, attacked, namespace=NAMESPACE, before=good)) == 1
    cluster = cluster_of(attacked)
    assert len(refusals(policies, cluster, namespace=NAMESPACE, before=cluster_of(good))) == 1
    # One from before the policy is stopped, and its finalizers go.
    stopped = copy.deepcopy(attacked)
    stopped["spec"]["suspend"] = True
    stopped["metadata"]["finalizers"] = []
    assert refusals(policies, stopped, namespace=NAMESPACE, before=attacked) == []
    freed = copy.deepcopy(cluster)
    freed["metadata"]["finalizers"] = []
    assert refusals(policies, freed, namespace=NAMESPACE, before=cluster) == []


def test_other_namespaces_are_left_alone(policies: list[Manifest], platform: Platform) -> None:
    job = rayjob(platform)
    worker(job)["volumes"].append(SECRET_VOLUME)
    assert refusals(policies, job, namespace="elsewhere") == []


@pytest.mark.slow
def test_the_policy_can_be_turned_off_and_is_on_in_production() -> None:
    def kinds(manifests: list[Manifest]) -> set[str]:
        return {title(one) for one in manifests if one["kind"].startswith("ValidatingAdmissionPolicy")}

    assert kinds(chart(policy=False)) == set()
    assert kinds(render()) == set()
    assert len(kinds(render("production"))) == 6
    assert [problem for one in chart() for problem in validate(one)] == []
