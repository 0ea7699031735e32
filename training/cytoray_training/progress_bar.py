"""The progress of a training on standard error: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

UNITS = 1000


class ProgressBar:
    """Shows epoch, loss, score, images per second and time left.

    Parameters
    ----------
    epochs
        Planned epochs.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("starting workers", total=UNITS, facts="")
        self._score = ""
        self._workers: int | None = None
        self._warned: set[str] = set()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, what: str) -> None:
        """Show what is being done."""
        self._bar.update(self._task, description=what, facts=self._score)

    def show(self, facts: Mapping[str, Any]) -> None:
        """Show one line of the progress file."""
        if facts["stage"] == "workers":
            self._begin(int(facts["workers"]))
        elif facts["stage"] == "warning":
            self._warn(f"warning: {facts['text']}")
        elif facts["stage"] == "decoding":
            done = facts["done"] / facts["total"]
            self._bar.update(self._task, description="decoding images", completed=done * UNITS)
        elif facts["stage"] == "training":
            progress, elapsed = facts["progress"], facts["elapsed"]
            left = elapsed * (1 - progress) / progress if progress > 0 else 0.0
            text = (
                f"loss {facts['loss']:.3f}  {self._score}{facts['images_per_second']:.0f} images/s  {_time(left)} left"
            )
            description = f"epoch {facts['epoch'] + 1}/{self.epochs}"
            self._bar.update(self._task, description=description, completed=progress * UNITS, facts=text)
        elif facts["stage"] == "epoch":
            self._end_epoch(facts)

    def _begin(self, workers: int) -> None:
        """Say so where a training goes on with more or fewer workers, as after the loss of a node."""
        if self._workers not in (None, workers):
            self._console.print(f"going on with {workers} workers instead of {self._workers}", highlight=False)
        self._workers = workers

    def _warn(self, text: str) -> None:
        """Say it once, however often the training is gone on with."""
        if text not in self._warned:
            self._console.print(text, highlight=False, markup=False)
            self._warned.add(text)

    def _end_epoch(self, facts: Mapping[str, Any]) -> None:
        scores = {name: facts[name] for name in ("ap50", "ap70", "pq") if name in facts}
        if scores:
            name, value = next(iter(scores.items()))
            self._score = f"{name} {value:.3f}  "
        if not self._console.is_terminal:
            shown = "  ".join(f"{name} {value:.3f}" for name, value in {"loss": facts["loss"], **scores}.items())
            self._console.print(
                f"epoch {int(facts['epoch']) + 1}/{self.epochs}  {shown}  {facts['images_per_second']:.1f} images/s  "
                f"{_time(facts['elapsed'])}",
                highlight=False,
            )


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
