"""The progress of a training run, from the line that it prints after each epoch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cytoray_analysis.errors import CytorayError
from cytoray_services.jobs.backend import JobBackend
from cytoray_services.jobs.job import Job, Progress

_LINE = re.compile(
    r"^epoch (\d+)/(\d+)  loss \S+(?:  (\S+) (-?\d+\.\d+))?.*  [\d.]+ images/s  (\d+):(\d\d)$", re.MULTILINE
)


def epoch_line(
    epoch: int, epochs: int, loss: float, scores: Mapping[str, float], images_per_second: float, seconds: float
) -> str:
    """Return the line that a training run prints after an epoch, with the deciding score first.

    Parameters
    ----------
    epoch
        From 1.
    seconds
        Since the run began.
    """
    minutes, rest = divmod(int(seconds), 60)
    values = "  ".join(f"{name} {value:.3f}" for name, value in {"loss": loss, **scores}.items())
    return f"epoch {epoch}/{epochs}  {values}  {images_per_second:.1f} images/s  {minutes}:{rest:02d}"


def training_progress(pieces: Iterable[str]) -> Progress | None:
    """Return the progress of a run from its output; None before the end of its first epoch."""
    found = list(_LINE.finditer("".join(pieces)))
    if not found:
        return None
    epoch, epochs, _, _, minutes, rest = found[-1].groups()
    scored = next((one for one in reversed(found) if one[3]), None)  # not every epoch is validated
    seconds = int(minutes) * 60 + int(rest)
    return Progress(
        unit="epochs",
        done=int(epoch),
        total=int(epochs),
        score=None if scored is None else float(scored[4]),
        score_name=None if scored is None else scored[3],
        seconds_left=seconds / int(epoch) * (int(epochs) - int(epoch)),
    )


def with_progress(backend: JobBackend, job: Job) -> Job:
    """Return a running job with its progress, from its log if the backend does not report it."""
    if job.progress is not None or job.state != "running":
        return job
    try:
        return job.model_copy(update={"progress": training_progress(backend.logs(job.id))})
    except CytorayError:  # it has no output yet, or has just ended
        return job
