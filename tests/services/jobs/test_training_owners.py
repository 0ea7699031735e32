"""Training jobs of the jobs service: whose they are, how many one caller has, and what is not shown of the platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import yaml

from cytoray_analysis.errors import CytorayError, ForbiddenError, JobNotFoundError, OverloadedError
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.ray.backend import RayBackend
from cytoray_services.jobs.service.audit import read_audit
from cytoray_services.jobs.service.config import Quota
from cytoray_services.jobs.service.shown_manifest import shown
from cytoray_services.jobs.service.team_data import own_data
from cytoray_services.jobs.service_backend import ServiceBackend
from cytoray_services.jobs.submission import read_submission
from cytoray_services.settings import load_settings
from cytoray_services.tokens.tokens import create_token, rotate_token
from services.jobs.jobs_service import RECIPE, Service, running
from services.jobs.kubernetes.api_server import ApiServer
from services.jobs.kubernetes.kuberay import Operator
from services.jobs.kubernetes.lab import set_platform

Make = Callable[..., Service]
SECRET = "aHVudGVyMg"  # noqa: S105 - what must not be read

ROOT_LINK = "/".join(("", "proc", "self", "root"))  # of each process to the root of its file system


@pytest.fixture
def service(make: Make) -> Service:
    return make(per_caller=2)


@pytest.fixture
def url(service: Service) -> Iterator[str]:
    with running(service.api) as url:
        yield url


def refused(ask: Callable[[], object]) -> CytorayError:
    with pytest.raises(CytorayError) as caught:
        ask()
    return caught.value


@pytest.mark.slow
def test_a_training_of_no_team_is_seen_by_its_owner_alone(service: Service, url: str) -> None:
    ada, eve = (ServiceBackend(url, token=service.token(name)) for name in ("ada", "eve"))
    chief = ServiceBackend(url, token=service.token("boss", scope="administer"))
    job = ada.submit(read_submission(RECIPE), owner="")
    assert (job.owner, job.team) == ("ada", None)
    assert [one.id for one in ada.list()] == [one.id for one in chief.list()] == [job.id]
    assert eve.list() == []
    for ask in (lambda: eve.show(job.id), lambda: eve.stop(job.id), lambda: list(eve.logs(job.id))):
        assert isinstance(refused(ask), JobNotFoundError)
    assert ada.show(job.id).state == "queued"


def test_a_training_without_an_owner_is_seen_by_who_administers(cluster: ApiServer, service: Service, url: str) -> None:
    ada = ServiceBackend(url, token=service.token("ada"))
    job = ada.submit(read_submission(RECIPE), owner="")
    cluster.objects.merge("rayjobs", "lab", job.id, {"metadata": {"annotations": {"cytoray.io/owner": ""}}})
    assert ada.list() == []
    assert [one.id for one in ServiceBackend(url, token=service.token("boss", scope="administer")).list()] == [job.id]


@pytest.mark.slow
def test_a_token_that_names_a_team_submits_and_sees_for_it(service: Service, url: str) -> None:
    token, _ = create_token(service.folder / "tokens.json", "ada", ("submit:lab", "submit:clinic"), days=1)
    ada, bob = ServiceBackend(url, token=token), ServiceBackend(url, token=service.token("bob", "lab"))
    assert refused(lambda: ada.submit(read_submission(RECIPE), owner="")).field == "team"
    assert refused(lambda: ada.submit(read_submission(RECIPE), owner="", team="other")).field == "team"
    job = ada.submit(read_submission(RECIPE), owner="", team="lab")
    other = ada.submit(read_submission(RECIPE), owner="", team="clinic")
    assert {one.id for one in ada.list()} == {job.id, other.id}
    assert [one.id for one in bob.list()] == [job.id]


@pytest.mark.slow
def test_one_caller_has_so_many_trainings_at_a_time(cluster: ApiServer, service: Service, url: str) -> None:
    ada = ServiceBackend(url, token=service.token("ada", "lab"))
    jobs = [ada.submit(read_submission(RECIPE), owner="") for _ in range(2)]
    text, _ = rotate_token(service.folder / "tokens.json", "ada", grace=timedelta(0))
    ada = ServiceBackend(url, token=text)
    error = refused(lambda: ada.submit(read_submission(RECIPE), owner=""))
    assert isinstance(error, OverloadedError)
    assert "at most 2 queued or running jobs of the caller ada" in error.message
    ServiceBackend(url, token=service.token("bob", "lab")).submit(read_submission(RECIPE), owner="")
    chief = ServiceBackend(url, token=service.token("boss", scope="administer"))
    for _ in range(3):
        chief.submit(read_submission(RECIPE), owner="")
    operator = Operator(cluster, jobs[0].id)
    operator.initialize()
    operator.finish()
    ada.submit(read_submission(RECIPE), owner="")


@pytest.mark.parametrize(
    ("place", "lab", "clinic", "stray"),
    [
        ("s3://lab/cells/nuclei", True, False, False),
        ("s3://lab/cells", False, False, False),  # some of it is the clinic's
        ("s3://lab/cells-2025", True, True, True),
        ("s3://lab", False, False, False),
        ("s3://lab/cells/shared/../nuclei", False, False, False),
        ("S3://lab//cells/x", True, False, False),
        ("s3://lab/cells/clinic/x", False, True, False),
        ("pvc://images/clinic/x", False, True, False),
        ("/data/images/clinic", False, True, False),
        ("file:///data/images/clinic", False, True, False),
        ("/data/images/../images/clinic/x", False, True, False),
        ("pvc://images/clinical", True, True, True),
        (f"{ROOT_LINK}/data/images/clinic", False, False, False),
        (f"{ROOT_LINK.replace('self', '1')}/data/images/clinic", False, False, False),
        ("/var/lib/cytoray/runs", False, False, False),
        ("/plates/open", False, False, False),  # a path that no entry holds
        ("../data/images/clinic", False, False, False),
        ("s3://open/b/../a", False, False, False),
        ("data/images/clinic", False, False, False),
    ],
)
def test_data_of_a_team_are_named_by_its_trainings_alone(place: str, lab: bool, clinic: bool, stray: bool) -> None:
    teams = {
        "lab": Quota(data=("s3://lab/cells/",)),
        "clinic": Quota(data=("pvc://images/clinic", "s3://lab/cells/clinic")),
    }

    def may(team: str | None) -> bool:
        try:
            own_data(team, ("s3://open/x", place), teams)
        except ForbiddenError:
            return False
        return True

    assert [may(team) for team in ("lab", "clinic", None)] == [lab, clinic, stray]


@pytest.mark.slow
def test_a_recipe_with_data_of_another_team_is_refused(make: Make) -> None:
    service = make(teams={"lab": {"data": ["/data/images"]}, "clinic": {}})
    with running(service.api) as url:
        ada, eve = (
            ServiceBackend(url, token=service.token(name, team)) for name, team in (("ada", "lab"), ("eve", "clinic"))
        )
        error = refused(lambda: eve.submit(read_submission(RECIPE), owner=""))
        assert isinstance(error, ForbiddenError)
        assert isinstance(refused(lambda: eve.manifest(read_submission(RECIPE), owner="")), ForbiddenError)
        assert ada.submit(read_submission(RECIPE), owner="").team == "lab"
        chief = ServiceBackend(url, token=service.token("boss", scope="administer"))
        assert chief.submit(read_submission(RECIPE), owner="", team="clinic").team == "clinic"


@pytest.mark.slow
def test_a_recipe_of_a_team_starts_from_no_folder_of_another(make: Make) -> None:
    service = make(teams={"lab": {"data": ["pvc://images/lab"]}, "clinic": {"data": ["pvc://images/clinic"]}})
    recipe = RECIPE.replace("/data/images/nuclei", "pvc://images/lab")
    start = "model.start={{from: {}}}"
    with running(service.api) as url:
        ada = ServiceBackend(url, token=service.token("ada", "lab"))
        for source in (
            "/data/images/clinic/model",
            "pvc://images/clinic/model",
            f"{ROOT_LINK}/data/images/clinic/m",
        ):
            wrong = read_submission(recipe, [start.format(source)])
            with pytest.raises(ForbiddenError):
                ada.manifest(wrong, owner="")
        right = read_submission(recipe, [start.format("pvc://images/lab/model")])
        assert "subPath: lab" in ada.manifest(right, owner="")


@pytest.mark.parametrize(
    ("place", "seen"),
    [
        ("pvc://images/lab/set", "pvc://images/lab"),
        ("pvc://images/lab/a/link-to-b", "pvc://images/lab"),
        ("pvc://images/open/a/set", "pvc://images/open"),
        ("pvc://other/a/set", "pvc://other"),
        ("pvc://deep/x/y/open/set", "pvc://deep/x/y/open"),
        ("/plates/lab/a/set", "/plates/lab"),
        ("s3://lab/a/set", "s3://lab/a/set"),
        ("pvc://wide/mine/set", "pvc://wide/mine"),
    ],
)
def test_a_job_sees_the_widest_folder_that_holds_nothing_of_others(place: str, seen: str) -> None:
    clinic = ("pvc://images/clinic", "pvc://deep/x/y/z", "/plates/clinic", "pvc://wide/clinic")
    teams = {
        "lab": Quota(data=("pvc://images/lab", "/plates/lab", "pvc://wide")),
        "clinic": Quota(data=clinic),
    }
    assert own_data("lab", (place, place), teams) == (seen,)
    assert own_data("lab", (place,), {"lab": Quota()}) is None


@pytest.mark.slow
def test_a_job_of_a_team_reads_nothing_outside_of_its_folders(make: Make) -> None:
    service = make(teams={"lab": {"data": ["pvc://images/lab"]}, "clinic": {"data": ["pvc://images/clinic"]}})
    recipe = RECIPE.replace("/data/images/nuclei", "pvc://images/lab/set")
    with running(service.api) as url:
        ada = ServiceBackend(url, token=service.token("ada", "lab"))
        chief = ServiceBackend(url, token=service.token("boss", scope="administer"))
        wider = recipe.replace("channels: grey", 'channels: grey, within: ["pvc://images"]')
        for text in (recipe, wider):
            manifest = ada.manifest(read_submission(text), owner="")
            assert "mountPath: /data/images/lab" in manifest
            assert "subPath: lab" in manifest
            recipes = [one["data"]["recipe.yaml"] for one in yaml.safe_load_all(manifest) if "data" in one]
            assert yaml.safe_load(recipes[0])["data"]["within"] == ["pvc://images/lab"]
        assert "subPath" not in chief.manifest(read_submission(recipe), owner="", team="lab")


PLATFORM = f"""\
environment:
  MLFLOW_TRACKING_URI: http://mlflow:{SECRET}@registry.example.org:5000
  MLFLOW_TRACKING_PASSWORD: {SECRET}
  AWS_SECRET_ACCESS_KEY: {SECRET}
  WANDB_API_KEY: {SECRET}
  WHATEVER: {SECRET}
"""


def test_a_check_states_no_password_of_the_platform(cluster: ApiServer, service: Service, url: str) -> None:
    set_platform(cluster, PLATFORM)
    header = {"Authorization": f"Bearer {service.token('ada', 'lab')}"}
    answer = httpx.post(f"{url}/jobs/check", json={"recipe": RECIPE}, headers=header)
    assert answer.status_code == 200
    assert SECRET not in answer.text
    manifest = answer.json()["manifest"]
    assert "WANDB_API_KEY" in manifest
    assert "kind: RayJob" in manifest
    assert "root: /data/images/nuclei" in manifest


def test_what_goes_to_a_ray_cluster_is_shown_without_the_password_of_the_registry(tmp_path: Path) -> None:
    settings = load_settings(
        {"CYTORAY_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": f"http://mlflow:{SECRET}@registry.example.org"}
    )
    manifest = RayBackend("http://127.0.0.1:1", settings).manifest(read_submission(RECIPE), owner="ada")
    assert SECRET in manifest  # on the terminal of the owner of these settings it is whole
    assert SECRET not in shown(manifest)
    assert "MLFLOW_TRACKING_URI" in shown(manifest)


def test_what_a_training_says_is_reported_without_passwords(cluster: ApiServer, service: Service, url: str) -> None:
    ada = ServiceBackend(url, token=service.token("ada", "lab"))
    job = ada.submit(read_submission(RECIPE), owner="")
    operator = Operator(cluster, job.id)
    operator.initialize()
    operator.make_pods()
    pod = operator.run()
    address = f"https://plates.example.org/a.tif?X-Amz-Signature={SECRET}"
    cluster.print(pod, f"reading {address}", f"registry postgresql://u:{SECRET}@db/x")
    cluster.end_log(pod)
    operator.finish()
    log = "".join(ada.logs(job.id))
    assert "https://plates.example.org/a.tif?…" in log
    assert SECRET not in log
    job = Job(id="a", name="a", state="failed", place="kubernetes", reason=f"{address} is gone", hint=address)
    assert SECRET not in job.model_dump_json()


def test_the_trail_states_no_password(service: Service, url: str) -> None:
    recipe = RECIPE.replace("/data/images/nuclei", f"https://u:{SECRET}@host/a?sig={SECRET}")
    ada = ServiceBackend(url, token=service.token("ada", "lab"))
    error = refused(
        lambda: ada.submit(read_submission(RECIPE).model_copy(update={"recipe": recipe + "x: ["}), owner="")
    )
    assert SECRET not in str(error.describe())
    assert SECRET not in service.audit.read_text()
    assert [act.outcome for act in read_audit(service.audit)] == ["refused"]
