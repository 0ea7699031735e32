"""The journal of finished tasks of a job."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from cytoray_analysis.files import open_private
from cytoray_serving.jobs.store import JobFolder, Record


class Journal:
    """Appends records to the folder of a job; they survive a crash of the process and of the machine."""

    def __init__(self, folder: JobFolder) -> None:
        path = folder.path / "records.jsonl"
        self._file = open_private(path)
        whole = path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(whole)  # removes a partial last line of a killed process

    def append(self, records: Iterable[Record]) -> None:
        """Append records; on return they are on disk."""
        self._file.write(b"".join(record.model_dump_json(exclude_defaults=True).encode() + b"\n" for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
