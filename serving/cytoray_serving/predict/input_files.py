"""Finds the inputs of ``cytoray predict``: named files, files of folders and patterns, and what is left out and why."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from cytoray_analysis.errors import CytorayError, MissingFileError, RequestError
from cytoray_analysis.images.archive import ZARR_FILES, ZIP_STARTS
from cytoray_analysis.images.names import image_stem, image_suffix, is_of_system, name_part
from cytoray_analysis.images.picture import is_picture
from cytoray_analysis.images.tiff_directories import TIFF_STARTS
from cytoray_analysis.images.vendor_formats import FORMATS, format_of
from cytoray_analysis.kinds import TruthKind
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_serving.answers import answer_kind
from cytoray_serving.inputs import holds_frames, is_zarr, series_of
from cytoray_serving.predict.failures import system_error
from cytoray_serving.predict.path_matching import absolute

READ_SUFFIXES = (
    *(".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm", ".svs", ".ndpi", ".scn", ".qptiff", ".bif", ".stk", ".flex"),
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".zarr", ".zarr.zip", ".ozx"),
    *(suffix for one in FORMATS for suffix in one.suffixes),
)
"""Suffixes of image files; other files are images if their first bytes are those of an image."""
_START = 128  # bytes that identify every known format
_TWICE = "given twice, answered once"
_FOLDER = "a folder; --recursive includes it"


_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a path keeps one of the two slashes


@dataclass(frozen=True)
class InputFile:
    """One input: a file, an OME-Zarr, or the folder of a movie's frames.

    Attributes
    ----------
    path
        Path of the input.
    relative
        Its path relative to the given folder; its name for a file that was given. The answer has the same relative
        path in the folder of the answers.
    error
        Why it cannot be an input; None if it can.
    selection
        The part of it to use.
    """

    path: Path
    relative: PurePath
    error: CytorayError | None = None
    selection: Selection = EVERYTHING


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not an input, and the reason."""

    path: Path
    reason: str


@dataclass
class Inputs:
    """The inputs in order, and what is left out of folders."""

    files: list[InputFile] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def find_inputs(
    named: Sequence[Path],
    kind: TruthKind,
    *,
    spatial_axes: str = "YX",
    recursive: bool = False,
    not_inputs: Mapping[Path, str] | None = None,
) -> Inputs:
    """Find the given images; images of a folder are sorted by name.

    Parameters
    ----------
    named
        Files, OME-Zarr folders, folders of images, patterns such as ``*.tif``. A pattern is expanded only if no file
        has this name. A path that does not exist becomes an input that fails when it is read.
    kind
        Kind of the model's answers: for movies, a folder of frames is one input.
    spatial_axes
        Spatial axes of a frame: ``ZYX`` if frames are stacks.
    recursive
        Whether subfolders are searched also.
    not_inputs
        Absolute paths to leave out of folders, and why: the answers, masks, boxes.

    Returns
    -------
    Inputs
        A folder without an image, or an unreadable folder, is an input with an error.
    """
    frames_of = spatial_axes if answer_kind(kind).movies else None
    search = _Search(frames_of, recursive, dict(not_inputs or {}))
    folders = [path for path in named if _is_plain_folder(path, frames_of)]
    for path in named:
        if path in folders:
            # Several folders get subfolders with their names, so that the answers of A/1.tif and B/1.tif are separate.
            below = PurePath(absolute(path).name) if recursive and len(folders) > 1 else PurePath()
            search.folder(path, below)
        elif not os.path.lexists(path) and glob.has_magic(str(path)):
            search.pattern(path)
        else:
            search.add(path, PurePath(path.name or absolute(path).name))
    return search.found


def choose_in(files: Sequence[InputFile], selection: Selection) -> list[InputFile]:
    """Return the inputs with their selection; with each series, one input per series.

    Parameters
    ----------
    files
        The result of :func:`find_inputs`.
    selection
        The selection of the caller.
    """
    chosen: list[InputFile] = []
    for file in files:
        try:
            series = [("", selection)] if file.error is not None else series_of(file.path, selection)
        except CytorayError as error:
            chosen.append(replace(file, error=error))
            continue
        for name, part in series:
            suffix = image_suffix(file.path.name) or ".tif"  # the name of a series may look like a suffix
            stem = f"{image_stem(file.relative.name)}-{name_part(name)}{suffix}"
            relative = file.relative.with_name(stem) if name else file.relative
            chosen.append(replace(file, relative=relative, selection=part))
    return chosen


def reason_left_out(path: Path) -> str | None:
    """Return why a file of a folder is not an image; None for images.

    A file with the suffix or the first bytes of a supported format is an image: it is answered, or an error.
    """
    name = path.name.lower()
    if name.startswith("."):
        return "hidden"
    if is_of_system(name):
        return "a file of the operating system"
    if path.exists() and not path.is_file():
        return "not a regular file"
    if name.endswith(READ_SUFFIXES) or _begins_like_an_image(path):
        return None
    suffix = path.suffix.lower()
    return f"{suffix} is not a supported image format" if suffix else "not a supported image format"


def _begins_like_an_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_START)
        if start.startswith(ZIP_STARTS):
            return _holds_zarr(path)
    except OSError:
        return False
    return start.startswith(TIFF_STARTS) or is_picture(start) or format_of(start, "") is not None


def _holds_zarr(archive: Path) -> bool:
    try:
        with zipfile.ZipFile(archive) as opened:
            return any(PurePath(name).name in ZARR_FILES for name in opened.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _is_plain_folder(path: Path, frames_of: str | None) -> bool:
    """Whether a path is a folder, and neither an image nor, for movies, a folder of frames with these axes."""
    if not path.is_dir() or is_zarr(path):
        return False
    return frames_of is None or not holds_frames(path, spatial_axes=frames_of)


class _Search:
    """Collects inputs; every file is included once."""

    def __init__(self, frames_of: str | None, recursive: bool, not_inputs: dict[Path, str]) -> None:
        self.found = Inputs()
        self._frames_of = frames_of
        self._recursive = recursive
        self._not_inputs = not_inputs
        self._seen: set[Path] = set()
        self._entered: set[str] = set()

    def add(self, path: Path, relative: PurePath, error: CytorayError | None = None) -> None:
        """Add a file."""
        place = absolute(path)
        if place in self._seen:
            self._leave_out(path, _TWICE)
            return
        self._seen.add(place)
        if error is None and _URI.match(str(path)) and not os.path.lexists(path):
            error = RequestError(
                f"expected a path, got the URI {path}",
                field="input",
                hint="give the path of a file; cytoray jobs predict MODEL INPUT OUTPUT accepts URIs",
            )
        if error is None and path.exists() and not path.is_dir() and not path.is_file():
            error = RequestError(f"expected a file or a folder, got the device or pipe {path}", field="input")
        self.found.files.append(InputFile(path, relative, error))

    def folder(self, path: Path, below: PurePath) -> None:
        """Add the images of a given folder."""
        files, left_out = len(self.found.files), len(self.found.left_out)
        self._enter(path, below)
        others = self.found.left_out[left_out:]
        if len(self.found.files) == files and not any(one.reason == _TWICE for one in others):
            names = [one.path.name for one in others]
            held = f"; it has {_some(names)}" if names else ""
            self.add(
                path,
                below / path.name,
                MissingFileError(
                    f"the folder {path} has no image{held}",
                    field="input",
                    hint="images are TIFF, OME-Zarr, PNG, JPEG, CZI, ND2, LIF …; --recursive searches subfolders also",
                ),
            )

    def pattern(self, pattern: Path) -> None:
        """Add the matches of a pattern."""
        files, left_out = len(self.found.files), len(self.found.left_out)
        root = _fixed_part(pattern)
        above = frozenset(map(os.path.realpath, (root, *absolute(root).parents)))
        for path in sorted(self._expand(root, pattern.parts[len(root.parts) :], above)):
            relative = path.relative_to(root) if self._recursive else PurePath(path.name)
            if _is_plain_folder(path, self._frames_of):
                self._enter(path, relative if self._recursive else PurePath())
            else:
                self._consider(path, relative)
        others = self.found.left_out[left_out:]
        if len(self.found.files) == files and not any(one.reason == _TWICE for one in others):
            names = [one.path.name for one in others]
            fits = f"no image matches the pattern {pattern}" + (f"; not an image: {_some(names)}" if names else "")
            hint = "check the pattern; ** matches subfolders"
            self.add(pattern, PurePath(pattern.name), MissingFileError(fits, field="input", hint=hint))

    def _expand(self, folder: Path, parts: tuple[str, ...], above: frozenset[str]) -> Iterator[Path]:
        """Yield the matches of a pattern below a folder, as `glob` does, but without following cycles of links.

        Parameters
        ----------
        above
            Real paths of the folder and its parents.
        """
        first, rest = parts[0], parts[1:]
        if first != "**" and not glob.has_magic(first):
            found = [folder / first] if os.path.lexists(folder / first) else []
        else:
            try:
                entries = list(folder.iterdir()) if folder.is_dir() else []
            except OSError:
                self._leave_out(folder, "an unreadable folder")
                return
            fitting = set(fnmatch.filter([one.name for one in entries], "*" if first == "**" else first))
            hidden = first.startswith(".")
            found = [one for one in entries if one.name in fitting and (hidden or not one.name.startswith("."))]
        if first == "**":
            rest = tuple(parts[next((n for n, part in enumerate(parts) if part != "**"), len(parts)) :]) or ("*",)
            yield from self._expand(folder, rest, above)
            rest = ("**", *rest)
        elif not rest:
            yield from found
            return
        for path in found:
            if path.is_dir():
                real = os.path.realpath(path)
                if first == "**" and real in above:
                    self._leave_out(path, "a link to a folder above it")
                else:
                    yield from self._expand(path, rest, above | {real})

    def _enter(self, folder: Path, below: PurePath) -> None:
        real = os.path.realpath(folder)
        if real in self._entered:
            self._leave_out(folder, "a folder that was searched already")
            return
        self._entered.add(real)
        try:
            entries = sorted(folder.iterdir())
        except OSError as error:
            self.add(folder, below / folder.name, system_error(error, f"the folder {folder} could not be read"))
            return
        for entry in entries:
            self._consider(entry, below / entry.name)

    def _consider(self, path: Path, relative: PurePath) -> None:
        reason = self._not_inputs.get(absolute(path))
        if reason is not None:
            self._leave_out(path, reason)
        elif not path.is_dir():
            reason = reason_left_out(path)
            self._leave_out(path, reason) if reason else self.add(path, relative)
        elif is_zarr(path) or path.name.lower().endswith(".zarr"):
            self.add(path, relative)
        elif is_of_system(path.name):
            self._leave_out(path, "hidden")
        elif not self._recursive:
            self._leave_out(path, _FOLDER)
        elif not _is_plain_folder(path, self._frames_of):
            self.add(path, relative)
        else:
            self._enter(path, relative)

    def _leave_out(self, path: Path, reason: str) -> None:
        self.found.left_out.append(LeftOut(path, reason))


def left_out_lines(left_out: Sequence[LeftOut]) -> Iterator[str]:
    """Yield one line for every reason and folder, with the names of the files."""
    grouped: dict[tuple[Path, str], list[str]] = {}
    for one in left_out:
        grouped.setdefault((one.path.parent, one.reason), []).append(one.path.name)
    for (folder, reason), names in grouped.items():
        yield f"left out of {folder}: {_some(names, 20)} ({reason})"


def _some(names: Sequence[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _fixed_part(pattern: Path) -> Path:
    """Return the folders of a pattern before its first wildcard."""
    parts = []
    for part in pattern.parent.parts:
        if glob.has_magic(part):
            break
        parts.append(part)
    return Path(*parts)
