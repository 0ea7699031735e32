"""Runs on disk: which folder a training writes to, and whether an interrupted one is gone on with."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cytoray_analysis.errors import TrainingError
from cytoray_analysis.files import write_whole
from cytoray_training.plan import Plan

RECORD = "run.json"


@dataclass(frozen=True)
class TrainingRun:
    """A training's folder and what must outlive the process.

    Attributes
    ----------
    folder
        ``home/runs/<model>-<identity>-<number>``, or of several trainings, ``home/studies/…``.
    run_id
        Of the MLflow run; None before it was made.
    finished
        Whether its model was registered.
    """

    folder: Path
    run_id: str | None = None
    finished: bool = False

    def noting(self, *, run_id: str | None = None, finished: bool = False) -> TrainingRun:
        """Write a change down, and return the run with it."""
        changed = replace(self, run_id=run_id or self.run_id, finished=finished)
        content = {key: value for key, value in asdict(changed).items() if key != "folder"}
        write_whole(self.folder / RECORD, json.dumps(content))
        return changed


@contextmanager
def claim_run(plan: Plan, *, fresh: bool) -> Iterator[TrainingRun]:
    """Hold the run to write to: the unfinished one of this plan, or a new one.

    Parameters
    ----------
    plan
        Its identity tells which runs are of the same training.
    fresh
        Begin anew in any case.

    Raises
    ------
    TrainingError
        Another process is at it.
    """
    with claim_folder(plan.home / "runs", f"{plan.recipe.model.name}-{plan.identity[:12]}", fresh=fresh) as run:
        yield run


@contextmanager
def claim_folder(parent: Path, stem: str, *, fresh: bool) -> Iterator[TrainingRun]:
    """Hold the newest folder ``stem-number`` if it is unfinished, else a new one; see :func:`claim_run`."""
    parent.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(folder.name.removeprefix(f"{stem}-")) for folder in parent.glob(f"{stem}-*"))
    newest = _read(parent / f"{stem}-{numbers[-1]}") if numbers else None
    if newest is None or newest.finished or fresh:
        newest = TrainingRun(parent / f"{stem}-{numbers[-1] + 1 if numbers else 1}")
    newest.folder.mkdir(exist_ok=True)
    with (newest.folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"another process is training in {newest.folder}",
                hint="wait for it, or begin another training with --fresh",
            ) from error
        yield newest


def _read(folder: Path) -> TrainingRun:
    record = folder / RECORD
    return TrainingRun(folder, **json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {})
