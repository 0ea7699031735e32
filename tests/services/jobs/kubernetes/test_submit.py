"""Submitting: what is sent, in which order, and what is cleaned up where it does not work out."""

from __future__ import annotations

import base64
import io
import zipfile
from datetime import UTC, datetime, timedelta

import pytest

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_services.jobs.kubernetes.backend import KubernetesBackend, open_kubernetes
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import NAMESPACE, Operator, check_rayjob
from services.jobs.kubernetes.lab import Submit, make_submission


def test_a_job_is_a_rayjob_that_owns_its_recipe(server: ApiServer, place: KubernetesBackend) -> None:
    server.admission = check_rayjob
    job = place.submit(make_submission(workers=2, data=("pvc://images/nuclei",)), owner="ann", team="cells")

    assert (job.state, job.owner, job.team, job.place) == ("queued", "ann", "cells", "kubernetes:lab/lab")
    assert job.scale is not None
    assert job.scale.workers == 2
    rayjob = server.objects.get("rayjobs", NAMESPACE, job.id)
    config_map = server.objects.get("configmaps", NAMESPACE, job.id)
    assert config_map["metadata"]["ownerReferences"][0]["uid"] == rayjob["metadata"]["uid"]
    assert config_map["data"]["recipe.yaml"].startswith("model:")
    assert rayjob["metadata"]["managedFields"][0]["manager"] == "cytoray"


def test_the_recipe_goes_with_its_job(server: ApiServer, submit: Submit) -> None:
    job_id = submit()

    server.objects.delete("rayjobs", NAMESPACE, job_id)

    assert server.objects.names("configmaps", NAMESPACE) == ["cytoray-platform"]


def test_no_job_without_its_recipe_is_left_behind(server: ApiServer, place: KubernetesBackend) -> None:
    server.objects.create(
        "resourcequotas", NAMESPACE, {"metadata": {"name": "few"}, "spec": {"hard": {"count/configmaps": "0"}}}
    )
    server.forbidden.add(("list", "resourcequotas"))  # so that the look before does not see it

    with pytest.raises(PlatformError, match="quota few is exceeded: count/configmaps=1 requested"):
        place.submit(make_submission(), owner="ann")

    assert server.objects.names("rayjobs", NAMESPACE) == []


def test_an_id_is_taken_once(place: KubernetesBackend, submit: Submit) -> None:
    submit("nuclei-aaaaa")

    with pytest.raises(RequestError, match="the job nuclei-aaaaa exists already"):
        place.submit(make_submission("nuclei-aaaaa"), owner="ben")


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_busy_api_server_is_asked_again(server: ApiServer, place: KubernetesBackend, code: int) -> None:
    server.fail(code, path="/rayjobs/nuclei", method="PATCH", times=2)

    job = place.submit(make_submission(), owner="ann")

    assert server.objects.names("rayjobs", NAMESPACE) == [job.id]
    assert server.requests.count(("PATCH", f"/apis/ray.io/v1/namespaces/lab/rayjobs/{job.id}")) == 3


def test_a_connection_that_is_lost_while_applying_makes_no_second_job(
    server: ApiServer, place: KubernetesBackend
) -> None:
    server.hang_up(path="/rayjobs/nuclei", method="PATCH")

    place.submit(make_submission(), owner="ann")

    assert len(server.objects.names("rayjobs", NAMESPACE)) == 1


def test_records_of_jobs_that_ended_long_ago_are_removed(
    server: ApiServer, place: KubernetesBackend, submit: Submit
) -> None:
    for name, days in (("nuclei-older", 40), ("nuclei-newer", 2)):
        submit(name)
        ended = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")
        Operator(server, name).status(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", endTime=ended)

    submit("nuclei-third")

    assert server.objects.names("rayjobs", NAMESPACE) == ["nuclei-newer", "nuclei-third"]


def test_the_packages_of_this_installation_travel_on_request(server: ApiServer, place: KubernetesBackend) -> None:
    job = open_kubernetes("", code=True).submit(make_submission(), owner="ann")

    packed = base64.b64decode(server.objects.get("configmaps", NAMESPACE, job.id)["binaryData"]["code.zip"])
    names = zipfile.ZipFile(io.BytesIO(packed)).namelist()
    assert "cytoray_services/jobs/kubernetes/rayjob.yaml" in names
    # What training jobs do not run stays at home: a ConfigMap takes little.
    assert {name.partition("/")[0] for name in names} == {"cytoray_analysis", "cytoray_services", "cytoray_training"}
    runtime = server.objects.get("rayjobs", NAMESPACE, job.id)["spec"]["runtimeEnvYAML"]
    assert "file:///etc/cytoray/job/code.zip" in runtime
