"""Where a training run stores its checkpoints and reports progress: Ray Train, or a plain folder."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from cytoray_analysis.files import append_line
from cytoray_training.run.checkpoint import Checkpoint, checkpoint_name, checkpoints, newest_whole, save_checkpoint
from cytoray_training.run.stopping import StopFile

log = logging.getLogger(__name__)

PROGRESS = "progress.jsonl"
Listener = Callable[[Mapping[str, Any]], None]  # called with each line of the progress file


class Reporter(Protocol):
    """The interface of the loop to its environment. Every worker calls `report` the same number of times."""

    def latest(self) -> Checkpoint | None:
        """Return the checkpoint to continue from, if any."""
        ...

    def report(self, metrics: Mapping[str, float], checkpoint: Checkpoint | None) -> None:
        """Store a checkpoint from worker 0, with the metrics so far."""
        ...

    def progress(self, facts: Mapping[str, Any]) -> None:
        """Report progress between checkpoints: a ``stage`` and its data."""
        ...

    def stopping(self) -> bool:
        """Whether the training run must save its state and end."""
        ...


class FolderReporter:
    """Keeps the newest two checkpoints and a progress file in a folder: for one process or torchrun."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._stop_file = StopFile(folder)
        self._beyond: set[Path] = set()  # damaged, and newer than the checkpoint to continue from

    def latest(self) -> Checkpoint | None:
        """Return the newest intact checkpoint in the folder; warn about damaged ones."""
        found = newest_whole(checkpoints(self.folder), self._warn)
        if found is not None:
            newest = checkpoint_name(found.progress.step)
            self._beyond = {path for path in checkpoints(self.folder) if path.name > newest}
        return found

    def report(self, metrics: Mapping[str, float], checkpoint: Checkpoint | None) -> None:
        """Write the checkpoint, then remove all but the newest two."""
        if checkpoint is not None:
            place = self.folder / checkpoint_name(checkpoint.progress.step)
            save_checkpoint(place, checkpoint)
            self._beyond.discard(place)
            for old in [path for path in checkpoints(self.folder) if path not in self._beyond][2:]:
                shutil.rmtree(old)

    def progress(self, facts: Mapping[str, Any]) -> None:
        """Append a line to the progress file."""
        append_progress(self.folder / PROGRESS, facts)

    def stopping(self) -> bool:
        """Whether there is a stop file."""
        return self._stop_file()

    def _warn(self, text: str) -> None:
        log.warning("%s", text)
        self.progress({"stage": "warning", "text": text})


def append_progress(path: Path, facts: Mapping[str, Any]) -> None:
    """Append one line of JSON."""
    append_line(path, json.dumps(dict(facts)))
