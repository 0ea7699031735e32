"""The jobs of this machine as files, which outlive the Ray cluster that ran them: ``CYTORAY_HOME/ray/jobs``.

==============  ================================================
``ID/job.json``  the last description of the job by the cluster
``ID/log``       its output, written continuously
``ID/ended``     the exit status of its command, once there is one
==============  ================================================
"""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cytoray_analysis.files import write_whole
from cytoray_services.jobs.job import Job, State
from cytoray_services.records import reading

ID = r"[a-z0-9-]{1,64}"
KEEP_DAYS = 90
_SIGNALLED = 128  # a shell adds the number of the signal
_STATES: dict[int, State] = {0: "done", 130: "cancelled", 143: "cancelled"}


class JobHistory:
    """The jobs of all clusters of one state folder.

    Parameters
    ----------
    folder
        Folder of all jobs; created with the first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, job_id: str) -> Path:
        """Create the folder of a job, and remove those of jobs that ended long ago."""
        for job in self.jobs():
            if job.ended is not None and job.ended + timedelta(days=KEEP_DAYS) < datetime.now(UTC):
                shutil.rmtree(self._folder / job.id)
        folder = self._folder / job_id
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def folder_of(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self._folder / job_id

    def keep(self, job: Job) -> None:
        """Write the status of a job, if it was started here."""
        if (self._folder / job.id).is_dir():
            write_whole(self._folder / job.id / "job.json", job.model_dump_json(), private=True)

    def discard(self, job_id: str) -> None:
        """Remove a job that has not started."""
        shutil.rmtree(self._folder / job_id, ignore_errors=True)

    def jobs(self) -> list[Job]:
        """Return all jobs, unordered."""
        return [job for path in self._folder.glob("*/job.json") if (job := self.find(path.parent.name)) is not None]

    def find(self, job_id: str) -> Job | None:
        """Return the last status of a job; None if there is no such job."""
        folder = self._folder / job_id
        if not re.fullmatch(ID, job_id) or not (folder / "job.json").is_file():
            return None
        with reading(folder / "job.json", "a job of this machine"):
            job = Job.model_validate_json((folder / "job.json").read_bytes())
        return job if job.has_ended else _ended(job, folder)

    def log(self, job_id: str) -> str:
        """Return the log of a job."""
        path = self._folder / job_id / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def said_last(log: str) -> dict[str, str | None]:
    """Return reason and hint of the error that a command with ``--json`` printed at its end; empty without error."""
    for line in reversed(log.splitlines()[-50:]):
        try:
            described = json.loads(line)
        except ValueError:
            continue
        if isinstance(described, dict) and "error" in described and "message" in described:
            return {"reason": str(described["message"]), "hint": described.get("hint")}
    return {}


def _ended(job: Job, folder: Path) -> Job:
    """Return the final status of a job from its files."""
    status, log = folder / "ended", folder / "log"
    last = next((path for path in (status, log) if path.is_file()), folder / "job.json").stat().st_mtime
    ended = datetime.fromtimestamp(last, UTC)
    started = job.started or job.created
    known = {"ended": ended, "seconds": max(0.0, (ended - started).total_seconds()) if started else 0.0}
    if not status.is_file():
        reason = "the Ray cluster of this machine ended before the job"
        hint = "submit the recipe again: training continues from its last checkpoint"
        return job.model_copy(update={**known, "state": "failed", "reason": reason, "hint": hint})
    number = int(status.read_text(encoding="ascii"))
    state = _STATES.get(number, "failed")
    why: dict[str, str | None] = {"reason": None, "hint": None}  # the last description may give that of a queued job
    if state == "failed":
        why |= said_last(log.read_text(encoding="utf-8", errors="replace")) or {"reason": _reason(number)}
    return job.model_copy(update={**known, "state": state, **why})


def _reason(status: int) -> str:
    if status > _SIGNALLED:
        signal = status - _SIGNALLED
        return f"its command was killed by signal {signal}: out of memory, or the Ray cluster of this machine ended"
    return f"its command ended with status {status}; see its log"
