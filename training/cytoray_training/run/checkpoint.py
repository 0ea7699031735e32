"""Checkpoints: a folder of safetensors and JSON, from which a training run continues as if never interrupted.

=========================  ==========================================================================================
``state.safetensors``      weights, their running average, AdamW's moments and step count: full fp32 tensors by name,
                           whichever engine, ZeRO stage and number of workers wrote them
``best.safetensors``       the averaged weights of the best validation so far (absent before the first)
``checkpoint.json``        place in the training, seconds spent, scores so far, best score
``sha256.json``            SHA-256 of each of these files, so that damage is found (absent in earlier releases)
=========================  ==========================================================================================

There is no stored state of a random generator: every random number comes from a generator seeded by (seed, step,
worker), so the position in the training run *is* the random state.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cytoray_analysis.errors import TrainingError
from cytoray_analysis.files import follow_umask, whole_path

STATE, BEST, DOCUMENT, SUMS = "state.safetensors", "best.safetensors", "checkpoint.json", "sha256.json"
FORMAT = 1
_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class TrainingProgress:
    """The progress of a training run.

    Attributes
    ----------
    epoch
        Completed epochs.
    step
        Completed optimizer steps, over all epochs.
    seed
        Seed of every random number, together with the step.
    elapsed
        Seconds spent training, including before interruptions; with a time budget, the schedule depends on it.
    stale
        Validations since the best one.
    finished
        Whether the training run is complete.
    ended
        End of the training run, UTC, ISO 8601; empty before. Written once, so its model is reproducible.
    history
        Metrics of each completed epoch.
    best
        Metrics of the best validation, with its ``epoch``; empty before the first.
    sums
        Sums of the current epoch, so that its mean loss does not depend on an interruption.
    """

    epoch: int = 0
    step: int = 0
    seed: int = 0
    elapsed: float = 0.0
    stale: int = 0
    finished: bool = False
    ended: str = ""
    history: tuple[dict[str, float], ...] = ()
    best: dict[str, float] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """Everything needed to continue a training run.

    Attributes
    ----------
    progress
        Its progress.
    state
        The result of :meth:`cytoray_training.engines.engine.Engine.state`.
    best
        State dict of the network at its best validation, or None.
    """

    progress: TrainingProgress
    state: dict[str, Tensor]
    best: dict[str, Tensor] | None


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, durable: bool = True) -> None:
    """Write a checkpoint folder atomically.

    Parameters
    ----------
    durable
        Whether it is flushed to disk on return; False for one that is copied afterwards.
    """
    with whole_path(folder, durable=durable) as draft:
        draft.mkdir()
        save_file(checkpoint.state, draft / STATE)
        if checkpoint.best is not None:
            save_file(checkpoint.best, draft / BEST)
        document = {"format": FORMAT, **asdict(checkpoint.progress)}
        (draft / DOCUMENT).write_text(json.dumps(document, indent=1), encoding="utf-8")
        sums = {path.name: _sum(path) for path in draft.iterdir()}
        (draft / SUMS).write_text(json.dumps(sums), encoding="utf-8")
        follow_umask(draft)  # safetensors creates files readable only by the owner


def load_progress(folder: Path) -> TrainingProgress:
    """Read the progress of a training run, without its tensors.

    Raises
    ------
    TrainingError
        The checkpoint is damaged or of another format.
    """
    try:
        _require_written(folder, _sums(folder), DOCUMENT)
        document: dict[str, Any] = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        if document.pop("format") != FORMAT:
            raise ValueError("another format")
        return TrainingProgress(**document | {"history": tuple(document["history"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder, error) from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises
    ------
    TrainingError
        The checkpoint is damaged or of another format.
    """
    progress = load_progress(folder)
    try:
        sums = _sums(folder)
        for name in (STATE, BEST):
            _require_written(folder, sums, name)
        state = load_file(folder / STATE)
        best = load_file(folder / BEST) if progress.best or (folder / BEST).exists() else None
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(folder, error) from error
    return Checkpoint(progress, state, best)


def checkpoint_name(step: int) -> str:
    """Return the name of the folder of a checkpoint; names sort in the order of steps."""
    return f"{_PREFIX}{step:09d}"


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run's folder, newest first, including damaged ones."""
    return sorted((path for path in folder.glob(f"{_PREFIX}*") if path.is_dir()), reverse=True)


def newest_whole(places: Sequence[Path], warn: Callable[[str], None]) -> Checkpoint | None:
    """Return the first intact checkpoint; None if there is no checkpoint.

    Parameters
    ----------
    places
        Checkpoint folders, newest first.
    warn
        Called for each damaged checkpoint, with the damage and the checkpoint that is used instead.

    Raises
    ------
    TrainingError
        All are damaged.
    """
    damaged: list[TrainingError] = []
    for place in places:
        try:
            checkpoint = load_checkpoint(place)
        except TrainingError as error:
            damaged.append(error)
            continue
        for one in damaged:
            warn(f"{one.message}; continuing from the previous one, {place.name}")
        return checkpoint
    if damaged:
        raise TrainingError(
            f"expected a readable checkpoint in {places[0].parent}, but all {len(damaged)} are damaged: "
            f"{damaged[0].message}",
            hint="restore one from a backup, or start again with --fresh; nothing was removed",
        )
    return None


def _sums(folder: Path) -> dict[str, str] | None:
    """Return the SHA-256 of the written files; None for a checkpoint of an earlier release."""
    if not (folder / SUMS).exists():
        return None
    sums = json.loads((folder / SUMS).read_text(encoding="utf-8"))
    if not isinstance(sums, dict):
        raise TypeError(f"expected a list of files in {SUMS}")
    return sums


def _require_written(folder: Path, sums: dict[str, str] | None, name: str) -> None:
    if sums is not None and name in sums and _sum(folder / name) != sums[name]:
        raise ValueError(f"the content of {name} has changed")


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(folder: Path, error: Exception) -> TrainingError:
    return TrainingError(
        f"the checkpoint in {folder} cannot be read: {error}",
        hint="restore it from a backup, or start again with --fresh",
    )
