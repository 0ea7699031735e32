"""A run that is stored in a folder while MLflow is unreachable, and sent to MLflow later.

A training run takes hours, and MLflow may be unreachable for minutes. Calls that fail are stored in order; none is lost
or sent twice.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import MissingFileError, PlatformError
from cytoray_analysis.files import append_line, write_whole
from cytoray_services.records import reading
from cytoray_services.registry.connection import Connection
from cytoray_services.registry.run import Run, Status

logger = logging.getLogger(__name__)

KEPT = "kept-record"  # the folder, next to the bundle of the training run
_START, _CALLS, _DONE, _MODEL = "start.json", "calls.jsonl", "done.json", "model.json"
_KEPT_CALLS = frozenset({"log_params", "set_tags", "log_file", "log_entries", "end"})


class OfflineRun(Run):
    """A run that writes to a folder what MLflow does not take.

    After the first failed call, all calls are stored, to keep their order.

    Parameters
    ----------
    connection
        The connection to MLflow.
    run_id
        Empty if MLflow was unreachable at the start of the run.
    folder
        Folder of the stored calls; created if needed.
    start
        The arguments of :meth:`Registry.start_run`.
    beginning
        Whether the start must still be sent to MLflow.
    """

    def __init__(
        self, connection: Connection, run_id: str, folder: Path, start: Mapping[str, Any], *, beginning: bool = False
    ) -> None:
        super().__init__(connection, run_id)
        self._folder, self._start = folder, start
        if beginning:
            self._begin()

    @property
    def kept(self) -> bool:
        """Whether there are calls that MLflow has not received."""
        return has_kept(self._folder)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record parameters, in MLflow or the folder; see :meth:`Run.log_params`."""
        if self.kept or not self._tried(lambda: Run.log_params(self, params)):
            self._keep("log_params", dict(params))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags, in MLflow or the folder; see :meth:`Run.set_tags`."""
        if self.kept or not self._tried(lambda: Run.set_tags(self, tags)):
            self._keep("set_tags", dict(tags))

    def log_file(self, path: str | Path, folder: str = "") -> None:
        """Copy a file into the run, in MLflow or the folder; see :meth:`Run.log_file`."""
        if not self.kept and self._tried(lambda: Run.log_file(self, path, folder)):
            return
        if not Path(path).is_file():
            raise MissingFileError(f"expected a file, {path} does not exist", field=str(path))
        self._begin()
        place = self._folder / "files" / f"{len(_lines(self._folder)):06d}"
        place.mkdir(parents=True)
        shutil.copy(path, place)
        self._keep("log_file", str((place / Path(path).name).relative_to(self._folder)), folder)

    def flush(self) -> None:
        """Send the queued metrics, or store them."""
        if self._waiting and (self.kept or not self._tried(lambda: Run.flush(self))):
            self._keep("log_entries", self._waiting)
            self._waiting = []

    def read_text(self, path: str) -> str | None:
        """Return a file of the run, if MLflow has it; see :meth:`Run.read_text`."""
        return None if self.kept else super().read_text(path)

    def end(self, status: Status = "FINISHED") -> None:
        """Close the run, in MLflow or the folder; see :meth:`Run.end`."""
        self.flush()
        if self.kept or not self._tried(lambda: Run.end(self, status)):
            self._keep("end", status)

    def keep_registration(self, name: str, metrics: Mapping[str, float]) -> None:
        """Store the name and the scores for the registration of the bundle of this run."""
        self._begin()
        _write(self._folder / _MODEL, {"name": name, "metrics": dict(metrics)})

    def _tried(self, call: Any) -> bool:
        try:
            call()
        except PlatformError as error:
            logger.warning("%s; the run is stored in %s until MLflow answers", error.message, self._folder)
            return False
        return True

    def _begin(self) -> None:
        if not self.kept:
            _write(self._folder / _START, {**self._start, "run_id": self.run_id or None})

    def _keep(self, call: str, *arguments: Any) -> None:
        self._begin()
        append_line(
            self._folder / _CALLS, json.dumps({"call": call, "arguments": arguments}, default=str), durable=True
        )


def has_kept(folder: Path) -> bool:
    """Whether a folder contains a run that is not completely in MLflow."""
    return (folder / _START).is_file()


def deliver(start_run: Callable[..., Run], folder: Path) -> tuple[str, dict[str, Any]]:
    """Bring a kept run to MLflow, and remove its folder.

    After an interruption, the next call continues after the last call that MLflow received.

    Parameters
    ----------
    start_run
        :meth:`Registry.start_run` of where the run belongs.
    folder
        Where the run is kept.

    Returns
    -------
    run_id
        ID of the run in MLflow.
    model
        ``{name, metrics}`` of the bundle to register; empty without one.

    Raises
    ------
    PlatformError
        MLflow does not answer; the remaining calls stay in the folder.
    """
    start, done, calls, wanted = _kept(folder)
    run = start_run(**start)
    _write(folder / _START, {**start, "run_id": run.run_id})
    ended = False
    for number, (call, arguments) in enumerate(calls):
        ended = call == "end"
        if number < done and not ended:
            continue
        if call == "log_file":
            arguments[0] = folder / arguments[0]
        getattr(run, call)(*arguments)
        _write(folder / _DONE, number + 1)
    if not ended:
        run.flush()
    shutil.rmtree(folder)
    return run.run_id, wanted


def _kept(folder: Path) -> tuple[dict[str, Any], int, list[tuple[str, list[Any]]], dict[str, Any]]:
    """Read the complete stored run before sending any of it: start, calls done, calls, model."""
    with reading(folder / _START, "the start of a run"):
        start = json.loads((folder / _START).read_text(encoding="utf-8"))
        start = {name: start[name] for name in ("experiment", "name", "params", "tags", "run_id")}
    with reading(folder / _DONE, "the number of calls that MLflow has received"):
        done = int(json.loads((folder / _DONE).read_text(encoding="utf-8"))) if (folder / _DONE).is_file() else 0
    calls = []
    for number, line in enumerate(_lines(folder), 1):
        with reading(f"{folder / _CALLS}, line {number}", "a call of a run"):
            entry = json.loads(line)
            if entry["call"] not in _KEPT_CALLS:
                raise ValueError(f"unknown call of a run: {entry['call']!r}")
            calls.append((entry["call"], list(entry["arguments"])))
    with reading(folder / _MODEL, "the name of a model and its scores"):
        model = json.loads((folder / _MODEL).read_text(encoding="utf-8")) if (folder / _MODEL).is_file() else {}
        wanted = {"name": str(model["name"]), "metrics": dict(model["metrics"])} if model else {}
    return start, done, calls, wanted


def _lines(folder: Path) -> list[str]:
    calls = folder / _CALLS
    if not calls.is_file():
        return []
    # A line without its end was incomplete when the process died.
    lines = calls.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]


def _write(path: Path, content: Any) -> None:
    write_whole(path, json.dumps(content, default=str))
