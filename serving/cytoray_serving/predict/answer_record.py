"""The record of the answers in a folder: a file with one line of JSON for each.

A line has the input, the model, the options and the output, so that a later ``cytoray predict --skip-existing``
recognises its own answers, and can distinguish an answer that a person has edited from an unchanged one. The last line
for an answer counts.
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
    """The entry of one answer.

    Attributes
    ----------
    output
        Path of the answer relative to the folder of the answers.
    output_sha256
        SHA-256 of the file, or of the folder with its contents.
    input, input_sha256
        Path and SHA-256 of the input.
    model
        The model that gave the answer.
    options
        Other options that decide the answer: its format, masks, boxes, the segmentation model.
    written
        Time of writing.
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
        Folder of the answers; it need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / RECORD
        self._entries: dict[str, AnswerEntry] = {}
        for line in self.path.read_bytes().splitlines() if self.path.is_file() else ():
            try:
                entry = AnswerEntry.model_validate_json(line)
            except ValidationError:
                continue  # from a killed process: its answer counts as unknown, and is never replaced
            self._entries[entry.output] = entry

    def paths(self) -> list[Path]:
        """Return the paths of the recorded answers."""
        return [self.folder / name for name in self._entries]

    def entry(self, path: Path) -> AnswerEntry | None:
        """Return the entry of an answer."""
        return self._entries.get(path.relative_to(self.folder).as_posix())

    def is_unchanged(self, path: Path) -> bool:
        """Whether an answer is recorded and unchanged."""
        entry = self.entry(path)
        return entry is not None and fingerprint(path) == entry.output_sha256

    def add(
        self, path: Path, written: Path, source: Path, source_sha256: str, model: ModelAnswered, options: dict[str, Any]
    ) -> None:
        """Record an answer before it appears.

        Parameters
        ----------
        path
            Its final path.
        written
            Its current path.
        source, source_sha256
            The input.
        model, options
            See :class:`AnswerEntry`.
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
    """Return the SHA-256 of a file, or of the names and contents of all files in a folder."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for file_path in sorted(one for one in path.rglob("*") if one.is_file()):
        whole.update(f"{file_path.relative_to(path).as_posix()}\0{fingerprint(file_path)}\n".encode())
    return whole.hexdigest()


def same_options(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sets of options are the same; unknown if one is None."""
    return _said(one) == _said(other)


def _said(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
