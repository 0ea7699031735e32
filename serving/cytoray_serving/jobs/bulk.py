"""A bulk prediction as a job: the fields of every job, and the progress of the images."""

from __future__ import annotations

from typing import Any

from cytoray_services.jobs.job import Job, Kind, Progress
from cytoray_serving.jobs.request import DamagedJob, JobStatus


class BulkJob(JobStatus, Job):
    """A job of a service, with the full status from the service."""

    command: Kind = "predict"

    def lines(self) -> list[str]:
        """Return lines for people, with a line for each failed image."""
        team = f", team {self.team}" if self.team else ""
        found = f"{self.progress}, {self.items_warned} with warnings" if self.items_warned else str(self.progress)
        lines = [
            f"{self.id}  {self.state}  predict {self.name}",
            f"  {self.request.input} -> {self.request.output}, by {self.owner}{team}",
            f"  {found}, {self.objects} {'object' if self.objects == 1 else 'objects'}, "
            f"{self.megapixels:.1f} megapixels, {self.seconds:.1f} s",
        ]
        if self.blocks_total:
            lines.append(f"  {self.blocks_done} of {self.blocks_total} blocks of large images")
        lines += [f"  {error.item}: {error.error}: {error.message}" for error in self.errors]
        lines += [f"  left out: {one.item} ({one.reason})" for one in self.left_out]
        if self.items_left_out > len(self.left_out):
            lines.append(f"  and {self.items_left_out - len(self.left_out)} more left out")
        lines += [f"  warning: {warning.item}: {warning.sentence} [{warning.code}]" for warning in self.warnings]
        return lines + self.reasons()

    def bar(self) -> dict[str, Any]:
        """Return the fields of a progress bar."""
        ended = self.items_done + self.items_failed
        blocks = f", blocks {self.blocks_done}/{self.blocks_total}" if self.blocks_total else ""
        return {
            "description": self.state,
            "completed": ended + self.blocks_done,
            "total": None if self.items_total is None else self.items_total + self.blocks_total,
            "done": f"{ended}/{'?' if self.items_total is None else self.items_total}{blocks}",
        }


def bulk_job(status: JobStatus, place: str) -> BulkJob:
    """Return the status of a bulk prediction as a job.

    Parameters
    ----------
    place
        The backend, in the form of ``--on``.
    """
    ended = status.items_done + status.items_failed
    parts, total = ended + status.blocks_done, status.items_total
    left = None if total is None else total + status.blocks_total - parts
    progress = Progress(
        unit="images",
        done=status.items_done,
        total=total,
        failed=status.items_failed,
        seconds_left=None if left is None or not parts or status.has_ended else status.seconds / parts * left,
    )
    error = status.error
    return BulkJob(
        **dict(status),
        name=" > ".join(model.name + (f"/{model.version}" if model.version else "") for model in status.models),
        place=place,
        progress=progress,
        reason=None if error is None else error.message,
        hint=None if error is None else error.hint,
    )


def damaged_job(damaged: DamagedJob, place: str) -> Job:
    """Return a job whose record is damaged."""
    error = damaged.error
    return Job(
        id=damaged.id, command="predict", name="", state="damaged", place=place, reason=error.message, hint=error.hint
    )
