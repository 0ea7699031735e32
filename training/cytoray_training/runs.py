"""Runs on disk: which folder a training writes to, and whether an interrupted one is gone on with."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import CytorayError, TrainingError
from cytoray_analysis.files import write_whole
from cytoray_services.records import reading
from cytoray_training.launch import newest_journal
from cytoray_training.plan import Plan
from cytoray_training.similar import RunSettings, as_options, changed_settings, is_held, shown, to_settings_of

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
    settings
        What it was last started with; None in a record of an earlier version of Cytoray.
    changes
        By field, what was changed of it between two starts, such as ``1 → 2 after 3 of 10 epochs``.
    """

    folder: Path
    run_id: str | None = None
    finished: bool = False
    settings: RunSettings | None = None
    changes: Mapping[str, str] | None = None

    @property
    def tags(self) -> dict[str, str]:
        """What its MLflow run is to say of the changes: the parameters there stay those of the first start."""
        return {f"changed.{field}": change for field, change in (self.changes or {}).items()}

    def noting(self, *, run_id: str | None = None, finished: bool = False) -> TrainingRun:
        """Write a change down, and return the run with it."""
        changed = replace(self, run_id=run_id or self.run_id, finished=finished)
        content = {key: value for key, value in asdict(changed).items() if key != "folder"}
        write_whole(self.folder / RECORD, json.dumps(content))
        return changed


@contextlib.contextmanager
def claim_run(plan: Plan, *, fresh: bool) -> Iterator[TrainingRun]:
    """Hold the run to write to: the unfinished one of this plan, or a new one.

    What is changed of an unfinished one is said on standard error. So is, before a new one, an unfinished one of the
    same model that differs in few settings, and how to go on with that instead.

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
    kind, settings = plan.recipe.model.name, RunSettings.of(plan)
    with claim_folder(plan.home / "runs", kind, plan.identity, plan, settings, fresh=fresh) as run:
        yield run


@contextlib.contextmanager
def claim_folder(
    parent: Path, kind: str, identity: str, plan: Plan, settings: RunSettings, *, fresh: bool
) -> Iterator[TrainingRun]:
    """Hold the newest folder ``kind-identity-number`` if it is unfinished, else a new one; see :func:`claim_run`."""
    parent.mkdir(parents=True, exist_ok=True)
    stem = f"{kind}-{identity[:12]}"
    numbers = _numbers(parent, stem)
    newest = _read(parent / f"{stem}-{numbers[-1]}") if numbers and not fresh else None
    if newest is None or newest.finished:
        if not fresh:
            _name_similar(parent, kind, stem, plan, settings)
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
        yield replace(_changed(newest, settings), settings=settings)


def _changed(run: TrainingRun, settings: RunSettings) -> TrainingRun:
    """Take down and say which settings a run is gone on with otherwise than before."""
    found = changed_settings(run.settings, settings) if run.settings is not None else {}
    if not found:
        return run
    where = _how_far(run)
    said = "  ".join(f"{field} {shown(new)} instead of {shown(old)}" for field, (old, new) in found.items())
    print(f"going on with {run.folder.name} {where}, now with {said}", file=sys.stderr, flush=True)
    changes = dict(run.changes or {})
    for field, (old, new) in found.items():
        change = f"{shown(old)} → {shown(new)} {where}"
        changes[field] = f"{changes[field]}; {change}" if field in changes else change
    return replace(run, changes=changes)


def _name_similar(parent: Path, kind: str, stem: str, plan: Plan, settings: RunSettings) -> None:
    """Say in one line which unfinished run is like the one that begins, and how to go on with that instead."""
    names = (re.fullmatch(rf"({re.escape(kind)}-[0-9a-f]{{12}})-\d+", folder.name) for folder in parent.iterdir())
    nearest: dict[str, tuple[Any, Any]] = {}
    which = ""
    for other in sorted({name[1] for name in names if name} - {stem}):
        folder = parent / f"{other}-{_numbers(parent, other)[-1]}"
        with contextlib.suppress(CytorayError, OSError):  # a damaged record is no reason not to begin another run
            run = _read(folder)
            if run.finished or run.settings is None or is_held(folder):
                continue
            found = to_settings_of(run.settings, plan, settings)
            if found and (not nearest or len(found) < len(nearest)):
                nearest, which = found, f"{folder.name} lies unfinished {_how_far(run)}"
    if nearest:
        said = ", ".join(f"{field} {shown(old)} instead of {shown(new)}" for field, (old, new) in nearest.items())
        options = as_options({field: old for field, (old, _) in nearest.items()})
        print(
            f"{which}: the same with {said}; to go on with that one, stop this one and run the command with {options}",
            file=sys.stderr,
            flush=True,
        )


def _how_far(run: TrainingRun) -> str:
    """Return in words how far an unfinished run or study has come."""
    members = run.folder / "members"
    if members.is_dir():
        ended = sum(
            json.loads(path.read_text(encoding="utf-8"))["state"] != "running" for path in members.glob("*.json")
        )
        return f"after {ended} training runs"
    journal = newest_journal(run.folder)
    if journal is None:
        return "before its first checkpoint"
    if journal.finished:
        return "after its last epoch, before its model was registered"
    epochs = run.settings.recipe["training"]["epochs"] if run.settings is not None else None
    return f"after {journal.epoch}{f' of {epochs}' if epochs else ''} epochs"


def _numbers(parent: Path, stem: str) -> list[int]:
    ends = (folder.name.removeprefix(f"{stem}-") for folder in parent.glob(f"{stem}-*"))
    return sorted(int(end) for end in ends if end.isdecimal())  # others are copies that people made


def _read(folder: Path) -> TrainingRun:
    record = folder / RECORD
    if not record.is_file():
        return TrainingRun(folder)
    with reading(record, "the record of a training", hint="remove that folder, or begin another training with --fresh"):
        content = json.loads(record.read_text(encoding="utf-8"))
        settings = content.get("settings")
        return TrainingRun(folder, **content | {"settings": None if settings is None else RunSettings(**settings)})
