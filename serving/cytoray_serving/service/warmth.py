"""Records which models a service keeps warm, for the service that replaces it.

An upgrade on a cluster starts a second service next to the first, and moves the traffic when the second is ready.
The controller of each service writes every few seconds the number of replicas of each model, and the models in the
shared replicas. A new service reads this, starts with the same replicas, and is ready when they are; after some minutes
the queue decides again.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cytoray_analysis.errors import CytorayError
from cytoray_analysis.files import write_whole
from cytoray_services.registry import parse_reference

if TYPE_CHECKING:
    from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

FRESH_SECONDS = 600.0
"""How long a record counts, and how long its replicas are kept without requests."""
_EVERY_SECONDS = 10.0
_MOST_BYTES = 2**20
_MOST_FILES = 64
_AHEAD_SECONDS = 60.0  # tolerated clock difference of another machine


class Warmth(BaseModel):
    """A record of warm models.

    Attributes
    ----------
    written
        Seconds since the epoch.
    replicas
        Number of replicas by reference, or ``shared``.
    shared
        References that shared replicas answered recently.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    written: float
    replicas: dict[str, int] = {}
    shared: tuple[str, ...] = Field(default=(), max_length=256)


@dataclass(frozen=True)
class SharedUse:
    """References that shared replicas answered since the last report of a gateway."""

    references: tuple[str, ...]


COLD = Warmth(written=0.0)


def warmth_folder(settings: Settings) -> Path:
    """Return the folder in which each service writes its record."""
    return settings.home / "warm"


def read_warmth(folder: Path, *, now: float | None = None) -> Warmth:
    """Read the recent records of all services, with the highest number of replicas; log and omit damaged ones."""
    now = time.time() if now is None else now
    replicas: dict[str, int] = {}
    shared: dict[str, None] = {}
    for path in _files(folder):
        found = _read(path)
        if found is None or not -_AHEAD_SECONDS < now - found.written < FRESH_SECONDS:
            continue
        for reference, count in found.replicas.items():
            replicas[reference] = max(count, replicas.get(reference, 0))
        shared |= dict.fromkeys(filter(_registered, found.shared))
    return Warmth(written=now, replicas=replicas, shared=tuple(shared))


def _registered(reference: str) -> bool:
    """Whether a reference can be one of the registry: folders have dedicated replicas, or none."""
    try:
        parse_reference(reference)
    except CytorayError:
        return False
    return True


def _files(folder: Path) -> list[Path]:
    """Return the newest records."""
    try:
        found = [(path.stat().st_mtime, path) for path in folder.glob("*.json")]
    except OSError as error:
        log.warning("the records of warm models cannot be read, so models start on their first request: %s", error)
        return []
    return [path for _, path in sorted(found, reverse=True)[:_MOST_FILES]]


def _read(path: Path) -> Warmth | None:
    try:
        with path.open("rb") as file:
            return Warmth.model_validate_json(file.read(_MOST_BYTES))
    except (OSError, ValidationError) as error:
        log.warning("the record of warm models %s is omitted: %s", path, str(error).splitlines()[0])
        return None


class WarmthRecord:
    """Writes the record of warm models from a thread while the process runs.

    Parameters
    ----------
    folder
        Folder of the records; this one gets a new name, and old ones are removed.
    replicas
        Returns the running replicas of each deployment; None while the service starts or stops.
    """

    def __init__(self, folder: Path, replicas: Callable[[], Mapping[str, int] | None]) -> None:
        self._path = folder / f"{uuid.uuid4().hex}.json"
        self._replicas = replicas
        self._shared: dict[str, float] = {}
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start writing."""
        threading.Thread(target=self._write_on, name="warmth", daemon=True).start()

    def used(self, use: SharedUse, *, now: float | None = None) -> None:
        """Record the recent use of shared replicas."""
        with self._lock:
            self._shared |= dict.fromkeys(use.references, time.time() if now is None else now)

    def write(self, *, now: float | None = None) -> None:
        """Write the record and remove old ones; a stopped service leaves its last record."""
        now = time.time() if now is None else now
        running = self._replicas()
        if running is None:
            return
        with self._lock:
            self._shared = {one: asked for one, asked in self._shared.items() if now - asked < FRESH_SECONDS}
            newest = sorted(self._shared, key=lambda one: self._shared[one], reverse=True)
        replicas = {reference: count for reference, count in running.items() if count}
        warmth = Warmth(written=now, replicas=replicas, shared=tuple(newest[:256]))
        write_whole(self._path, warmth.model_dump_json() + "\n")
        for path in self._path.parent.glob("*.json"):
            if path != self._path and now - path.stat().st_mtime > 2 * FRESH_SECONDS:
                path.unlink(missing_ok=True)

    def _write_on(self) -> None:
        pause = threading.Event()
        while not pause.wait(_EVERY_SECONDS):
            try:
                self.write()
            except Exception as error:  # noqa: BLE001 - the service works without it
                log.warning("the record of warm models cannot be written: %s", error)
