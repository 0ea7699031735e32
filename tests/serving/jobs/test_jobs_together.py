"""Training runs and work in bulk are jobs alike: in one list, by the same words, wherever they run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cytoray_analysis.errors import JobNotFoundError, PlatformError
from cytoray_services.commands.root import main
from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.history import JobHistory
from cytoray_services.jobs.job import Job
from cytoray_services.jobs.progress import epoch_line
from cytoray_services.settings import Settings, load_settings
from cytoray_serving.jobs.backends import LocalBackend, Several, open_jobs
from cytoray_serving.jobs.bulk import bulk_job
from cytoray_serving.jobs.request import JobStatus
from cytoray_serving.jobs.store import JobStore, now
from job_samples import Unasked, new_job

Run = Callable[..., tuple[int, str, str]]
AWAY = "http://127.0.0.1:1"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cytoray_home: Path) -> Run:
    """Give the function that runs a command: its exit status, its output, and what it says beside."""

    def opened(on: str | None, url: str, settings: Settings, **options: bool) -> JobBackend:
        return open_jobs(on, AWAY, settings, **options)  # whatever answers at the usual port of this machine

    monkeypatch.setattr("cytoray_serving.jobs.backends.open_jobs", opened)
    for name in ("CYTORAY_ON", "CYTORAY_URL", "CYTORAY_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(["jobs", *words])
        said = capsys.readouterr()
        return int(str(ended.value.code)), said.out, said.err

    return run


@pytest.fixture
def bulk(cytoray_home: Path) -> JobStatus:
    """Keep work in bulk in the state folder, a third of which is done."""
    store = JobStore(cytoray_home / "jobs")
    job = new_job()
    changes = {"state": "running", "items_total": 9, "items_done": 2, "items_failed": 1, "seconds": 30.0}
    status = store.create(job).model_copy(update=changes)
    store.find(job.id).keep_state(status)
    store.find(job.id).log.write_text("one\n")
    return status


@pytest.fixture
def trained(cytoray_home: Path) -> Job:
    """Keep the history of a training run in the state folder, whose cluster has ended."""
    history = JobHistory(cytoray_home / "ray" / "jobs")
    job = Job(id="nuclei-x7k2q", name="nuclei", state="running", place="local", owner="ada", created=now())
    folder = history.begin(job.id)
    history.keep(job)
    (folder / "log").write_text(epoch_line(9, 9, 0.5, {"ap50": 0.75}, 8.0, 60) + "\n")
    (folder / "ended").write_text("0")
    return job


def test_one_list_shows_both_with_their_progress(run: Run, bulk: JobStatus, trained: Job) -> None:
    status, table, said = run("list", "--on", "local")
    assert (status, said) == (0, "")
    rows = {line.split()[0]: line for line in table.splitlines()[1:]}
    assert list(rows) == [trained.id, bulk.id]
    assert "epoch 9 of 9, ap50 0.750" in rows[trained.id]
    assert rows[trained.id].split()[1:3] == ["done", "train"]
    assert "2 of 9 images done, 1 failed, 1:00 left" in rows[bulk.id]
    assert rows[bulk.id].split()[1:4] == ["running", "predict", "nuclei/1"]
    listed = json.loads(run("list", "--on", "local", "--json")[1])["jobs"]
    for one in listed:
        assert {"id", "command", "name", "state", "place", "owner", "progress", "created"} <= set(one)
    assert listed[1]["request"]["output"] == bulk.request.output


@pytest.mark.slow
def test_without_a_word_this_machine_is_meant_and_a_service_that_is_away_is_named(
    run: Run, bulk: JobStatus, trained: Job
) -> None:
    status, table, said = run("list")
    assert status == 0
    assert [line.split()[0] for line in table.splitlines()[1:]] == [trained.id, bulk.id]
    assert f"not listed: {AWAY} does not answer" in said
    for job_id, word in ((bulk.id, "one"), (trained.id, "epoch 9/9")):
        assert run("logs", job_id)[1].startswith(word)
        assert job_id in run("show", job_id)[1]
        assert job_id in run("status", job_id)[1]
    assert json.loads(run("stop", bulk.id, "--json")[1])["state"] == "cancelled"
    status, _, said = run("show", "nuclei-zzzzz")
    assert status == 2
    assert "nuclei-zzzzz" in said


def test_a_service_that_is_named_must_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("list", "--url", AWAY)[0] == 1
    assert run("list", "--on", f"local,service:{AWAY}")[0] == 1
    monkeypatch.setenv("CYTORAY_URL", AWAY)
    assert run("list")[0] == 1


def test_a_variable_says_where_jobs_are_unless_an_option_does(
    run: Run, bulk: JobStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYTORAY_ON", f"service:{AWAY}")
    assert run("list")[0] == 1
    assert run("list", "--on", "local")[0] == 0
    monkeypatch.setenv("CYTORAY_ON", "local")
    assert bulk.id in run("list")[1]
    assert run("list", "--url", AWAY)[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("predict nuclei in out --on local", "--on"),
        ("predict nuclei in out --on kubernetes --url http://127.0.0.1:1", "--url"),
        ("train nowhere.yaml", "recipe"),
        ("train nowhere.yaml --command dance", "--command"),
        ("train nowhere.yaml --dry-run --follow", "--follow"),
        ("list --on local,elsewhere", "--on"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_asked(run: Run, line: str, field: str) -> None:
    status, text, _ = run(*line.split(), "--json")
    assert (status, json.loads(text)["field"]) == (2, field)


class Words(Unasked):
    """One job, which has printed where it is."""

    def __init__(self, job: Job, error: Exception | None = None) -> None:
        self._job, self._error = job, error

    def list(self) -> list[Job]:
        if self._error:
            raise self._error
        return [self._job]

    def show(self, job_id: str) -> Job:
        if self._error:
            raise self._error
        if job_id != self._job.id:
            raise JobNotFoundError(f"there is no {job_id}")
        return self._job

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        yield self._job.place


def test_of_several_the_first_that_knows_a_job_answers() -> None:
    one = Job(id="a", name="a", state="done", place="first")
    two, other = one.model_copy(update={"place": "second"}), one.model_copy(update={"id": "b", "place": "second"})
    both = Several([Words(one), Words(two), Words(other)])
    assert [(job.id, job.place) for job in both.list()] == [("b", "second"), ("a", "first")]
    assert "".join(both.logs("a")) == "first"
    with pytest.raises(JobNotFoundError):
        both.show("c")
    away = PlatformError("away")
    with pytest.raises(PlatformError, match="away"):
        Several([Words(one), Words(two, away)]).list()
    assert Several([Words(one), Words(two, away)], optional=1).list() == [one]


@pytest.mark.slow
def test_a_log_that_is_followed_ends_with_the_last_words(cytoray_home: Path, bulk: JobStatus) -> None:
    folder = JobStore(cytoray_home / "jobs").find(bulk.id)
    pieces = LocalBackend(load_settings()).logs(bulk.id, follow=True)
    assert next(pieces) == "one\n"
    folder.log.write_text("one\ntwo\n")
    assert next(pieces) == "two\n"
    folder.log.write_text("one\ntwo\nthree\n")
    folder.keep_state(bulk.model_copy(update={"state": "done"}))
    assert list(pieces) == ["three\n"]


def test_the_time_left_counts_blocks_of_large_images(bulk: JobStatus) -> None:
    large = bulk.model_copy(update={"items_total": 1, "items_done": 0, "items_failed": 0, "blocks_total": 9})
    assert bulk_job(large, "local").progress is not None
    half = bulk_job(large.model_copy(update={"blocks_done": 5}), "local")
    assert half.progress is not None
    assert half.progress.seconds_left == pytest.approx(30.0)
    assert bulk_job(large.model_copy(update={"state": "done"}), "local").progress.seconds_left is None  # type: ignore[union-attr]
