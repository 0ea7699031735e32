"""The checkpoints of a run's folder, and the one to continue from if some are damaged.

Ray Train lists its checkpoints in a file of the folder, which it rewrites in place. A checkpoint newer than those in
the list was being copied when the process was killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from cytoray_analysis.errors import TrainingError
from cytoray_analysis.files import draft_name
from cytoray_training.run.checkpoint import (
    Checkpoint,
    TrainingProgress,
    checkpoint_name,
    checkpoints,
    load_progress,
    newest_whole,
)

_SNAPSHOT = "checkpoint_manager_snapshot.json"


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest intact checkpoint of a run's folder, without starting Ray; None before the first.

    Raises
    ------
    TrainingError
        All are damaged.
    """
    return _newest_whole(folder, lambda text: None)


def newest_progress(folder: Path) -> TrainingProgress | None:
    """Return the progress of a run from its newest checkpoint with intact progress, without reading weights.

    Raises
    ------
    TrainingError
        The progress of every checkpoint is damaged.
    """
    places = kept_checkpoints(folder)
    for place in places:
        try:
            return load_progress(place)
        except TrainingError:
            if place == places[-1] and _listed(folder) is not None:
                raise
    return None


def _newest_whole(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    try:
        return newest_whole(kept_checkpoints(folder), warn)
    except TrainingError:
        if (folder / _SNAPSHOT).is_file():
            raise
        return None  # the process was killed while the first one was copied


def kept_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run's folder, newest first, without incomplete copies.

    Checkpoints that Ray Train lists but that are missing are included.
    """
    listed = _listed(folder)
    found = checkpoints(folder)
    if listed is None:
        return found
    names = {path.name for path in found} | set(listed)
    return [folder / name for name in sorted(names, reverse=True) if name <= max(listed, default="")]


def _listed(folder: Path) -> list[str] | None:
    """Return the names of the checkpoints in Ray Train's list; None if the list is missing or damaged."""
    try:
        document = json.loads((folder / _SNAPSHOT).read_text(encoding="utf-8"))
        return [str(one["checkpoint_dir_name"]) for one in document["checkpoint_results"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None


def prepare_resume(folder: Path, tell: Callable[[str], None]) -> str | None:
    """Let Ray Train continue from the newest intact checkpoint; return its name.

    Ray's list is renamed if it is unreadable or names damaged checkpoints, because Ray would fail. Nothing is removed.
    """
    newest = _newest_whole(folder, tell)
    name = None if newest is None else checkpoint_name(newest.progress.step)
    note = folder / _SNAPSHOT
    if not note.exists():
        return name
    listed = _listed(folder)
    if listed is None:
        tell(f"{note} cannot be read; continuing from {name or 'the beginning'}")
    if listed is None or max(listed, default=None) != name or not all((folder / one).is_dir() for one in listed):
        note.replace(draft_name(note.with_suffix(".damaged")))
    return name
