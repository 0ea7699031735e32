"""What is known of the answers in a folder: a line of JSON for each, beside them.

A line says what was asked, by which model and with which options, and what was written, so that a later
``cytoray predict --skip-existing`` knows its own answers, and an answer that a person has corrected is known from one
that is as it was written. Of several lines for one answer the last counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cytoray_serving.schema import ModelAnswered

RECORD = ".cytoray-answers.jsonl"


class AnswerEntry(BaseModel):
    """One answer that was written.

    Attributes
    ----------
    output
        Its path below the folder of the answers.
    output_sha256
        Of what was written: a file, or a folder with all that it holds.
    input, input_sha256
        What was asked about: where it lay, and what it held.
    model
        Which model gave it.
    options
        What else decides the answer: its format, masks, boxes, the segmentation model.
    written
        When.
    """

    model_config = ConfigDict(frozen=True)

    output: str
    output_sha256: str
    input: str
    input_sha256: str
    model: ModelAnswered
    options: dict[str, Any]
    written: datetime


class AnswerRecord:
    """The record of a folder of answers.

    Parameters
    ----------
    folder
        Where the answers lie; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / RECORD
        self._entries: dict[str, AnswerEntry] = {}
        for line in self.path.read_bytes().splitlines() if self.path.is_file() else ():
            try:
                entry = AnswerEntry.model_validate_json(line)
            except ValidationError:
                continue  # of a process that was killed: its answer counts as unknown, and is never replaced
            self._entries[entry.output] = entry

    def paths(self) -> list[Path]:
        """Return where the answers that are known were written."""
        return [self.folder / name for name in self._entries]

    def entry(self, path: Path) -> AnswerEntry | None:
        """Return what is known of an answer."""
        return self._entries.get(path.relative_to(self.folder).as_posix())

    def is_unchanged(self, path: Path) -> bool:
        """Whether an answer is known and still as it was written."""
        entry = self.entry(path)
        return entry is not None and fingerprint(path) == entry.output_sha256

    def add(
        self, path: Path, written: Path, source: Path, source_sha256: str, model: ModelAnswered, options: dict[str, Any]
    ) -> None:
        """Write down an answer before it appears.

        Parameters
        ----------
        path
            Where it will lie.
        written
            Where it lies now.
        source, source_sha256
            What was asked about.
        model, options
            As of :class:`AnswerEntry`.
        """
        entry = AnswerEntry(
            output=path.relative_to(self.folder).as_posix(),
            output_sha256=fingerprint(written),
            input=str(source.absolute()),
            input_sha256=source_sha256,
            model=model,
            options=options,
            written=datetime.now(UTC),
        )
        with self.path.open("ab") as file:
            begun = file.tell() and not self.path.read_bytes().endswith(b"\n")
            file.write((b"\n" if begun else b"") + entry.model_dump_json().encode() + b"\n")
        self._entries[entry.output] = entry


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, of the names and contents of all files in it."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for file_path in sorted(one for one in path.rglob("*") if one.is_file()):
        whole.update(f"{file_path.relative_to(path).as_posix()}\0{fingerprint(file_path)}\n".encode())
    return whole.hexdigest()


def same_options(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sets of options are the same; one that is None says nothing."""
    return _said(one) == _said(other)


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
