"""The order of a movie's frames by the numbers in their names, whatever they are called."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from cytoray_analysis.errors import DatasetError
from cytoray_analysis.images.names import image_stem, is_image_name

FRAMES = ("t",)
"""What frames are called before their number in the layout of the Cell Tracking Challenge."""
MASKS = ("man_track", "man_seg", "mask")
"""What masks of frames are called there."""
_NUMBER = re.compile(r"(\d+)")
_MOST_NAMED = 5


@dataclass(frozen=True)
class FrameNames:
    """The names of frames in the order of their numbers.

    Attributes
    ----------
    names
        As they are on the disk.
    numbers
        One for each, ascending.
    """

    names: tuple[str, ...]
    numbers: tuple[int, ...]


def known_frames(names: Iterable[str], kinds: Sequence[str]) -> list[str]:
    """Return those names that consist of one of the known words and a number: ``t000.tif``, ``T12.TIFF``."""
    pattern = re.compile(rf"({'|'.join(kinds)})\d+", re.IGNORECASE)
    return [name for name in names if is_image_name(name) and pattern.fullmatch(image_stem(name))]


def order_frames(names: Iterable[str], *, source: str, what: str, kinds: Sequence[str]) -> FrameNames:
    """Return the frames among the files of a folder, in the order of their numbers.

    All images among the files must be frames: names of one form that differ in one number. Files that are no images
    (tables, notes) are passed over; as are masks among frames, and frames among masks, with known names.

    Parameters
    ----------
    names
        Of all files in the folder.
    source, what
        The folder, and ``frames`` or ``masks``, for messages.
    kinds
        The known words before the number. Frames that are called so are numbered from 0, as lists of tracks count them;
        others from any number.

    Returns
    -------
    FrameNames
        Empty where no file is an image.

    Raises
    ------
    DatasetError
        An image is not a frame, a number is missing or repeated, or names have no number for their order.
    """
    images = sorted(name for name in names if is_image_name(name))
    known = known_frames(images, kinds)
    if known:
        others = set(known_frames(images, FRAMES + MASKS)) - set(known)
        images = [name for name in images if name not in others]
    if not images:
        return FrameNames((), ())
    number_of = _numbers(images, source, what)
    twice = [number for number, count in Counter(number_of.values()).items() if count > 1]
    if twice:
        same = " and ".join(name for name in images if number_of[name] == twice[0])
        _refuse(f"{source}: expected every frame once, found frame {twice[0]} twice, as {same}", "keep one of them")
    ordered = sorted(images, key=number_of.__getitem__)
    numbers = [number_of[name] for name in ordered]
    missing = _missing(numbers, from_zero=bool(known))
    if missing:
        some = ", ".join(map(str, missing[:_MOST_NAMED])) + (", …" if len(missing) > _MOST_NAMED else "")
        first = 0 if known else numbers[0]
        _refuse(
            f"{source}: expected {what} {first} to {numbers[-1]}, missing {some}",
            "add the missing frames, or renumber the others from 0 (and their tracks with them)",
        )
    return FrameNames(tuple(ordered), tuple(numbers))


def _numbers(names: Sequence[str], source: str, what: str) -> Mapping[str, int]:
    """Return the number of each frame: the one place in which names of one form differ."""
    parts = {name: _NUMBER.split(image_stem(name).casefold()) for name in names}
    forms = Counter(tuple(pieces[::2]) for pieces in parts.values())
    (usual, count), *others = forms.most_common()
    if others:
        strange = [name for name in names if tuple(parts[name][::2]) != usual]
        like = next(name for name in names if name not in strange)
        _refuse(
            f"{source}: expected {what} of one name and a number each, such as {like}, got {_some(strange)} "
            f"in addition to {count} of that form",
            "a folder of frames is one movie: move other files elsewhere, or rename them",
        )
    numbers = {name: [int(piece) for piece in pieces[1::2]] for name, pieces in parts.items()}
    if not numbers[names[0]]:
        _refuse(f"{source}: expected {what} with numbers in their names, got {_some(names)}", _RENAME)
    columns = list(zip(*numbers.values(), strict=True))
    varying = [place for place, values in enumerate(columns) if len(set(values)) > 1]
    if len(names) == 1 or not varying:  # one frame, or one that is there twice: the last number counts
        return {name: values[-1] for name, values in numbers.items()}
    if len(varying) == 1:
        return {name: values[varying[0]] for name, values in numbers.items()}
    orders = {
        place: [name for _, name in sorted(zip(columns[place], names, strict=True))]
        for place in varying
        if len(set(columns[place])) == len(names)
    }
    if not orders or any(order != next(iter(orders.values())) for order in orders.values()):
        _refuse(
            f"{source}: expected {what} whose names differ in one number, got names that differ in {len(varying)}, "
            f"such as {_some(names, 3)}",
            "use a separate folder for each movie, with one file per frame",
        )
    # Names can also contain times: the number without gaps counts.
    place = min(orders, key=lambda at: len(_missing(sorted(columns[at]), from_zero=False)))
    return {name: values[place] for name, values in numbers.items()}


_RENAME = "number them, such as t000.tif, t001.tif, or use one file per movie"


def _missing(numbers: Sequence[int], *, from_zero: bool) -> list[int]:
    """Return the first few numbers that lack in a sequence; one of equal steps is complete."""
    steps = {after - before for before, after in pairwise(numbers)}
    if not from_zero and len(steps) == 1 and len(numbers) > 2:
        return []
    there, missing = set(numbers), []
    for number in range(0 if from_zero else numbers[0], numbers[-1]):
        if number not in there:
            missing.append(number)
        if len(missing) > _MOST_NAMED:
            break
    return missing


def _some(names: Sequence[str], most: int = _MOST_NAMED) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _refuse(message: str, hint: str) -> NoReturn:
    raise DatasetError(message, field="frames", hint=hint)
