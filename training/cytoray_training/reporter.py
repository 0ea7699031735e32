"""Where a training leaves its checkpoints and tells how it goes: Ray Train, or a plain folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cytoray_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cytoray_training.stopping import StopFile

PROGRESS = "progress.jsonl"
_PREFIX = "checkpoint-"


class Reporter(Protocol):
    """What the loop asks of its surroundings. Every worker calls `report` the same number of times."""

    def latest(self) -> Checkpoint | None:
        """Return the checkpoint to go on from, if there is one."""
        ...

    def report(self, metrics: Mapping[str, float], checkpoint: Checkpoint | None) -> None:
        """Keep a checkpoint, given by worker 0, with the metrics so far."""
        ...

    def progress(self, facts: Mapping[str, Any]) -> None:
        """Tell how it goes, between checkpoints: a ``stage``, and what belongs to it."""
        ...

    def stopping(self) -> bool:
        """Whether the training is asked to save where it is and end."""
        ...


class FolderReporter:
    """Keeps the newest two checkpoints and a progress file in a folder: for one process, and for torchrun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._stop_file = StopFile(folder)

    def latest(self) -> Checkpoint | None:
        """Return the newest checkpoint in the folder."""
        folders = self._checkpoints()
        return load_checkpoint(folders[-1]) if folders else None

    def report(self, metrics: Mapping[str, float], checkpoint: Checkpoint | None) -> None:
        """Write the checkpoint, then remove all but the newest two."""
        if checkpoint is not None:
            save_checkpoint(self.folder / f"{_PREFIX}{checkpoint.journal.step:09d}", checkpoint)
            for old in self._checkpoints()[:-2]:
                shutil.rmtree(old)

    def progress(self, facts: Mapping[str, Any]) -> None:
        """Append a line to the progress file."""
        append_progress(self.folder / PROGRESS, facts)

    def stopping(self) -> bool:
        """Whether there is a stop file."""
        return self._stop_file()

    def _checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob(f"{_PREFIX}*"))


def append_progress(path: Path, facts: Mapping[str, Any]) -> None:
    """Append one line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dict(facts)) + "\n")
