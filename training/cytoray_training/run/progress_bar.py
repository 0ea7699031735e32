"""The progress of a training run on standard error: a bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cytoray_services.jobs.progress import epoch_line
from cytoray_services.registry import Run
from cytoray_training.run.reporter import Listener

UNITS = 1000


class ProgressBar:
    """Shows epoch, loss, score, images per second and time left.

    Parameters
    ----------
    epochs
        Planned epochs.
    metric
        The score that chooses the weights, which is shown first.
    """

    def __init__(self, epochs: int, metric: str) -> None:
        self.epochs = epochs
        self._scores = tuple(dict.fromkeys((metric, "ap50", "ap70", "pq")))
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
        """Show the current activity."""
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
        """Report that a training run continues with more or fewer workers, as after the loss of a node."""
        if self._workers not in (None, workers):
            self._console.print(f"continuing with {workers} workers instead of {self._workers}", highlight=False)
        self._workers = workers

    def _warn(self, text: str) -> None:
        """Print a warning once, however often the training run is restarted."""
        if text not in self._warned:
            self._console.print(text, highlight=False, markup=False)
            self._warned.add(text)

    def _end_epoch(self, facts: Mapping[str, Any]) -> None:
        scores = {name: facts[name] for name in self._scores if name in facts}
        if scores:
            name, value = next(iter(scores.items()))
            self._score = f"{name} {value:.3f}  "
        if not self._console.is_terminal:
            line = epoch_line(
                int(facts["epoch"]) + 1,
                self.epochs,
                facts["loss"],
                scores,
                facts["images_per_second"],
                facts["elapsed"],
            )
            self._console.print(
                line, highlight=False, soft_wrap=True
            )  # one complete line: jobs read their progress from it


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def listener(run: Run, bar: ProgressBar) -> Listener:
    """Return a listener that shows the lines of a progress file and records its epochs."""

    def listen(facts: Mapping[str, Any]) -> None:
        bar.show(facts)
        if facts["stage"] == "epoch":
            numbers = {name: value for name, value in facts.items() if name not in ("stage", "epoch")}
            run.log_metrics(numbers, step=int(facts["epoch"]))

    return listen
