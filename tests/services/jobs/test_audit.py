"""The audit trail: whatever is changed in it is noticed, and nothing half-written stays."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import MissingFileError, PlatformError, RequestError
from cytoray_services.commands.root import main
from cytoray_services.jobs.service.audit import Act, Audit, Refusals, digest_of, read_audit

WHEN = datetime(2026, 11, 23, 10, tzinfo=UTC)


def act(number: int = 0, reason: str | None = None) -> Act:
    return Act(
        when=WHEN,
        who="ada",
        team="lab",
        address="10.0.0.1",
        what="submit",
        job=f"a-{number}",
        outcome="done",
        reason=reason,
    )


def trail(folder: Path, lines: int) -> Path:
    path = folder / "audit.jsonl"
    path.unlink(missing_ok=True)
    for number in range(lines):
        Audit(path).append(act(number))
    return path


def test_a_trail_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = trail(tmp_path, 3)
    assert [line.job for line in read_audit(path)] == ["a-0", "a-1", "a-2"]
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(MissingFileError):
        read_audit(tmp_path / "none")


@pytest.mark.slow
@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_changed_byte_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = trail(tmp_path, 3)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    path.write_bytes(content)
    with pytest.raises(RequestError):
        read_audit(path)


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(st.permutations(range(4)), st.integers(0, 4))
def test_lines_taken_out_or_moved_are_noticed(tmp_path: Path, order: list[int], kept: int) -> None:
    path = trail(tmp_path, 4)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[number] for number in order[:kept]))
    if order[:kept] == list(range(kept)):  # an older state: its last digest shows that
        assert len(read_audit(path)) == kept
        return
    with pytest.raises(RequestError):
        read_audit(path)


def test_a_line_put_in_is_noticed_though_its_own_digest_is_right(tmp_path: Path) -> None:
    path = trail(tmp_path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    forged = json.loads(lines[1]) | {"who": "eve"}
    fields = {name: value for name, value in forged.items() if name in Act.model_fields}
    forged["digest"] = digest_of(Act.model_validate(fields), forged["previous"])
    lines[1] = json.dumps(forged, separators=(",", ":")).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    with pytest.raises(RequestError, match="line 3"):
        read_audit(path)


def test_nothing_is_added_to_a_trail_that_someone_has_changed(tmp_path: Path) -> None:
    path = trail(tmp_path, 2)
    path.write_bytes(path.read_bytes()[:-20])
    before = path.read_bytes()
    with pytest.raises(PlatformError, match="changed at the last line"):
        Audit(path).append(act())
    assert path.read_bytes() == before
    path.rename(tmp_path / "evidence.jsonl")
    Audit(path).append(act())
    assert len(read_audit(path)) == 1


def _fill(path: Path) -> None:
    """Append until the file may not grow any more; nothing of the last act stays."""
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
    for number in range(10):
        try:
            Audit(path).append(act(number))
        except PlatformError:
            os._exit(len(read_audit(path)))
    os._exit(0)


def test_a_full_disk_leaves_the_trail_whole(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_fill, args=(tmp_path / "audit.jsonl",))
    process.start()
    process.join()
    written = process.exitcode or 0
    assert 0 < written < 10
    assert len(read_audit(tmp_path / "audit.jsonl")) == written


def _append(path: Path, count: int) -> None:
    for number in range(count):
        Audit(path).append(act(number))


def test_several_processes_write_one_trail(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_append, args=(path, 20)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(read_audit(path)) == 80


def test_the_command_prints_a_trail_and_refuses_a_changed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = trail(tmp_path, 2)
    with pytest.raises(SystemExit) as ended:
        main(["jobs", "audit", str(path)])
    told = capsys.readouterr()
    assert ended.value.code == 0
    assert told.out.splitlines()[1] == "2026-11-23 10:00:00  ada (lab)  submit  a-1  done"
    assert read_audit(path)[-1].digest in told.err
    path.write_bytes(path.read_bytes().replace(b"a-0", b"a-9"))
    with pytest.raises(SystemExit) as ended:
        main(["jobs", "audit", str(path), "--json"])
    assert ended.value.code == 2
    assert "line 1" in json.loads(capsys.readouterr().out)["message"]


def test_refusals_without_end_fill_no_disk(tmp_path: Path) -> None:
    refusals, path = Refusals(a_minute=10), tmp_path / "audit.jsonl"
    refused = act(reason="no token").model_copy(update={"outcome": "refused", "who": None})
    for second in range(0, 180, 1):
        for _ in range(50):
            written = refusals.admit(refused.model_copy(update={"when": WHEN + timedelta(seconds=second)}))
            if written is not None:
                Audit(path).append(written)
    lines = read_audit(path)
    assert len(lines) == 30
    assert [line.reason for line in lines if line.reason != "no token"] == [
        "no token (after 2990 more that were refused)"
    ] * 2


def test_refusals_of_one_token_hide_none_of_another_and_no_act() -> None:
    refusals = Refusals(a_minute=2)
    done, refused = act(), act().model_copy(update={"outcome": "refused", "token": "1"})
    assert [refusals.admit(refused) is not None for _ in range(4)] == [True, True, False, False]
    assert refusals.admit(refused.model_copy(update={"token": "2"})) is not None
    assert [refusals.admit(done) for _ in range(9)] == [done] * 9
