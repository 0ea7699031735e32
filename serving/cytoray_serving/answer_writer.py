"""How an answer appears in its folder: as a whole, where nothing is, and written down beside the others."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import CytorayError, RequestError
from cytoray_serving.answer_record import AnswerRecord, fingerprint
from cytoray_serving.failures import as_error
from cytoray_serving.output_files import EXISTING_HINT, Planned
from cytoray_serving.schema import ModelAnswered


class AnswerWriter:
    """Writes the answers to one input, in as many forms as are asked for.

    Parameters
    ----------
    planned
        The input, and where its answers go.
    record
        Of the folder of answers.
    options
        What else than image and model decides the answer.
    overwrite
        Whether answers that are there are replaced.

    Attributes
    ----------
    files
        What was written, by the name of its form.
    kept
        Answers that a person had changed and that were moved aside.
    errors
        What went wrong with a form; the others are written all the same.
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
            Name of the form, and what the name of its file or folder ends in.
        model
            Which model gave the answer.
        fill
            Makes a file or folder at the path that it is given.
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
                # First the record: a process that ends in between leaves a line without answer, which does no harm.
                self._record.add(path, draft, source, self._input_sha256, model, self._options | {"format": form})
                if changed:
                    aside = _free(path)
                    path.rename(aside)
                    self.kept.append(aside)
                put_in_place(draft, path, overwrite=self._overwrite)
        except Exception as error:  # noqa: BLE001 - it is reported beside the answers in other forms
            self.errors.append(as_error(error, source))
        else:
            self.files[form] = path


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Give a path for a draft of a file or a folder, which is removed if it does not become the answer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}.", dir=path.parent))
    try:
        yield folder / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(draft: Path, path: Path, *, overwrite: bool) -> None:
    """Move a draft to where the answer goes.

    Raises
    ------
    RequestError
        There is something already, and `overwrite` is false.
    """
    if overwrite:
        if path.is_dir() and not path.is_symlink():
            path.rename(draft.with_name(f"{draft.name}.old"))  # removed with the folder of the draft
        draft.replace(path)
        return
    taken = RequestError(f"{path} has appeared in the meantime, and stays", field="out", hint=EXISTING_HINT)
    if not draft.is_dir():
        try:
            os.link(draft, path)  # which, other than a move, replaces nothing
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
    """Return a name for an answer that a person changed and that is replaced."""
    number = 1
    while True:
        free = path.with_name(f"{path.stem}.edited{'' if number == 1 else f'-{number}'}{path.suffix}")
        if not os.path.lexists(free):
            return free
        number += 1
