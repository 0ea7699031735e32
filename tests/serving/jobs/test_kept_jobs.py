"""What is kept of jobs, for how long, and what of it can be read."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from cytoray_services.http.errors import ErrorBody
from cytoray_services.settings import load_settings
from cytoray_serving.jobs.drivers import Drivers
from cytoray_serving.jobs.forgetting import remove_ended
from cytoray_serving.jobs.request import ItemError, ItemWarning, JobRequest, JobStatus
from cytoray_serving.jobs.store import JobFolder, JobStore, new_id, now
from job_samples import new_job

SECRET = "c2VjcmV0"  # noqa: S105 - what must not be read
PRESIGNED = f"https://plates.example.org/a.tif?X-Amz-Credential=AK&X-Amz-Signature={SECRET}"


def kept(store: JobStore, folder: Path, *, state: str = "done", days: float = 40, **request: str) -> JobFolder:
    output = (folder / new_id()).as_uri()
    job = new_job(request=JobRequest(input="file:///in", output=output).model_copy(update=request))
    store.create(job)
    found = store.find(job.id)
    ended = None if state in ("queued", "running") else now() - timedelta(days=days)
    found.keep_state(found.state().model_copy(update={"state": state, "ended": ended}))
    return found


def test_jobs_that_ended_long_ago_are_forgotten_and_their_answers_stay(tmp_path: Path) -> None:
    store, answers = JobStore(tmp_path / "jobs"), tmp_path / "answers"
    old = [kept(store, answers, state=state) for state in ("done", "failed", "cancelled")]
    stays = [kept(store, answers, days=20), kept(store, answers, state="running"), kept(store, answers, state="queued")]
    damaged = kept(store, answers)
    (damaged.path / "state.json").write_text("{")
    worked_on = kept(store, answers)
    answers.mkdir()
    (answers / "a.tif").write_text("an answer")
    with worked_on.lock():
        removed = remove_ended(store, now() - timedelta(days=30))
    assert sorted(removed) == sorted(one.path.name for one in old)
    left = {one.path.name for one in store.folders()}
    assert left == {one.path.name for one in (*stays, damaged, worked_on)}
    assert len(list((store.folder / ".outputs").iterdir())) == len(left) + 1  # and the lock
    assert [path for path in store.folder.iterdir() if path.name.startswith(".removed")] == []
    assert (answers / "a.tif").read_text() == "an answer"


def test_what_a_killed_process_left_of_a_removal_goes_with_the_next(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    folder = kept(store, tmp_path)
    folder.path.rename(tmp_path / f".removed-{folder.path.name}")
    assert remove_ended(store, now()) == []
    assert [path.name for path in tmp_path.iterdir()] == [".outputs"]


@pytest.mark.parametrize(("days", "left"), [(30, 1), (0, 2), (None, 2), (60, 2)])
def test_a_service_forgets_after_its_days_and_never_with_none(tmp_path: Path, days: float | None, left: int) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path / "home")})
    store = JobStore(tmp_path / "jobs")
    drivers = Drivers(store, settings, "127.0.0.1:1", keep_days=days)
    kept(store, tmp_path)
    kept(store, tmp_path, days=1)
    drivers._tidy_up()
    assert len(store.folders()) == left


def test_a_presigned_address_is_kept_for_the_job_and_shown_to_no_one(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    folder = kept(store, tmp_path, state="queued", input=PRESIGNED, masks=PRESIGNED, boxes=PRESIGNED)
    assert folder.job().request.input == PRESIGNED  # what works on it can read it
    error = ErrorBody(error="PlatformError", message=f"{PRESIGNED} does not answer")
    ended = folder.state().model_copy(
        update={
            "errors": [ItemError(item=PRESIGNED, **error.model_dump())],
            "warnings": [ItemWarning(item=PRESIGNED, code="a", sentence=f"{PRESIGNED} has no pixel size")],
            "error": error,
        }
    )
    folder.keep_state(ended)
    folder.log.write_text(f"reading {PRESIGNED}\nregistry: postgresql://u:{SECRET}@db/x\n")
    for text in (
        (folder.path / "state.json").read_text(),
        ended.model_dump_json(),
        store.states().model_dump_json(),
        folder.log_text(),
    ):
        assert SECRET not in text
    assert "https://plates.example.org/a.tif?…" in folder.log_text()


def test_an_earlier_release_can_read_the_records_of_who_uses_nothing_new(tmp_path: Path) -> None:
    folder = kept(JobStore(tmp_path), tmp_path)
    for name in ("job.json", "state.json"):
        record = json.loads((folder.path / name).read_text())
        assert "team" not in record["request"]
        assert not {"refused_roots", "refused_buckets"} & set(record.get("allowed", ()))


def test_a_record_of_before_is_shown_cut_and_belongs_to_its_owner(tmp_path: Path) -> None:
    folder = kept(JobStore(tmp_path), tmp_path)
    record = json.loads((folder.path / "state.json").read_text())
    record["request"]["input"] = PRESIGNED
    del record["team"]
    (folder.path / "state.json").write_text(json.dumps(record))
    old = folder.state()
    assert (old.owner, old.team) == ("ada", None)
    assert SECRET not in old.model_dump_json()
    assert isinstance(JobStatus.model_validate_json(old.model_dump_json()), JobStatus)
