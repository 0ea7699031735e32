"""What is said of a job while KubeRay takes it through its states, and why it waits or has failed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import JobNotFoundError
from cytoray_services.jobs.kubernetes.backend import KubernetesBackend
from cytoray_services.jobs.kubernetes.status import describe
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import NAMESPACE, Operator
from services.jobs.kubernetes.lab import Submit


def test_from_submitting_to_done(server: ApiServer, place: KubernetesBackend, submit: Submit) -> None:
    job_id = submit(workers=4, workers_per_node=2)
    operator = Operator(server, job_id)

    assert place.show(job_id).reason == "KubeRay has not processed it yet"
    operator.initialize()
    assert place.show(job_id).reason == "its cluster is being created"
    operator.make_pods()
    assert place.show(job_id).reason == "its pods are starting: 3 of 3 left"
    operator.run()
    running = place.show(job_id)
    operator.finish()
    done = place.show(job_id)

    assert (running.state, running.workers, running.reason) == ("running", 4, None)
    assert running.dashboard is not None
    assert running.dashboard.startswith(f"http://{job_id}-")
    assert running.seconds > 0
    assert (done.state, done.workers, done.dashboard, done.seconds) == ("done", None, None, 120.0)
    assert done.has_ended
    assert done.started is not None
    assert done.started.isoformat() == "2026-11-20T10:01:00+00:00"


@pytest.mark.parametrize(("job", "state"), [("SUCCEEDED", "done"), ("FAILED", "failed"), ("RUNNING", "failed")])
def test_a_deployment_that_fails_after_its_job_has_succeeded_takes_nothing_back(
    server: ApiServer, place: KubernetesBackend, submit: Submit, job: str, state: str
) -> None:
    operator = Operator(server, submit())
    operator.initialize()
    operator.status(jobDeploymentStatus="Failed", jobStatus=job, reason="SubmissionFailed", message="deadline exceeded")
    assert place.show(operator.name).state == state


def test_a_job_is_queued_until_ray_runs_it(server: ApiServer, place: KubernetesBackend, submit: Submit) -> None:
    operator = Operator(server, submit())
    operator.initialize()
    for job_status in ("", "PENDING"):
        operator.status(jobDeploymentStatus="Running", jobStatus=job_status)

        job = place.show(operator.name)

        assert (job.state, job.reason) == ("queued", "its cluster is ready, and it is being submitted")


@pytest.mark.parametrize("deployment", ["Initializing", "Waiting", "Retrying", "Suspending", "Suspended", ""])
def test_states_in_which_nothing_runs(
    server: ApiServer, place: KubernetesBackend, submit: Submit, deployment: str
) -> None:
    operator = Operator(server, submit())
    operator.status(jobDeploymentStatus=deployment)

    assert place.show(operator.name).state == "queued"


def test_all_jobs_are_listed_the_newest_first(server: ApiServer, place: KubernetesBackend, submit: Submit) -> None:
    for name, created in (("nuclei-first", "2026-11-01T00:00:00Z"), ("nuclei-last", "2026-11-22T00:00:00Z")):
        submit(name)
        server.objects.merge("rayjobs", NAMESPACE, name, {"metadata": {"creationTimestamp": created}})
    stranger = {"metadata": {"name": "other-service"}, "spec": {}}
    server.objects.create("rayjobs", NAMESPACE, stranger)

    assert [job.id for job in place.list()] == ["nuclei-last", "nuclei-first"]
    with pytest.raises(JobNotFoundError):
        place.show("other-service")


def test_a_long_list_comes_in_pages_even_if_their_version_is_gone(
    server: ApiServer, place: KubernetesBackend, submit: Submit
) -> None:
    names = [f"nuclei-{number:05}" for number in range(7)]
    for name in names:
        submit(name)
    server.page_size = 3
    asked = len(server.requests)
    server.objects.compact()
    server.instead("GET", "continue=", 1, lambda handler: _expire(server, handler))

    assert sorted(job.id for job in place.list()) == names
    assert len([path for _, path in server.requests[asked:] if path.endswith("rayjobs")]) >= 5


def _expire(server: ApiServer, handler: Any) -> None:
    message = "The provided continue parameter is too old to display a consistent list result."
    handler.answer(410, {"kind": "Status", "message": message, "reason": "Expired", "code": 410})


@pytest.mark.parametrize("job_id", ["nothing-x7k2q", "../../../namespaces", "UPPER", "a/b", ""])
def test_no_such_job(place: KubernetesBackend, job_id: str) -> None:
    for ask in (place.show, place.stop, lambda name: list(place.logs(name))):
        with pytest.raises(JobNotFoundError, match="there is no job") as caught:
            ask(job_id)
        assert caught.value.hint


def test_a_job_that_kueue_holds_back(server: ApiServer, place: KubernetesBackend, submit: Submit) -> None:
    _install_kueue(server)
    operator = Operator(server, submit(queue="short"))
    operator.initialize()
    assert place.show(operator.name).reason == "it waits in the queue short"
    _add_workload(server, operator, "couldn't assign flavors: insufficient unused quota for nvidia.com/gpu")

    job = place.show(operator.name)

    assert job.state == "queued"
    assert job.reason == (
        "it waits in the queue short: couldn't assign flavors: insufficient unused quota for nvidia.com/gpu"
    )


def test_stopping_a_running_job_is_remembered_when_its_cluster_is_gone(
    server: ApiServer, place: KubernetesBackend, submit: Submit
) -> None:
    operator = Operator(server, submit())
    operator.initialize()
    operator.make_pods()
    operator.run()

    stopped = place.stop(operator.name)
    operator.suspend()
    later = place.show(operator.name)

    assert (stopped.state, later.state) == ("cancelled", "cancelled")
    assert later.ended is not None
    assert server.objects.names("pods", NAMESPACE) == []


def test_stopping_a_job_before_kuberay_has_seen_it(server: ApiServer, place: KubernetesBackend, submit: Submit) -> None:
    operator = Operator(server, submit())

    place.stop(operator.name)
    operator.initialize()

    assert operator.rayjob["status"]["jobDeploymentStatus"] == "Suspended"
    assert place.show(operator.name).state == "cancelled"


@pytest.mark.parametrize(("job", "state"), [("SUCCEEDED", "done"), ("FAILED", "failed"), ("STOPPED", "cancelled")])
def test_stopping_a_job_that_has_ended_changes_nothing(
    server: ApiServer, place: KubernetesBackend, submit: Submit, job: str, state: str
) -> None:
    operator = Operator(server, submit())
    operator.initialize()
    operator.finish(job)
    before = operator.rayjob

    assert place.stop(operator.name).state == state
    assert operator.rayjob == before


def test_stopping_a_job_of_a_queue_keeps_kueue_from_starting_it_again(
    server: ApiServer, place: KubernetesBackend, submit: Submit
) -> None:
    _install_kueue(server)
    operator = Operator(server, submit(queue="short"))
    _add_workload(server, operator, "")

    assert place.stop(operator.name).state == "cancelled"
    assert server.objects.get("workloads", NAMESPACE, "rayjob-1")["spec"]["active"] is False


def test_a_preempted_node_is_seen_in_the_number_of_workers(
    server: ApiServer, place: KubernetesBackend, submit: Submit
) -> None:
    operator = Operator(server, submit(workers=4, min_workers=2))
    operator.initialize()
    *_, worker = operator.make_pods()
    operator.run()

    before = place.show(operator.name).workers
    server.objects.delete("pods", NAMESPACE, worker)

    assert (before, place.show(operator.name).workers) == (2, 1)


def test_a_job_of_another_version_is_reported_all_the_same(
    server: ApiServer, place: KubernetesBackend, submit: Submit
) -> None:
    job_id = submit()
    change = {"metadata": {"annotations": {"cytoray.io/scale": json.dumps({"planets": 3})}}}
    server.objects.merge("rayjobs", NAMESPACE, job_id, change)

    assert place.show(job_id).scale is None


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "jobDeploymentStatus": st.sampled_from(
                ["", "Initializing", "Running", "Complete", "Failed", "Suspended", "?"]
            ),
            "jobStatus": st.sampled_from(["", "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "STOPPED", "?"]),
            "reason": st.sampled_from(["", "AppFailed", "DeadlineExceeded", "?"]),
            "message": st.text(max_size=80) | st.just("error: \n hint: "),
            "startTime": st.text(max_size=30),
            "endTime": st.text(max_size=30) | st.datetimes().map(lambda moment: moment.isoformat()),
        },
    ),
    st.dictionaries(st.sampled_from(["cytoray.io/cancelled", "cytoray.io/scale", "cytoray.io/command"]), st.text()),
)
def test_whatever_an_operator_or_a_person_writes_a_job_is_reported(status: Any, annotations: Any) -> None:
    metadata = {"name": "nuclei-x7k2q", "annotations": annotations}

    job = describe({"metadata": metadata, "spec": {}, "status": status}, place="kubernetes")

    assert job.seconds >= 0
    assert job.has_ended or job.ended is None


def _install_kueue(server: ApiServer) -> None:
    server.groups.add("kueue.x-k8s.io/v1beta1")
    server.objects.create("localqueues", NAMESPACE, {"metadata": {"name": "short"}})


def _add_workload(server: ApiServer, operator: Operator, message: str) -> None:
    labels = {"kueue.x-k8s.io/job-uid": operator.rayjob["metadata"]["uid"]}
    condition = {"type": "QuotaReserved", "status": "False", "message": message}
    body = {"metadata": {"name": "rayjob-1", "labels": labels}, "spec": {"active": True}}
    server.objects.create("workloads", NAMESPACE, {**body, "status": {"conditions": [condition]}})
