"""Runs on disk: the folder of a training run, and whether it continues an interrupted one."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import CytorayError, TrainingError
from cytoray_analysis.files import write_whole
from cytoray_services.locks import locked_if_free
from cytoray_services.records import reading
from cytoray_services.registry import Registry, Run
from cytoray_training.plan.code_version import code_version
from cytoray_training.plan.plan import Plan
from cytoray_training.recipe import recipe_hash
from cytoray_training.run.kept_checkpoints import newest_progress
from cytoray_training.run.similar import RunSettings, as_options, changed_settings, is_held, shown, to_settings_of

RECORD = "run.json"


@dataclass(frozen=True)
class TrainingRun:
    """The folder of a training run, and the state that outlives the process.

    Attributes
    ----------
    folder
        ``home/runs/<model>-<identity>-<number>``, or of several training runs, ``home/studies/…``.
    run_id
        Identifier of the MLflow run; None before it is created.
    finished
        Whether its model was registered.
    settings
        The settings of its last start; None in a record of an earlier version of Cytoray.
    changes
        By field, the change between two starts, such as ``1 → 2 after 3 of 10 epochs``.
    """

    folder: Path
    run_id: str | None = None
    finished: bool = False
    settings: RunSettings | None = None
    changes: Mapping[str, str] | None = None

    @property
    def tags(self) -> dict[str, str]:
        """The changes for its MLflow run, whose parameters stay those of the first start."""
        return {f"changed.{field}": change for field, change in (self.changes or {}).items()}

    def noting(self, *, run_id: str | None = None, finished: bool = False) -> TrainingRun:
        """Record a change, and return the run with it."""
        changed = replace(self, run_id=run_id or self.run_id, finished=finished)
        content = {key: value for key, value in asdict(changed).items() if key != "folder"}
        write_whole(self.folder / RECORD, json.dumps(content))
        return changed


def start_run(
    registry: Registry, plan: Plan, name: str, run_id: str | None, tags: Mapping[str, Any], *, keep: Path | None = None
) -> Run:
    """Start or continue the MLflow run of a plan; see :meth:`Registry.start_run`."""
    known = {"recipe": recipe_hash(plan.recipe), "data": plan.dataset_hash, "code": code_version()}
    params = plan.recipe.model_dump(mode="json", exclude={"tune": True})
    return registry.start_run(plan.recipe.model.name, name, params, {**known, **tags}, run_id=run_id, keep=keep)


@contextlib.contextmanager
def claim_run(plan: Plan, *, fresh: bool) -> Iterator[TrainingRun]:
    """Lock the run to write to: the unfinished one of this plan, or a new one.

    Changes of an unfinished one are reported on standard error. Before a new one, so is an unfinished one of the same
    model that differs in few settings, and how to continue that instead.

    Parameters
    ----------
    plan
        Its identity determines which runs belong to the same training run.
    fresh
        Start from the beginning in any case.

    Raises
    ------
    TrainingError
        Another process is using it.
    """
    kind, settings = plan.recipe.model.name, RunSettings.of(plan)
    with claim_folder(plan.home / "runs", kind, plan.identity, plan, settings, fresh=fresh) as run:
        yield run


@contextlib.contextmanager
def claim_folder(
    parent: Path, kind: str, identity: str, plan: Plan, settings: RunSettings, *, fresh: bool
) -> Iterator[TrainingRun]:
    """Lock the newest folder ``kind-identity-number`` if it is unfinished, else a new one; see :func:`claim_run`."""
    parent.mkdir(parents=True, exist_ok=True)
    stem = f"{kind}-{identity[:12]}"
    numbers = _numbers(parent, stem)
    newest = _read(parent / f"{stem}-{numbers[-1]}") if numbers and not fresh else None
    if newest is None or newest.finished:
        if not fresh:
            _name_similar(parent, kind, stem, plan, settings)
        newest = TrainingRun(parent / f"{stem}-{numbers[-1] + 1 if numbers else 1}")
    newest.folder.mkdir(exist_ok=True)
    with locked_if_free(newest.folder / "lock") as free:
        if not free:
            raise TrainingError(
                f"expected {newest.folder} to be free, but another process is training in it",
                hint="wait for it, or start another training run with --fresh",
            )
        yield replace(_changed(newest, settings), settings=settings)


def _changed(run: TrainingRun, settings: RunSettings) -> TrainingRun:
    """Record and report the settings that changed since the run was interrupted."""
    found = changed_settings(run.settings, settings) if run.settings is not None else {}
    if not found:
        return run
    where = _how_far(run)
    said = "  ".join(f"{field} {shown(new)} instead of {shown(old)}" for field, (old, new) in found.items())
    print(f"continuing {run.folder.name} {where}, now with {said}", file=sys.stderr, flush=True)
    changes = dict(run.changes or {})
    for field, (old, new) in found.items():
        change = f"{shown(old)} → {shown(new)} {where}"
        changes[field] = f"{changes[field]}; {change}" if field in changes else change
    return replace(run, changes=changes)


def _name_similar(parent: Path, kind: str, stem: str, plan: Plan, settings: RunSettings) -> None:
    """Report in one line an unfinished run similar to the new one, and how to continue that instead."""
    names = (re.fullmatch(rf"({re.escape(kind)}-[0-9a-f]{{12}})-\d+", folder.name) for folder in parent.iterdir())
    nearest: dict[str, tuple[Any, Any]] = {}
    which = ""
    for other in sorted({name[1] for name in names if name} - {stem}):
        folder = parent / f"{other}-{_numbers(parent, other)[-1]}"
        with contextlib.suppress(CytorayError, OSError):  # a damaged record must not prevent another run
            run = _read(folder)
            if run.finished or run.settings is None or is_held(folder):
                continue
            found = to_settings_of(run.settings, plan, settings)
            if found and (not nearest or len(found) < len(nearest)):
                nearest, which = found, f"{folder.name} is unfinished {_how_far(run)}"
    if nearest:
        said = ", ".join(f"{field} {shown(old)} instead of {shown(new)}" for field, (old, new) in nearest.items())
        options = as_options({field: old for field, (old, _) in nearest.items()})
        print(
            f"{which}: it differs in {said}; to continue it instead, stop this run and run the command with {options}",
            file=sys.stderr,
            flush=True,
        )


def _how_far(run: TrainingRun) -> str:
    """Describe the progress of an unfinished run or study."""
    members = run.folder / "members"
    if members.is_dir():
        ended = sum(
            json.loads(path.read_text(encoding="utf-8"))["state"] != "running" for path in members.glob("*.json")
        )
        return f"after {ended} training runs"
    progress = newest_progress(run.folder)
    if progress is None:
        return "before its first checkpoint"
    if progress.finished:
        return "after its last epoch, before its model was registered"
    epochs = run.settings.recipe["training"]["epochs"] if run.settings is not None else None
    return f"after {progress.epoch}{f' of {epochs}' if epochs else ''} epochs"


def _numbers(parent: Path, stem: str) -> list[int]:
    ends = (folder.name.removeprefix(f"{stem}-") for folder in parent.glob(f"{stem}-*"))
    return sorted(int(end) for end in ends if end.isdecimal())  # others are copies by users


def _read(folder: Path) -> TrainingRun:
    record = folder / RECORD
    if not record.is_file():
        return TrainingRun(folder)
    with reading(
        record, "the record of a training run", hint="remove that folder, or start another training run with --fresh"
    ):
        content = json.loads(record.read_text(encoding="utf-8"))
        settings = content.get("settings")
        return TrainingRun(folder, **content | {"settings": None if settings is None else RunSettings(**settings)})
