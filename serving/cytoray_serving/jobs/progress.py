"""The progress of a job from its records: the remaining work, and the status for callers."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from cytoray_services.http.errors import ErrorBody
from cytoray_services.jobs.job import State
from cytoray_serving.jobs.request import SHOWN_ERRORS, ItemError, ItemWarning
from cytoray_serving.jobs.store import Item, JobFolder, Record, now
from cytoray_serving.jobs.work import Task


class Progress:
    """The sums of the records of a job.

    Parameters
    ----------
    folder
        Folder of the job.
    items
        Images of the job.
    records
        Records of finished tasks.
    """

    def __init__(self, folder: JobFolder, items: list[Item], records: Iterable[Record]) -> None:
        self.items = items
        self._folder = folder
        self._lock = threading.Lock()
        self._ended: dict[int, Record] = {}
        self._cut: dict[int, Record] = {}
        self._answered: dict[int, set[int]] = {}
        self._numbered: dict[int, set[int]] = {}
        self._memory = 0
        for record in records:
            self.add(record)

    def add(self, record: Record) -> bool:
        """Count a record, and return whether it was new."""
        with self._lock:
            self._memory = max(self._memory, record.memory)
            if record.item in self._ended:
                return False
            if record.kind in ("done", "failed"):
                self._ended[record.item] = record
                return True
            if record.kind == "cut":
                return self._cut.setdefault(record.item, record) is record
            kept = (self._answered if record.kind == "block" else self._numbered).setdefault(record.item, set())
            if record.block is None or record.block in kept:
                return False
            kept.add(record.block)
            return True

    def items_to_do(self) -> list[Task]:
        """Return the images that are not started."""
        return [
            Task(kind="item", item=item)
            for item in self.items
            if item.index not in self._ended and item.index not in self._cut
        ]

    def blocks_to_do(self) -> list[Task]:
        """Return the unfinished blocks of large images."""
        return [
            Task(kind="block", item=self.items[index], block=block, core=cut.core or ())
            for index, cut in self.open_cuts()
            for block in range(cut.blocks)
            if block not in self._answered.get(index, ())
        ]

    def numbers_to_do(self) -> list[Task]:
        """Return the blocks without final numbers of images whose blocks are all processed."""
        return [
            Task(kind="number", item=self.items[index], block=block)
            for index, cut in self.open_cuts()
            if cut.numbers and self.is_answered(index)
            for block in range(cut.blocks)
            if block not in self._numbered.get(index, ())
        ]

    def open_cuts(self) -> list[tuple[int, Record]]:
        """Return the unfinished large images with their block sizes."""
        return [(index, cut) for index, cut in sorted(self._cut.items()) if index not in self._ended]

    def is_answered(self, index: int) -> bool:
        """Whether all blocks of a large image are processed."""
        return len(self._answered.get(index, ())) == self._cut[index].blocks

    def is_numbered(self, index: int) -> bool:
        """Whether all blocks of a large image are final."""
        cut = self._cut[index]
        return self.is_answered(index) and (not cut.numbers or len(self._numbered.get(index, ())) == cut.blocks)

    def keep(self, state: State, *, error: ErrorBody | None = None) -> None:
        """Write the status of the job."""
        with self._lock:
            before = self._folder.state()
            time = now()
            started = before.started or time
            ended = list(self._ended.values())
            failed = [record for record in ended if record.kind == "failed"]
            done = [record for record in ended if record.kind == "done"]
            warned = [record for record in done if record.warnings]
            changes: dict[str, Any] = {
                "state": state,
                "items_total": len(self.items),
                "items_done": len(done),
                "items_failed": len(failed),
                "items_warned": len(warned),
                "blocks_total": sum(cut.blocks * (1 + cut.numbers) for cut in self._cut.values()),
                "blocks_done": sum(len(kept) for kept in (*self._answered.values(), *self._numbered.values())),
                "megapixels": sum(record.megapixels for record in done),
                "objects": sum(record.objects for record in done),
                "worker_megabytes": round(self._memory / 1e6, 1),
                "started": started,
                "updated": time,
                "ended": None if state == "running" else time,
                "seconds": (time - started).total_seconds(),
                "errors": [
                    ItemError(item=self.items[record.item].uri, **record.error.model_dump())
                    for record in failed[:SHOWN_ERRORS]
                    if record.error is not None
                ],
                "warnings": [
                    ItemWarning(item=self.items[record.item].uri, code=warning.code, sentence=warning.sentence)
                    for record in warned[:SHOWN_ERRORS]
                    for warning in record.warnings
                ],
                "error": error,
            }
            self._folder.keep_state(before.model_copy(update=changes))
