"""What a job leaves on disk is enough to go on, wherever its process was killed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytoray_analysis.answer_warnings import AnswerWarning
from cytoray_analysis.errors import JobNotFoundError, PlatformError, RequestError
from cytoray_serving.jobs.journal import Journal
from cytoray_serving.jobs.progress import Progress
from cytoray_serving.jobs.request import JobRequest
from cytoray_serving.jobs.store import Item, JobFolder, JobStore, Record
from job_samples import new_job


def new_folder(folder: Path) -> JobFolder:
    store, job = JobStore(folder), new_job()
    store.create(job)
    return store.find(job.id)


def test_a_job_is_found_by_its_name_alone(tmp_path: Path) -> None:
    store, job = JobStore(tmp_path), new_job()
    status = store.create(job)
    assert store.find(job.id).job() == job
    assert [one.id for one in store.states().jobs] == [status.id]
    for name in ("..", "", "job-nowhere-0", f"{job.id}/", f"../{tmp_path.name}/{job.id}", "." + job.id):
        with pytest.raises(JobNotFoundError):
            store.find(name)


def test_of_jobs_that_come_at_once_one_takes_an_output(tmp_path: Path) -> None:
    def submit(number: int) -> str | None:
        request = JobRequest(input="file:///in", output=f"file:///out{'/' * (number % 2)}")
        job = new_job(request=request)
        try:
            return JobStore(tmp_path).create(job).id
        except RequestError:
            return None

    with ThreadPoolExecutor(8) as pool:
        taken = [one for one in pool.map(submit, range(40)) if one is not None]
    store = JobStore(tmp_path)
    assert [one.id for one in store.states().jobs] == taken
    assert len(taken) == 1
    store.find(taken[0]).cancel()
    assert submit(0) is not None  # once the other has ended


@pytest.mark.slow
@given(st.integers(0, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_that_was_being_written_is_none(tmp_path: Path, cut: int) -> None:
    folder = new_folder(tmp_path / "jobs")
    written = [Record(kind="done", item=number, output=f"file:///out/{number}.tif") for number in range(5)]
    with Journal(folder) as journal:
        journal.append(written)
    lines = folder.path / "records.jsonl"
    whole = lines.read_bytes()
    lines.write_bytes(whole[: max(0, len(whole) - cut)])
    kept = folder.records()
    assert kept == written[: len(kept)]
    with Journal(folder) as journal:
        journal.append(written[len(kept) :])
    assert folder.records() == written
    assert lines.read_bytes() == whole


def test_one_process_at_a_time_holds_a_job(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    with folder.lock() as mine, folder.lock() as too:
        assert (mine, too) == (True, False)
    with folder.lock() as mine:
        assert mine


def test_a_cancelled_job_has_ended_whatever_its_process_wrote(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    folder.cancel()
    assert folder.state().state == "cancelled"
    done = folder.state().model_copy(update={"state": "done"})
    folder.keep_state(done)
    assert folder.state().state == "done"


def test_what_is_left_follows_from_the_records(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    items = [Item(index=number, uri=f"file:///in/{number}.tif", name=str(number)) for number in range(4)]
    progress = Progress(folder, items, [Record(kind="done", item=0, objects=3), Record(kind="failed", item=1)])
    assert [task.item.index for task in progress.items_to_do()] == [2, 3]
    assert progress.add(Record(kind="cut", item=2, core=(8, 8), blocks=2, numbers=True))
    assert not progress.add(Record(kind="done", item=0))
    assert [(task.item.index, task.block, task.core) for task in progress.blocks_to_do()] == [
        (2, 0, (8, 8)),
        (2, 1, (8, 8)),
    ]
    assert progress.numbers_to_do() == []
    for block in (1, 0):
        assert progress.add(Record(kind="block", item=2, block=block))
        assert not progress.add(Record(kind="block", item=2, block=block))
    assert [task.block for task in progress.numbers_to_do()] == [0, 1]
    progress.add(Record(kind="numbered", item=2, block=0))
    assert not progress.is_numbered(2)
    progress.add(Record(kind="numbered", item=2, block=1))
    assert progress.is_numbered(2)
    progress.keep("running")
    status = folder.state()
    assert (status.items_total, status.items_done, status.items_failed, status.objects) == (4, 1, 1, 3)
    assert (status.blocks_total, status.blocks_done) == (4, 4)


def test_the_records_of_a_job_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "jobs")
    folder.keep_items([Item(index=0, uri="file:///in/0.tif", name="0")])
    with Journal(folder) as journal:
        journal.append([Record(kind="done", item=0)])
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o077 for path in folder.path.iterdir()} == {
        "job.json": 0,
        "state.json": 0,
        "items.json": 0,
        "records.jsonl": 0,
    }


GARBAGE = (b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b'{"kind": 1}')


@pytest.mark.parametrize("content", GARBAGE)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("job.json", JobFolder.job),
        ("state.json", JobFolder.state),
        ("items.json", JobFolder.items),
        ("records.jsonl", JobFolder.records),
    ],
)
def test_a_damaged_record_is_an_error_that_names_the_file(
    tmp_path: Path, name: str, read: Callable[[JobFolder], object], content: bytes
) -> None:
    if (name, content) == ("items.json", b"[]"):
        return  # a list without images is one
    folder = new_folder(tmp_path)
    (folder.path / name).write_bytes(content + b"\n")
    with pytest.raises(PlatformError, match=name):
        read(folder)


@pytest.mark.parametrize("damage", [b"{", b'{"id": "job"}', b"\xff", None, "another's"])
def test_a_listing_names_what_is_damaged_and_the_log_says_so_once(
    tmp_path: Path, damage: bytes | str | None, caplog: pytest.LogCaptureFixture
) -> None:
    store, good, bad = JobStore(tmp_path), new_job(), new_job()
    for job in (good, bad):
        store.create(job)
    state = tmp_path / bad.id / "state.json"
    if damage is None:
        state.unlink()
    else:
        state.write_bytes((tmp_path / good.id / "state.json").read_bytes() if isinstance(damage, str) else damage)
    for _ in range(3):
        found = store.states()
        assert [one.id for one in found.jobs] == [good.id]
        assert [one.id for one in found.damaged] == [bad.id]
        assert str(state) in found.damaged[0].error.message
    assert caplog.text.count(str(state)) == 1


def test_a_job_says_how_many_answers_have_warnings_and_which(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    items = [Item(index=number, uri=f"file:///in/{number}.tif", name=str(number)) for number in range(3)]
    warnings = (AnswerWarning("pixel-size-unknown", "The pixel size of µ is unknown."), AnswerWarning("b", "B."))
    with Journal(folder) as journal:
        journal.append([Record(kind="done", item=0, warnings=warnings), Record(kind="done", item=1)])
    assert folder.records()[0].warnings == warnings
    Progress(folder, items, folder.records()).keep("running")
    status = folder.state()
    assert status.items_warned == 1
    assert [(one.item, one.code, one.sentence) for one in status.warnings] == [
        ("file:///in/0.tif", "pixel-size-unknown", "The pixel size of µ is unknown."),
        ("file:///in/0.tif", "b", "B."),
    ]
