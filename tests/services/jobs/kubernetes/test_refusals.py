"""What a cluster does not have or does not allow: said in one sentence with what to do, before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cytoray_analysis.errors import (
    CytorayError,
    ForbiddenError,
    OverloadedError,
    PlatformError,
    RequestError,
    UnauthorizedError,
)
from cytoray_services.jobs.kubernetes import connection
from cytoray_services.jobs.kubernetes.backend import KubernetesBackend, open_kubernetes
from cytoray_services.jobs.submission import Submission
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import NAMESPACE
from services.jobs.kubernetes.lab import add_node, make_submission, set_platform


def refusal(place: KubernetesBackend, submission: Submission | None = None) -> CytorayError:
    """Submit what cannot be submitted; nothing may be left behind."""
    with pytest.raises(CytorayError) as caught:
        place.submit(submission or make_submission(), owner="ann")
    assert caught.value.hint, "an error says what to do"
    assert "\n" not in caught.value.message
    return caught.value


def test_no_such_context(kubeconfig: Path) -> None:
    with pytest.raises(RequestError, match="there is no context labb") as caught:
        open_kubernetes("labb")
    assert caught.value.hint == "use one of: arn:cluster/lab, lab, other"
    with pytest.raises(RequestError, match="there is no context labb in"):
        open_kubernetes("labb/namespace")


def test_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))

    error = refusal(open_kubernetes(""))

    assert isinstance(error, PlatformError)
    assert error.message == "expected a kubeconfig, or a pod of a cluster, got neither"
    with pytest.raises(PlatformError, match="expected a kubeconfig"):
        open_kubernetes("lab")


def test_a_kubeconfig_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config"
    path.write_text("nothing: here")
    monkeypatch.setenv("KUBECONFIG", str(path))

    with pytest.raises(PlatformError, match="cannot be used"):
        open_kubernetes("")


def test_no_such_namespace(server: ApiServer, kubeconfig: Path) -> None:
    error = refusal(open_kubernetes("lab/nowhere"))

    assert isinstance(error, RequestError)
    assert error.message == "there is no namespace nowhere in this cluster"


def test_no_such_namespace_that_the_caller_may_not_look_for(server: ApiServer, kubeconfig: Path) -> None:
    server.forbidden |= {("get", what) for what in ("namespaces", "persistentvolumeclaims", "serviceaccounts")}

    assert refusal(open_kubernetes("lab/nowhere")).message == "there is no namespace nowhere in this cluster"


def test_a_list_of_a_namespace_that_does_not_exist(kubeconfig: Path) -> None:
    with pytest.raises(RequestError, match="there is no namespace nowhere"):
        open_kubernetes("lab/nowhere").list()
    assert open_kubernetes("lab/default").list() == []


def test_a_cluster_that_does_not_answer(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path, url="http://127.0.0.1:9")))

    error = refusal(open_kubernetes(""))

    assert isinstance(error, PlatformError)
    assert (
        error.message
        == "the cluster of the context lab at http://127.0.0.1:9 does not answer: the connection was refused"
    )


@pytest.mark.slow
def test_a_cluster_that_takes_too_long(
    server: ApiServer, place: KubernetesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "READ_SECONDS", 0.2)
    server.stall(0.6, times=10)

    assert refusal(place).message.endswith("does not answer: the request timed out")


def test_something_else_at_the_address(server: ApiServer, place: KubernetesBackend) -> None:
    server.faults.clear()
    server.instead("", "", 1, lambda handler: handler.answer(200, "<html>a proxy</html>"))

    assert "expected a Kubernetes API server at" in refusal(place).message


def test_an_unknown_token(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path, token="stale")))  # noqa: S106

    error = refusal(open_kubernetes(""))

    assert isinstance(error, UnauthorizedError)
    assert error.hint == "sign in again and check with kubectl --context lab get pods"


@pytest.mark.parametrize("verb", ["create", "patch"])
def test_no_rights(server: ApiServer, place: KubernetesBackend, verb: str) -> None:
    server.forbidden.add((verb, "rayjobs"))

    error = refusal(place)

    assert isinstance(error, ForbiddenError)
    assert error.message == f"you have no permission to {verb} rayjobs.ray.io in the namespace lab"
    assert error.hint is not None
    assert "--on service:URL" in error.hint


def test_no_rights_to_list(server: ApiServer, place: KubernetesBackend) -> None:
    server.forbidden.add(("list", "rayjobs"))

    with pytest.raises(ForbiddenError, match="you have no permission to list rayjobs in the namespace lab"):
        place.list()


def test_a_cluster_without_kuberay(server: ApiServer, place: KubernetesBackend) -> None:
    server.groups.discard("ray.io/v1")

    assert "KubeRay is not installed" in refusal(place).message
    with pytest.raises(PlatformError, match="KubeRay is not installed"):
        place.list()


def test_a_kuberay_without_a_field_that_is_used(server: ApiServer, place: KubernetesBackend) -> None:
    message = "failed to create typed patch object: .spec.preRunningDeadlineSeconds: field not declared in schema"
    server.fail(500, path="/rayjobs/", method="PATCH", times=9, body={"kind": "Status", "message": message})

    assert refusal(place).message.startswith("the KubeRay of this cluster is too old")


def test_a_quota_that_does_not_suffice(server: ApiServer, place: KubernetesBackend) -> None:
    quota = {"spec": {"hard": {"requests.nvidia.com/gpu": "2"}}, "status": {"used": {"requests.nvidia.com/gpu": "1"}}}
    server.objects.create("resourcequotas", NAMESPACE, {"metadata": {"name": "gpus"}, **quota})

    error = refusal(place, make_submission(workers=2, gpus_per_worker=1))

    assert error.message == (
        "the quota gpus is exceeded: requests.nvidia.com/gpu=2 requested, requests.nvidia.com/gpu=1 used, "
        "requests.nvidia.com/gpu=2 allowed"
    )
    assert place.submit(make_submission(workers=2, min_workers=1, gpus_per_worker=1), owner="ann").state == "queued"


def test_with_a_queue_a_quota_that_is_in_use_is_waited_for(
    server: ApiServer, place: KubernetesBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    server.groups.add("kueue.x-k8s.io/v1beta1")
    server.objects.create("localqueues", NAMESPACE, {"metadata": {"name": "short"}})
    quota = {"spec": {"hard": {"cpu": "8"}}, "status": {"used": {"cpu": "8"}}}
    server.objects.create("resourcequotas", NAMESPACE, {"metadata": {"name": "few"}, **quota})

    assert place.submit(make_submission(queue="short"), owner="ann").state == "queued"
    assert "the job will wait: the quota few is exceeded" in capsys.readouterr().err


def test_a_quota_that_others_used_up_meanwhile(server: ApiServer, place: KubernetesBackend) -> None:
    server.forbidden.add(("list", "resourcequotas"))
    quota = {"spec": {"hard": {"count/rayjobs.ray.io": "0"}}}
    server.objects.create("resourcequotas", NAMESPACE, {"metadata": {"name": "jobs"}, **quota})

    assert refusal(place).message.startswith("the quota jobs is exceeded: count/rayjobs.ray.io=1 requested")


def test_gpus_that_a_fixed_cluster_does_not_have(server: ApiServer, place: KubernetesBackend) -> None:
    set_platform(server, "autoscaled: false\ngpus: {resource: amd.com/gpu}\n")

    error = refusal(place, make_submission(gpus_per_worker=1))

    assert isinstance(error, RequestError)
    assert error.message == "no node of the cluster offers amd.com/gpu, requested: 1"
    assert error.field == "scale"


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"workers": 5}, "the cluster's nodes have room for 4 of 5 pods of the job"),
        (
            {"workers": 8, "workers_per_node": 8},
            "no node of the cluster offers 8 of nvidia.com/gpu; the largest has 4",
        ),
        ({"memory_per_worker": "1Ti"}, "no node of the cluster offers 1026Gi of memory; the largest has 512Gi"),
        ({"accelerator": "H100"}, "the cluster has no node with nvidia.com/gpu.product=H100"),
    ],
)
def test_more_than_a_fixed_cluster_has(
    server: ApiServer, place: KubernetesBackend, scale: dict[str, Any], message: str
) -> None:
    set_platform(server, "autoscaled: false")
    add_node(server, "head-0")

    assert refusal(place, make_submission(gpus_per_worker=1, **scale)).message == message


def test_gpus_that_an_autoscaled_cluster_may_add_are_a_warning(
    server: ApiServer, place: KubernetesBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    server.objects.delete("nodes", "", "gpu-0")
    add_node(server, "cpu-0")

    assert place.submit(make_submission(gpus_per_worker=1), owner="ann").state == "queued"
    assert (
        "warning: no node of the cluster offers nvidia.com/gpu, requested: 1; the job waits" in capsys.readouterr().err
    )


def add_pod(
    server: ApiServer, name: str, memory: str, *, node: str = "gpu-0", phase: str = "Running", **metadata: Any
) -> None:
    container = {"name": "a", "resources": {"requests": {"memory": memory}}}
    server.objects.create("namespaces", "", {"metadata": {"name": f"of-{name}"}})
    spec = {"nodeName": node, "containers": [container]}
    body = {"metadata": {"name": name, **metadata}, "spec": spec, "status": {"phase": phase}}
    server.objects.create("pods", f"of-{name}", body)


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        ("500Gi", "no node of the cluster has 15Gi of memory left; the largest has 12Gi left"),
        ("490Gi", "the cluster's nodes have room left for 1 of 2 pods of the job"),
    ],
)
def test_what_other_pods_have_reserved_is_not_there(
    server: ApiServer, place: KubernetesBackend, taken: str, message: str
) -> None:
    set_platform(server, "autoscaled: false")
    add_pod(server, "service", taken)
    add_pod(server, "ended", "512Gi", phase="Succeeded")

    assert refusal(place, make_submission(workers=2, memory_per_worker="13Gi")).message == message
    assert place.submit(make_submission(workers=2, memory_per_worker="2Gi"), owner="ann").state == "queued"


@pytest.mark.parametrize(
    "metadata", [{"labels": {"cytoray.io/job": "b"}}, {"ownerReferences": [{"kind": "Job", "name": "b", "uid": "1"}]}]
)
def test_pods_that_end_by_themselves_only_keep_a_job_waiting(
    server: ApiServer, place: KubernetesBackend, metadata: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    set_platform(server, "autoscaled: false")
    add_pod(server, "other", "500Gi", **metadata)

    assert place.submit(make_submission(workers=2), owner="ann").state == "queued"

    waiting = "the job will wait: the cluster's nodes have room for 1 of 3 pods of the job besides the running pods"
    assert waiting in capsys.readouterr().err


def test_head_and_workers_need_room_beside_each_other(
    server: ApiServer, place: KubernetesBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    set_platform(server, "autoscaled: false")
    add_pod(server, "service", "492Gi")

    place.submit(make_submission(workers=2), owner="ann")

    assert "room for 2 of 3 pods of the job" in capsys.readouterr().err


def test_pods_that_the_caller_may_not_see_leave_the_nodes_as_if_they_were_empty(
    server: ApiServer, place: KubernetesBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    set_platform(server, "autoscaled: false")
    add_pod(server, "service", "500Gi")
    server.forbidden.add(("list", "pods"))

    place.submit(make_submission(workers=2), owner="ann")

    assert "the running pods, so nodes count as empty" in capsys.readouterr().err


def test_nodes_that_the_caller_may_not_see_are_not_looked_at(
    server: ApiServer, place: KubernetesBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    set_platform(server, "autoscaled: false")
    server.forbidden.add(("list", "nodes"))

    place.submit(make_submission(workers=100), owner="ann")

    assert "not checked, because of missing permissions: whether there are nodes for the job" in capsys.readouterr().err


def test_a_claim_that_is_missing(server: ApiServer, place: KubernetesBackend) -> None:
    server.objects.delete("persistentvolumeclaims", NAMESPACE, "cytoray-home")

    assert refusal(place).message == "there is no volume claim cytoray-home in the namespace lab"


def test_a_claim_that_jobs_may_not_read(place: KubernetesBackend) -> None:
    error = refusal(place, make_submission(data=("pvc://salaries/2026",)))

    assert error.message == "expected a volume claim that jobs here may read, got 'salaries'"
    assert error.hint is not None
    assert "images" in error.hint


@pytest.mark.parametrize(
    ("platform", "message"),
    [
        ("secrets: [bucket]", "there is no secret bucket in the namespace lab"),
        ("service_account: nobody", "there is no service account nobody in the namespace lab"),
        ("priority: high", "there is no priority class high in the namespace lab"),
        ("queue: short", "the job requests the queue short, but this cluster has no Kueue"),
    ],
)
def test_what_the_platform_names_and_is_missing(
    server: ApiServer, place: KubernetesBackend, platform: str, message: str
) -> None:
    set_platform(server, platform)

    assert refusal(place).message == message


def test_secrets_that_the_caller_may_not_see_are_not_looked_at(
    server: ApiServer, place: KubernetesBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    set_platform(server, "secrets: [bucket]")
    server.forbidden.add(("get", "secrets"))

    place.submit(make_submission(), owner="ann")

    assert "not checked, because of missing permissions: secret bucket" in capsys.readouterr().err


def test_a_platform_with_an_unknown_field(server: ApiServer, place: KubernetesBackend) -> None:
    set_platform(server, "colour: blue")

    error = refusal(place)

    assert error.field == "colour"
    assert "the ConfigMap cytoray-platform is invalid" in error.message


def test_a_webhook_that_denies(server: ApiServer, place: KubernetesBackend) -> None:
    message = 'admission webhook "policy.example.org" denied the request: images must come from our registry'
    body = {"kind": "Status", "message": message, "reason": "Forbidden", "code": 403}
    server.fail(403, path="/rayjobs/", method="PATCH", body=body)

    error = refusal(place)

    assert isinstance(error, ForbiddenError)
    assert error.message == "the cluster's rule policy.example.org forbids it: images must come from our registry"


def test_a_webhook_that_does_not_answer(server: ApiServer, place: KubernetesBackend) -> None:
    message = 'Internal error occurred: failed calling webhook "mrayjob.kb.io": context deadline exceeded'
    server.fail(500, path="/rayjobs/", method="PATCH", times=9, body={"kind": "Status", "message": message})

    assert "the admission webhook mrayjob.kb.io of the cluster does not answer" in refusal(place).message


def test_an_object_that_the_cluster_finds_invalid(server: ApiServer, place: KubernetesBackend) -> None:
    message = 'RayJob.ray.io "nuclei-x7k2q" is invalid: spec.managedBy: Invalid value: "string": the managedBy field'
    body = {"kind": "Status", "message": message, "reason": "Invalid", "code": 422}
    server.fail(422, path="/rayjobs/", method="PATCH", body=body)

    assert refusal(place).message.startswith("the cluster rejects the job: RayJob.ray.io")


def test_a_conflict_with_another_manager(server: ApiServer, place: KubernetesBackend) -> None:
    server.objects.apply(
        "configmaps", NAMESPACE, "nuclei-x7k2q", {"metadata": {}, "data": {"recipe.yaml": "x"}}, "helm"
    )

    error = refusal(place)

    assert error.message.endswith('Apply failed with 1 conflict: conflict with "helm" using v1: .data.recipe.yaml')
    assert server.objects.names("rayjobs", NAMESPACE) == []


def test_an_api_server_that_has_too_much_to_do(server: ApiServer, place: KubernetesBackend) -> None:
    server.fail(429, times=99)

    assert isinstance(refusal(place), OverloadedError)
