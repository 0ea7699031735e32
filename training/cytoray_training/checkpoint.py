"""Checkpoints: a folder of safetensors and JSON from which a training goes on as if it had never stopped.

=========================  ==========================================================================================
``state.safetensors``      weights, their running average, AdamW's moments and step count: full fp32 tensors by name,
                           whichever engine, ZeRO stage and number of workers wrote them
``best.safetensors``       the averaged weights of the best validation so far (absent before the first)
``checkpoint.json``        place in the training, seconds spent, scores so far, best score
=========================  ==========================================================================================

There is no stored state of a random generator: every random number comes from a generator seeded by (seed, step,
worker), so that the place in the training *is* the random state.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cytoray_analysis.errors import TrainingError
from cytoray_analysis.files import draft_folder, follow_umask

STATE, BEST, JOURNAL = "state.safetensors", "best.safetensors", "checkpoint.json"
FORMAT = 1


@dataclass(frozen=True)
class Journal:
    """Where a training stands.

    Attributes
    ----------
    epoch
        Epochs completed.
    step
        Optimizer steps completed, over all epochs.
    seed
        Seed of every random number, together with the step.
    elapsed
        Seconds spent training, interrupted spells included; the schedule depends on it where there is a budget.
    stale
        Validations since the best one.
    finished
        Whether nothing is left to do.
    ended
        When the training ended, UTC, ISO 8601; empty before. Written once, so that its model can be made twice alike.
    history
        Metrics of each completed epoch.
    best
        Metrics of the best validation, with its ``epoch``; empty before the first.
    sums
        What the running epoch has accumulated, so that its mean loss does not depend on an interruption.
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
    """Everything that a training goes on from.

    Attributes
    ----------
    journal
        Where it stands.
    state
        What :meth:`cytoray_training.engine.Engine.state` returned.
    best
        State dict of the network at its best validation, or None.
    """

    journal: Journal
    state: dict[str, Tensor]
    best: dict[str, Tensor] | None


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint folder; it appears whole or not at all."""
    draft = draft_folder(folder)
    try:
        save_file(checkpoint.state, draft / STATE)
        if checkpoint.best is not None:
            save_file(checkpoint.best, draft / BEST)
        document = {"format": FORMAT, **asdict(checkpoint.journal)}
        (draft / JOURNAL).write_text(json.dumps(document, indent=1), encoding="utf-8")
        follow_umask(draft)  # safetensors writes for the owner alone
        if folder.exists():
            shutil.rmtree(folder)
        draft.replace(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def load_journal(folder: Path) -> Journal:
    """Read where a training stands, without its tensors.

    Raises
    ------
    TrainingError
        The checkpoint is damaged or of another format.
    """
    try:
        document: dict[str, Any] = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
        if document.pop("format") != FORMAT:
            raise ValueError("another format")
        return Journal(**document | {"history": tuple(document["history"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, error) from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises
    ------
    TrainingError
        The checkpoint is damaged or of another format.
    """
    journal = load_journal(folder)
    try:
        state = load_file(folder / STATE)
        best = load_file(folder / BEST) if (folder / BEST).exists() else None
    except (SafetensorError, OSError) as error:
        raise _damaged(folder, error) from error
    return Checkpoint(journal, state, best)


def _damaged(folder: Path, error: Exception) -> TrainingError:
    return TrainingError(
        f"the checkpoint in {folder} cannot be read: {error}",
        hint="remove it to go on from the one before, or start anew with --fresh",
    )
