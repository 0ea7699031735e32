"""The output files of ``cytoray predict``: their names, and what to do with existing answers."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cytoray_analysis.errors import CytorayError, RequestError
from cytoray_analysis.images.names import image_stem
from cytoray_serving.inputs import is_zarr
from cytoray_serving.predict.answer_record import AnswerRecord, fingerprint, same_options
from cytoray_serving.predict.failures import system_error
from cytoray_serving.predict.input_files import InputFile

Existing = Literal["refuse", "skip", "overwrite"]
_SHOWN = 20  # names in a message
EXISTING_HINT = (
    "add --skip-existing to keep answers of the same model and options, or --overwrite to replace them, "
    "or choose another --out"
)
_HINTS: dict[Existing, str] = {
    "refuse": EXISTING_HINT,
    "skip": "use --overwrite instead to replace them, or choose another --out",
    "overwrite": "move them away, or choose another --out",
}


@dataclass(frozen=True)
class Skipped:
    """An existing answer that is kept."""

    input: Path
    output: Path
    reason: str


@dataclass(frozen=True)
class Planned:
    """The planned answers to one input.

    Attributes
    ----------
    source
        The input.
    stem
        Path of its answers without their suffixes.
    formats
        Names of the forms to write, without existing ones.
    """

    source: InputFile
    stem: Path
    formats: tuple[str, ...]


def name_outputs(files: Sequence[InputFile], out: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return a path without suffix for the answers of each input, unique also if case is ignored.

    Parameters
    ----------
    files
        The inputs. Inputs with the same name, such as ``a.tif`` and ``A.png``, get a number from the second on.
    out
        The folder of the answers, with the subfolders of the inputs.
    suffixes
        All possible suffixes of answers.
    """
    ends = tuple(suffixes)

    def claims(stem: Path) -> set[str]:
        return {unicodedata.normalize("NFC", f"{stem}{end}").casefold() for end in ends}

    wanted = [out / file.relative.parent / image_stem(file.relative.name) for file in files]
    reserved = set[str]().union(*map(claims, wanted))
    taken: set[str] = set()
    stems = []
    for first in wanted:
        stem, number = first, 1
        while claims(stem) & (taken if number == 1 else taken | reserved):
            number += 1
            stem = first.with_name(f"{first.name}-{number}")
        taken |= claims(stem)
        stems.append(stem)
    return stems


def make_folder(out: Path) -> None:
    """Create the folder of the answers.

    Raises
    ------
    RequestError
        A file has this name.
    PlatformError
        The folder cannot be created or is not writable.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise RequestError(
            f"expected a folder for the answers, got the file {error.filename or out}",
            field="out",
            hint="choose another --out",
        ) from error
    except OSError as error:
        raise system_error(error, f"cannot write into {out}") from error


def require_not_given(targets: Iterable[tuple[Path, Path]], given: Iterable[Path]) -> None:
    """Raise if an answer would replace an input, its masks or the boxes, with any options.

    Parameters
    ----------
    targets
        Inputs, and the paths of possible answers to them.
    given
        All files, OME-Zarrs and folders of frames that are read.

    Raises
    ------
    RequestError
        One of them is at the path of an answer, or contains it.
    """
    # Compared by the system's identity of a file: links and names that only differ in case are the same file.
    read = {(found.st_dev, found.st_ino): path for path in given if path.exists() for found in [path.stat()]}
    for source, target in targets:
        exists = target.exists()
        for place in (target, *target.absolute().parents):
            # A new file in an OME-Zarr changes it; folders of images may contain folders of answers.
            if not (place.exists() if exists else is_zarr(place)):
                continue
            found = place.stat()
            if (found.st_dev, found.st_ino) in read:
                replaced = read[found.st_dev, found.st_ino]
                raise RequestError(
                    f"the answer to {source} would be written to {target} and replace the input {replaced}: "
                    "inputs are never replaced",
                    field="out",
                    hint="choose another --out",
                )


def plan_outputs(
    files: Sequence[tuple[InputFile, Path]],
    targets: Callable[[Path, str], Sequence[tuple[str, Path]]],
    formats: Sequence[str],
    digest: str,
    options: Callable[[InputFile], Mapping[str, Any]],
    record: AnswerRecord,
    existing: Existing,
) -> tuple[list[Planned], list[Skipped]]:
    """Decide what to write, before any work starts.

    Parameters
    ----------
    files
        The inputs, and the paths of their answers.
    targets
        Returns the possible paths for the path of an answer and a form, each with its actual form.
    formats
        Names of the forms.
    digest
        Digest of the model.
    options
        Returns the other options that decide the answer to an input.
    record
        Record of existing answers.
    existing
        What to do with them.

    Returns
    -------
    tuple
        The planned answers of each input, and the answers that are kept.

    Raises
    ------
    RequestError
        Existing answers may not be replaced; the message names all.
    """
    planned: list[Planned] = []
    skipped: list[Skipped] = []
    blocking: list[str] = []
    for source, stem in files:
        left = []
        for name in formats:
            found = [(form, path) for form, path in targets(stem, name) if os.path.lexists(path)]
            blocks = [_blocks(path, form, source, digest, options, record, existing) for form, path in found]
            blocking += [f"{path}{why}" for (_, path), why in zip(found, blocks, strict=True) if why is not None]
            if found and existing == "skip":
                skipped += [Skipped(source.path, path, _why_kept(path, record)) for _, path in found]
            else:
                left.append(name)
        planned.append(Planned(source, stem, tuple(left)))
    if blocking:
        more = len(blocking) - _SHOWN
        listed = ", ".join(blocking[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        count = "1 answer exists" if len(blocking) == 1 else f"{len(blocking)} answers exist"
        raise RequestError(f"{count} already, and nothing was started: {listed}", field="out", hint=_HINTS[existing])
    return planned, skipped


def _blocks(
    path: Path,
    form: str,
    source: InputFile,
    digest: str,
    options: Callable[[InputFile], Mapping[str, Any]],
    record: AnswerRecord,
    existing: Existing,
) -> str | None:
    """Return why an existing file blocks an answer, in brackets; None if it does not."""
    entry = record.entry(path)
    if existing == "refuse":
        return ""
    if existing == "overwrite":
        strange = path.is_dir() and not path.is_symlink() and entry is None
        return " (a folder that predict did not write)" if strange else None
    if entry is None:
        return " (not in the record of answers)"
    if entry.model.digest != digest:
        version = f"/{entry.model.version}" if entry.model.version else ""
        return f" (answer of another model: {entry.model.name}{version}, {entry.model.digest[:12]})"
    try:
        if not same_options(entry.options, {**options(source), "format": form}):
            return " (answer with other options)"
        if source.path.exists() and fingerprint(source.path) != entry.input_sha256:
            return f" (answer to {entry.input}, which was another image or has changed since)"
    except CytorayError as error:
        return f" (its options cannot be compared: {error.message})"
    except OSError as error:
        return f" (it cannot be compared: {error})"
    return None


def _why_kept(path: Path, record: AnswerRecord) -> str:
    unchanged = record.is_unchanged(path)
    return "answered before" if unchanged else "answered before and edited since: kept unchanged"
