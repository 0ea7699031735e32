"""What a job has printed: as it comes, across lost connections and new submitters, and why there is nothing yet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cytoray_analysis.errors import MissingFileError, PlatformError
from cytoray_services.jobs.kubernetes import logs
from cytoray_services.jobs.kubernetes.backend import KubernetesBackend, open_kubernetes
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import NAMESPACE, Operator
from services.jobs.kubernetes.lab import Submit, make_submission, set_platform


@pytest.fixture
def operator(server: ApiServer, submit: Submit) -> Operator:
    operator = Operator(server, submit())
    operator.initialize()
    operator.make_pods()
    return operator


Step = Callable[[], object]


def later(*steps: Step | tuple[Step, ...]) -> threading.Thread:
    """Do one thing after the other, with some time between; those of a group at once."""

    def play() -> None:
        for step in steps:
            time.sleep(0.3)
            for one in step if isinstance(step, tuple) else (step,):
                one()

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    return thread


def within(seconds: float, lines: Iterator[str]) -> list[str]:
    """Read to the end; fail where that does not come."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(filter(None, lines)), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still reading after {seconds} s, with {found}"
    return found


def test_what_is_there_is_printed(server: ApiServer, place: KubernetesBackend, operator: Operator) -> None:
    server.print(operator.run(), "epoch 1: loss 0.5", "", "épôque 2")

    assert list(place.logs(operator.name)) == ["epoch 1: loss 0.5\n", "\n", "épôque 2\n"]


@pytest.mark.slow
def test_following_ends_with_the_job(server: ApiServer, place: KubernetesBackend, operator: Operator) -> None:
    pod = operator.run()
    server.print(pod, "epoch 1")
    later(
        lambda: server.print(pod, "epoch 2"),
        (lambda: server.print(pod, "the end"), operator.finish, lambda: server.end_log(pod)),
    )

    assert within(15, place.logs(operator.name, follow=True)) == ["epoch 1\n", "epoch 2\n", "the end\n"]


def test_following_a_job_that_has_ended_prints_all_of_it(
    server: ApiServer, place: KubernetesBackend, operator: Operator
) -> None:
    pod = operator.run()
    server.print(pod, "epoch 1")
    server.end_log(pod)
    operator.finish()

    assert within(10, place.logs(operator.name, follow=True)) == ["epoch 1\n"]


@pytest.mark.slow
def test_a_lost_connection_loses_and_doubles_no_line(
    server: ApiServer, place: KubernetesBackend, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_LOOK_SECONDS", 0.5)
    pod = operator.run()
    server.print(pod, "one", "two")
    later(
        lambda: server.break_logs(pod),
        lambda: server.print(pod, "three"),
        (lambda: server.print(pod, "four"), lambda: server.end_log(pod), operator.finish),
    )

    assert within(20, place.logs(operator.name, follow=True)) == ["one\n", "two\n", "three\n", "four\n"]


@pytest.mark.slow
def test_a_new_submitter_is_followed(
    server: ApiServer, place: KubernetesBackend, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_LOOK_SECONDS", 0.5)
    first = operator.run()
    server.print(first, "one")
    later(
        (
            lambda: operator.submit(1),
            lambda: server.print(f"{operator.name}-1", "one", "two"),
            lambda: server.end_log(first),
        ),
        (operator.finish, lambda: server.end_log(f"{operator.name}-1")),
    )

    assert within(20, place.logs(operator.name, follow=True)) == ["one\n", "one\n", "two\n"]


def test_before_there_is_anything_it_says_why_it_waits(
    server: ApiServer, place: KubernetesBackend, operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PlatformError, match="has no output yet: its pods are starting: 2 of 2 left"):
        list(place.logs(operator.name))

    def run() -> None:
        pod = operator.run()
        server.print(pod, "epoch 1")
        operator.finish()
        server.end_log(pod)

    later(run)
    assert within(20, place.logs(operator.name, follow=True)) == ["epoch 1\n"]
    assert f"{operator.name} waits: its pods are starting: 2 of 2 left" in capsys.readouterr().err


@pytest.mark.slow
def test_waiting_goes_on_when_the_watch_is_gone(
    server: ApiServer, place: KubernetesBackend, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_LOOK_SECONDS", 0.2)
    reader = place.logs(operator.name, follow=True)

    def run() -> None:
        server.objects.compact()
        pod = operator.run()
        server.print(pod, "epoch 1")
        server.end_log(pod)
        operator.finish()

    later(server.objects.compact, server.objects.compact, run)
    assert within(20, reader) == ["epoch 1\n"]


@pytest.mark.slow
def test_a_container_that_has_just_begun_is_asked_again(
    server: ApiServer, place: KubernetesBackend, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_LOOK_SECONDS", 0.2)
    pod = operator.run()  # it runs, and its log is not there yet: 400
    later(lambda: server.print(pod, "epoch 1"), (lambda: server.end_log(pod), operator.finish))

    assert within(20, place.logs(operator.name, follow=True)) == ["epoch 1\n"]


def test_logs_stay_when_the_cluster_of_a_job_is_gone(
    server: ApiServer, place: KubernetesBackend, operator: Operator
) -> None:
    server.print(operator.run(), "epoch 1")
    operator.finish()
    for pod in server.objects.names("pods", NAMESPACE):
        if pod.startswith(operator.cluster):
            server.objects.delete("pods", NAMESPACE, pod)

    assert list(place.logs(operator.name)) == ["epoch 1\n"]


@pytest.mark.parametrize("follow", [False, True])
def test_logs_that_are_gone(server: ApiServer, place: KubernetesBackend, operator: Operator, follow: bool) -> None:
    operator.run()
    place.stop(operator.name)
    operator.suspend()

    with pytest.raises(MissingFileError, match="no longer exists: its pods were removed"):
        list(place.logs(operator.name, follow=follow))


def test_a_sidecar_submits_in_the_head_pod(server: ApiServer, place: KubernetesBackend) -> None:
    set_platform(server, "submitter: SidecarMode")
    operator = Operator(server, open_kubernetes("").submit(make_submission(), owner="ann").id)
    operator.initialize()
    head, *_ = operator.make_pods()
    containers = [*server.objects.get("pods", NAMESPACE, head)["spec"]["containers"], {"name": "ray-job-submitter"}]
    statuses = [{"name": "ray-job-submitter", "state": {"running": {}}}]
    change = {"spec": {"containers": containers}, "status": {"containerStatuses": statuses}}
    server.objects.merge("pods", NAMESPACE, head, change)
    operator.status(jobDeploymentStatus="Running", jobStatus="RUNNING")
    server.print(head, "epoch 1")

    assert list(place.logs(operator.name)) == ["epoch 1\n"]


def test_over_http_there_is_nothing_to_read(server: ApiServer, place: KubernetesBackend) -> None:
    set_platform(server, "submitter: HTTPMode")
    job = open_kubernetes("").submit(make_submission(), owner="ann")

    with pytest.raises(PlatformError, match="is only in Ray's dashboard"):
        list(place.logs(job.id))
