"""Writes an answer into its folder: in one step, without replacing anything, and with an entry in the record."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import CytorayError, RequestError
from cytoray_analysis.files import replace_whole
from cytoray_serving.predict.answer_record import AnswerRecord, fingerprint
from cytoray_serving.predict.failures import as_error
from cytoray_serving.predict.output_files import EXISTING_HINT, Planned
from cytoray_serving.schema import ModelAnswered


class AnswerWriter:
    """Writes the answers to one input in all requested forms.

    Parameters
    ----------
    planned
        The input and the paths of its answers.
    record
        Record of the folder of answers.
    options
        Options that decide the answer, besides image and model.
    overwrite
        Whether existing answers are replaced.

    Attributes
    ----------
    files
        The written files, by the name of the form.
    kept
        New names of existing answers that a person had edited.
    errors
        Errors of forms; the other forms are written nevertheless.
    """

    def __init__(self, planned: Planned, record: AnswerRecord, options: Mapping[str, Any], *, overwrite: bool) -> None:
        self.files: dict[str, Path] = {}
        self.kept: list[Path] = []
        self.errors: list[CytorayError] = []
        self._planned = planned
        self._record = record
        self._options = dict(options)
        self._overwrite = overwrite
        self._input_sha256: str | None = None

    def write(self, form: str, suffix: str, model: ModelAnswered, fill: Callable[[Path], object]) -> None:
        """Write the answer in one form.

        Parameters
        ----------
        form, suffix
            Name of the form, and suffix of its file or folder.
        model
            The model that gave the answer.
        fill
            Creates the file or folder at a path.
        """
        stem, source = self._planned.stem, self._planned.source.path
        path = stem.with_name(stem.name + suffix)
        try:
            with draft_of(path) as draft:
                fill(draft)
                changed = self._overwrite and self._record.entry(path) is not None and os.path.lexists(path)
                changed = changed and not self._record.is_unchanged(path)
                if self._input_sha256 is None:
                    self._input_sha256 = fingerprint(source)
                # First the record: if the process ends in between, an entry without an answer does no harm.
                self._record.add(path, draft, source, self._input_sha256, model, self._options | {"format": form})
                if changed:
                    aside = _free(path)
                    path.rename(aside)
                    self.kept.append(aside)
                put_in_place(draft, path, overwrite=self._overwrite)
        except Exception as error:  # noqa: BLE001 - reported with the answers in other forms
            self.errors.append(as_error(error, source))
        else:
            self.files[form] = path


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield a path for a draft of a file or folder, which is removed if it does not become the answer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", dir=path.parent))
    try:
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(draft: Path, path: Path, *, overwrite: bool) -> None:
    """Move a draft to the path of the answer.

    Raises
    ------
    RequestError
        The path exists already, and `overwrite` is false.
    """
    if overwrite:
        replace_whole(draft, path, durable=False)
        return
    taken = RequestError(f"{path} was created in the meantime, and is not replaced", field="out", hint=EXISTING_HINT)
    if not draft.is_dir():
        try:
            os.link(draft, path)  # which, unlike a move, replaces nothing
        except FileExistsError as error:
            raise taken from error
        except OSError:  # a file system without links
            pass
        else:
            return
    if os.path.lexists(path):
        raise taken
    draft.rename(path)


def _free(path: Path) -> Path:
    """Return a new name for an edited answer that is replaced."""
    number = 1
    while True:
        free = path.with_name(f"{path.stem}.edited{'' if number == 1 else f'-{number}'}{path.suffix}")
        if not os.path.lexists(free):
            return free
        number += 1
