"""The jobs service over real HTTP, in front of a Kubernetes: rights, quotas, the trail, errors as they were raised."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cytoray_analysis.errors import (
    CytorayError,
    ForbiddenError,
    JobNotFoundError,
    OverloadedError,
    PlatformError,
    RecipeError,
    UnauthorizedError,
)
from cytoray_services.jobs.service.audit import read_audit
from cytoray_services.jobs.service_backend import ServiceBackend
from cytoray_services.jobs.submission import Submission, read_submission
from services.jobs.jobs_service import RECIPE, Service, running
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import Operator

Make = Callable[..., Service]
TEAMS = {"lab": {"jobs": 2, "gpus": 4}, "other": {}}


@pytest.fixture
def service(make: Make) -> Service:
    """A service with two teams."""
    return make(teams=TEAMS)


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    with running(service.api) as url:
        yield url


def submission(**scale: int) -> Submission:
    return read_submission(RECIPE, [f"scale.{name}={value}" for name, value in scale.items()])


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/health/live", "/metrics", "/openapi.json", "/docs", "/jobs"])
def test_head_answers_as_get_does_without_the_body(service: Service, url: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {service.token('ada', 'lab')}"}
    got, answer = httpx.get(url + path, headers=headers), httpx.head(url + path, headers=headers)
    assert (answer.status_code, answer.content) == (got.status_code, b"")
    assert answer.headers["Content-Type"] == got.headers["Content-Type"]
    assert httpx.head(f"{url}/jobs").status_code == 401


@pytest.mark.slow
def test_a_job_goes_the_whole_way(cluster: ApiServer, service: Service, url: str) -> None:
    place = ServiceBackend(url, token=service.token("ada", "lab"))
    job = place.submit(submission(), owner="somebody")
    assert (job.name, job.owner, job.team, job.state) == ("nuclei", "ada", "lab", "queued")
    assert [one.id for one in place.list()] == [job.id]
    operator = Operator(cluster, job.id)
    operator.initialize()
    operator.make_pods()
    pod = operator.run()
    assert place.show(job.id).state == "running"
    cluster.print(pod, "epoch 1/2", "epoch 2/2")
    heard: list[str] = []
    follower = threading.Thread(target=lambda: heard.extend(place.logs(job.id, follow=True)))
    follower.start()
    deadline = time.monotonic() + 20
    while "epoch 2/2" not in "".join(heard) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert follower.is_alive()  # what is said is heard while the job goes on
    cluster.end_log(pod)
    operator.finish()
    follower.join(30)
    assert "".join(heard) == "epoch 1/2\nepoch 2/2\n"
    assert place.show(job.id).state == "done"
    assert place.stop(job.id).state == "done"


def test_a_dry_run_says_what_the_cluster_would_get_and_leaves_nothing(
    cluster: ApiServer, service: Service, url: str
) -> None:
    manifest = ServiceBackend(url, token=service.token("ada", "lab")).manifest(submission(), owner="")
    assert "kind: RayJob" in manifest
    assert "cytoray.io/team: lab" in manifest
    assert cluster.objects.names("rayjobs", "lab") == []
    assert not service.audit.exists()


@pytest.mark.slow
def test_a_team_sees_its_own_jobs_and_who_administers_all(service: Service, url: str) -> None:
    ada = ServiceBackend(url, token=service.token("ada", "lab"))
    eve = ServiceBackend(url, token=service.token("eve", "other"))
    chief = ServiceBackend(url, token=service.token("boss", scope="administer"))
    job = ada.submit(submission(), owner="")
    assert eve.list() == []
    unknown = [_error(lambda: eve.show(job.id)), _error(lambda: eve.show("nuclei-zzzzz"))]
    assert {type(one) for one in unknown} == {JobNotFoundError}
    assert unknown[0].message.replace(job.id, "X") == unknown[1].message.replace("nuclei-zzzzz", "X")
    for ask in (lambda: eve.stop(job.id), lambda: list(eve.logs(job.id))):
        assert isinstance(_error(ask), JobNotFoundError)
    assert [one.id for one in chief.list()] == [job.id]
    assert isinstance(_error(lambda: eve.submit(submission(), owner="", team="lab")), ForbiddenError)
    assert chief.submit(submission(), owner="", team="lab").team == "lab"
    assert chief.stop(job.id).id == job.id


@pytest.mark.slow
def test_only_who_may_submit_is_let_in(service: Service, url: str) -> None:
    for place, kind in (
        (ServiceBackend(url), UnauthorizedError),
        (ServiceBackend(url, token="cyt_0_1"), UnauthorizedError),  # noqa: S106
        (ServiceBackend(url, token=service.token("seer", "lab", "predict")), ForbiddenError),
    ):
        for ask in (place.list, lambda place=place: place.submit(submission(), owner="")):
            error = _error(ask)
            assert type(error) is kind
            assert error.field == "CYTORAY_TOKEN"
    stray = ServiceBackend(url, token=service.token("stray"))
    error = _error(lambda: stray.submit(submission(), owner=""))
    assert isinstance(error, ForbiddenError)
    assert "--team" in (error.hint or "")
    acts = [(act.who, act.outcome) for act in read_audit(service.audit)]
    assert acts == [(None, "refused"), (None, "refused"), (None, "refused"), ("stray", "refused")]


@pytest.mark.slow
def test_the_quota_counts_what_the_cluster_says(cluster: ApiServer, service: Service, url: str) -> None:
    place = ServiceBackend(url, token=service.token("ada", "lab"))
    first = place.submit(submission(), owner="")
    place.submit(submission(), owner="")
    error = _error(lambda: place.submit(submission(), owner=""))
    assert isinstance(error, OverloadedError)
    assert "uses 2 of its 2 jobs" in error.message
    assert isinstance(_error(lambda: place.submit(submission(workers=8), owner="")), ForbiddenError)
    operator = Operator(cluster, first.id)
    operator.initialize()
    operator.finish()
    place.submit(submission(), owner="")


@pytest.mark.slow
def test_jobs_that_come_at_once_do_not_slip_past_the_quota(cluster: ApiServer, service: Service, url: str) -> None:
    place = ServiceBackend(url, token=service.token("ada", "lab"))
    with ThreadPoolExecutor(6) as pool:
        tried = list(pool.map(lambda _: _tried(lambda: place.submit(submission(), owner="")), range(6)))
    assert [one for one in tried if one is not None and not isinstance(one, OverloadedError)] == []
    assert tried.count(None) == 2
    assert len(cluster.objects.names("rayjobs", "lab")) == 2


def test_a_wrong_recipe_comes_back_as_the_error_that_it_is(service: Service, url: str) -> None:
    place = ServiceBackend(url, token=service.token("ada", "lab"))
    wrong = submission().model_copy(update={"recipe": RECIPE.replace("epochs: 2", "epochs: many")})
    error = _error(lambda: place.submit(wrong, owner=""))
    assert isinstance(error, RecipeError)
    assert error.field == "training.epochs"
    (act,) = read_audit(service.audit)
    assert (act.who, act.what, act.job, act.outcome, act.reason) == ("ada", "submit", None, "refused", error.message)
    assert len(act.recipe or "") == 64


@pytest.mark.slow
def test_every_act_is_in_the_trail_before_it_is_answered(cluster: ApiServer, service: Service, url: str) -> None:
    place = ServiceBackend(url, token=service.token("ada", "lab"))
    job = place.submit(submission(), owner="")
    place.stop(job.id)
    _error(lambda: place.stop("nuclei-zzzzz"))
    cluster.fail(500, path="rayjobs", method="GET", times=99)
    _error(lambda: place.submit(submission(), owner=""))
    acts = [(act.what, act.job == job.id, act.outcome) for act in read_audit(service.audit)]
    assert acts == [
        ("submit", True, "begun"),
        ("submit", True, "done"),
        ("stop", True, "begun"),
        ("stop", True, "done"),
        ("stop", False, "refused"),
        ("submit", False, "refused"),  # it did not begin: the cluster was not asked to run anything
    ]
    first = read_audit(service.audit)[0]
    assert (first.who, first.team, first.address) == ("ada", "lab", "127.0.0.1")
    assert first.token is not None


@pytest.mark.slow
def test_where_the_trail_cannot_be_written_nothing_is_done(cluster: ApiServer, service: Service, url: str) -> None:
    place = ServiceBackend(url, token=service.token("ada", "lab"))
    job = place.submit(submission(), owner="")
    service.audit.unlink()
    service.audit.mkdir()
    for ask in (lambda: place.submit(submission(), owner=""), lambda: place.stop(job.id)):
        error = _error(ask)
        assert isinstance(error, PlatformError)
        assert "audit trail" in error.message
    assert cluster.objects.names("rayjobs", "lab") == [job.id]
    assert place.show(job.id).state == "queued"


def test_a_body_is_not_read_before_it_is_known_who_sends_it(service: Service, url: str) -> None:
    def refused(**headers: str) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
        connection.putrequest("POST", "/jobs")
        for name, value in {"Content-Length": str(10**9), "Content-Type": "application/json", **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()  # and nothing of the body
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    assert refused()[0] == 401
    status, body = refused(Authorization=f"Bearer {service.token('ada', 'lab')}")
    assert (status, body["field"]) == (400, "Content-Length")


@pytest.mark.slow
def test_a_new_job_is_created_with_an_address(service: Service, url: str) -> None:
    headers = {"Authorization": f"Bearer {service.token('ada', 'lab')}"}
    with httpx.Client(base_url=url, headers=headers) as client:
        made = client.post("/jobs", json={"recipe": RECIPE, "set": ["training.epochs=3"]})
        assert made.status_code == 201
        assert client.get(made.headers["Location"]).json()["id"] == made.json()["id"]
        assert client.get("/jobs", params={"state": "running"}).json() == {"jobs": []}
        assert len(client.get("/jobs", params={"state": "queued", "team": "lab"}).json()["jobs"]) == 1


@pytest.mark.slow
def test_health_and_metrics_tell_of_the_cluster(cluster: ApiServer, service: Service, url: str) -> None:
    ServiceBackend(url, token=service.token("ada", "lab")).submit(submission(), owner="")
    with httpx.Client(base_url=url) as client:
        assert client.get("/health/live").status_code == 200
        _eventually(lambda: 'cytoray_jobs{kind="training",state="queued"} 1.0' in client.get("/metrics").text)
        assert client.get("/health/ready").status_code == 200
        cluster.fail(500, times=10_000)
        _eventually(lambda: client.get("/health/ready").status_code == 503)
        assert client.get("/health/live").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        ("scale.priority=urgent", {"priorities": ["urgent"]}),
        ("scale.queue=fast", {"queues": ["slow", "fast"]}),
        ('scale.node_selector={"zone": "a"}', {"node_selector": {"zone": ["a", "b"]}}),
        ('scale.tolerations=[{"key": "spot"}]', {"tolerations": [{"key": "spot"}]}),
    ],
)
@pytest.mark.parametrize("choices", ["none", "others", "these"])
def test_of_the_cluster_a_recipe_chooses_what_the_operator_allows(
    cluster: ApiServer, make: Make, asked: str, allowed: dict[str, object], choices: str
) -> None:
    others = {"priorities": ["low"], "queues": ["slow"], "node_selector": {"zone": ["c"], "disk": ["a"]}}
    service = make(choices={"none": {}, "others": others, "these": allowed}[choices])
    headers = {"Authorization": f"Bearer {service.token('ada', 'lab')}"}
    with running(service.api) as url, httpx.Client(base_url=url, headers=headers) as client:
        answers = [client.post(path, json={"recipe": RECIPE, "set": [asked]}) for path in ("/jobs", "/jobs/check")]
    if choices == "these":  # whether the cluster has them is another question
        assert 403 not in [one.status_code for one in answers]
    else:
        assert [one.status_code for one in answers] == [403, 403]
        assert answers[0].json()["field"].startswith(asked.partition("=")[0])


@pytest.mark.slow
def test_no_more_logs_are_followed_than_may_be(cluster: ApiServer, make: Make) -> None:
    service = make(followers=1)
    with running(service.api) as url:
        place = ServiceBackend(url, token=service.token("boss", scope="administer"))
        job = place.submit(submission(), owner="")
        operator = Operator(cluster, job.id)
        operator.initialize()
        operator.make_pods()
        pod = operator.run()
        cluster.print(pod, "hello")
        first = place.logs(job.id, follow=True)
        assert "hello" in next(first)
        assert isinstance(_error(lambda: list(place.logs(job.id))), OverloadedError)
        first.close()  # type: ignore[attr-defined]
        cluster.end_log(pod)
        operator.finish()
        _eventually(lambda: "hello" in (_tried_text(lambda: "".join(place.logs(job.id))) or ""))


@pytest.mark.slow
def test_of_many_that_follow_at_once_no_more_are_let_in_than_may_be(cluster: ApiServer, make: Make) -> None:
    service = make(followers=16)
    token = service.token("boss", scope="administer")
    headers = {"Authorization": f"Bearer {token}"}
    with running(service.api) as url:
        job = ServiceBackend(url, token=token).submit(submission(), owner="")
        operator = Operator(cluster, job.id)
        operator.initialize()
        operator.make_pods()
        cluster.print(operator.run(), "hello")

        def ask(_: int) -> int:
            with httpx.stream("GET", f"{url}/jobs/{job.id}/log?follow=true", headers=headers, timeout=30) as answer:
                if answer.status_code == 200:
                    next(answer.iter_text())
                    asked.wait(30)
                return answer.status_code

        asked = threading.Event()
        with ThreadPoolExecutor(30) as pool:
            answers = [pool.submit(ask, number) for number in range(30)]
            _eventually(lambda: sum(one.done() for one in answers) == 26)
            asked.set()
        assert sorted(one.result() for one in answers) == [200] * 4 + [429] * 26


def test_what_is_no_jobs_service_is_reported_in_a_sentence(cluster: ApiServer, tmp_path: Path) -> None:
    for url, told in (
        (cluster.url, "403|404|with something else|status"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1 does not answer"),
    ):
        with pytest.raises(CytorayError, match=told):
            ServiceBackend(url).list()


def _error(ask: Callable[[], object]) -> CytorayError:
    with pytest.raises(CytorayError) as caught:
        ask()
    return caught.value


def _tried(ask: Callable[[], object]) -> CytorayError | None:
    try:
        ask()
    except CytorayError as error:
        return error
    return None


def _tried_text(ask: Callable[[], str]) -> str | None:
    try:
        return ask()
    except CytorayError:
        return None


def _eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)
