"""Where the answers of ``cytoray predict`` go: names, what is there already, and how a file appears there."""

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
from cytoray_serving.answer_record import AnswerRecord, fingerprint, same_options
from cytoray_serving.failures import system_error
from cytoray_serving.input_files import InputFile
from cytoray_serving.inputs import is_zarr

Existing = Literal["refuse", "skip", "overwrite"]
_SHOWN = 20  # names in a message
EXISTING_HINT = (
    "add --skip-existing to keep what the same model and options answered, --overwrite to replace it, "
    "or choose another --out"
)
_HINTS: dict[Existing, str] = {
    "refuse": EXISTING_HINT,
    "skip": "give --overwrite instead to replace them, or choose another --out",
    "overwrite": "move them away, or choose another --out",
}


@dataclass(frozen=True)
class Skipped:
    """An answer that was there already, and stays."""

    input: Path
    output: Path
    reason: str


@dataclass(frozen=True)
class Planned:
    """What is to be written for one input.

    Attributes
    ----------
    source
        The input.
    stem
        Where its answers go, without their suffixes.
    formats
        Names of the forms that are to be written; those that are there already are left out.
    """

    source: InputFile
    stem: Path
    formats: tuple[str, ...]


def name_outputs(files: Sequence[InputFile], out: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return where the answers of each input go, without a suffix: different ones, also where capitals do not count.

    Parameters
    ----------
    files
        The inputs. Those of one name, such as ``a.tif`` and ``A.png``, get a number from the second on.
    out
        The folder of the answers; below it lie the folders of the inputs.
    suffixes
        All that answers may end in.
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
    """Make the folder of the answers.

    Raises
    ------
    RequestError
        There is something else of that name.
    PlatformError
        It cannot be made, or nothing can be written into it.
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
        raise system_error(error, f"nothing can be written into {out}") from error


def require_not_given(targets: Iterable[tuple[Path, Path]], given: Iterable[Path]) -> None:
    """Raise where an answer would replace an input, its masks or the boxes, whatever the options are.

    Parameters
    ----------
    targets
        Inputs, and where answers to them may go.
    given
        All files, OME-Zarrs and folders of frames that are read.

    Raises
    ------
    RequestError
        One of them lies where an answer goes, or holds what does.
    """
    # By what the system calls them: links, and names whose capitals do not count, are the same file.
    read = {(found.st_dev, found.st_ino): path for path in given if path.exists() for found in [path.stat()]}
    for source, target in targets:
        exists = target.exists()
        for place in (target, *target.absolute().parents):
            # A file more in an OME-Zarr changes it; folders of images may have folders of answers.
            if not (place.exists() if exists else is_zarr(place)):
                continue
            found = place.stat()
            if (found.st_dev, found.st_ino) in read:
                replaced = read[found.st_dev, found.st_ino]
                raise RequestError(
                    f"the answer to {source} would be written to {target}, where {replaced} lies, which is read here: "
                    "what is read is never replaced",
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
    """Decide what is written, before any work starts.

    Parameters
    ----------
    files
        The inputs, and where their answers go.
    targets
        Given where answers go and the name of a form, returns the paths that the form may be written to, each with the
        form that it then has.
    formats
        Names of the forms.
    digest
        Of the model.
    options
        Returns what else decides the answer to an input.
    record
        What is known of answers that are there.
    existing
        What to do about them.

    Returns
    -------
    tuple
        What is to be written, an entry for each input; and what is there and stays.

    Raises
    ------
    RequestError
        There is something that may not be replaced; it names all of it.
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
    """Return why something that exists is in the way, in brackets; None where it is not."""
    entry = record.entry(path)
    if existing == "refuse":
        return ""
    if existing == "overwrite":
        strange = path.is_dir() and not path.is_symlink() and entry is None
        return " (a folder that predict did not write)" if strange else None
    if entry is None:
        return " (no record says what answered it)"
    if entry.model.digest != digest:
        version = f"/{entry.model.version}" if entry.model.version else ""
        return f" (answered by another model: {entry.model.name}{version}, {entry.model.digest[:12]})"
    try:
        if not same_options(entry.options, {**options(source), "format": form}):
            return " (answered with other options)"
        if source.path.exists() and fingerprint(source.path) != entry.input_sha256:
            return f" (answered for {entry.input}, which was another image or has changed since)"
    except CytorayError as error:
        return f" (its options cannot be compared: {error.message})"
    except OSError as error:
        return f" (it cannot be compared: {error})"
    return None


def _why_kept(path: Path, record: AnswerRecord) -> str:
    unchanged = record.is_unchanged(path)
    return "answered before" if unchanged else "answered before and changed since, perhaps by hand: kept as it is"
