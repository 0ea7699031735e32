"""The selected part of a file: series, channels, plane, frame, and the meaning of its axes and pixels.

The same words everywhere: options of the command line, fields of requests, recipes and jobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from numbers import Real
from typing import Annotated, Any, Final, TypedDict, cast

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator

from cytoray_analysis.errors import RequestError

_NUMBER = re.compile(r"[0-9]{1,9}")
_SIZE = re.compile(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_MOST_CHANNELS, _LONGEST = 64, 256
EACH, STITCH, LARGEST, NONE = "each", "stitch", "max", "none"
AUTO: Final = "auto"
SMALLEST_PIXEL, LARGEST_PIXEL = 1e-6, 1e6
"""Micrometres, a picometre to a metre: what is outside was never measured, and files cannot hold it."""

SMALLEST_DIAMETER, LARGEST_DIAMETER = 1.0, 10000.0  # pixels

# What each field takes, for hints.
FORMS = {
    "channel": "a name, or a number from 0; once for each channel",
    "plane": "a number from 0, max, each, or stitch for the objects of all planes joined",
    "frame": "a number from 0, or each",
    "series": "a name, a number from 0, or each",
    "input_axes": "one letter of TCZYX for each axis, such as TYX",
    "pixel_size": "micrometres: Y such as 0.5, YxX such as 0.5x0.5, ZxYxX such as 2x0.5x0.5, or none",
    "diameter": "the usual width of an object in pixels, such as 40, or auto to measure it",
}


class Choices(TypedDict, total=False):
    """The fields of :class:`Selection`, as functions take them."""

    channel: str | int | Iterable[str | int]
    plane: str | int
    frame: str | int
    series: str | int
    input_axes: str
    pixel_size: str | float
    diameter: str | float


def _text(value: Any) -> Any:
    """Take a number for what it is written as, as YAML, JSON and NumPy give it."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value.strip() if isinstance(value, str) else value
    return str(value)


def _texts(value: Any) -> Any:
    """Take a single channel for a list of one; a set is none, for channels have an order."""
    if value is None:
        return ()
    several = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Set)
    given = value if several else (value,)
    return tuple(_text(one) for one in given)


_Text = Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=_LONGEST)]


class Selection(BaseModel, frozen=True, extra="forbid"):
    """A choice out of a file; a field that is left out chooses nothing.

    Parameters
    ----------
    channel
        Channels in the order that the model takes them, each by its name or its number from 0; a name goes before a
        number.
    plane
        Number of a plane along Z from 0, ``max`` for the maximum projection, ``each`` to answer every plane separately,
        ``stitch`` to join the objects of neighbouring planes after that.
    frame
        Number of a time point from 0, or ``each``.
    series
        Name or number (from 0) of an image in a file of several, or ``each``.
    input_axes
        What the file's axes mean, outermost first, such as ``TYX`` where the file calls them ZYX.
    pixel_size
        Micrometres per pixel: one number for Y and X, ``YxX``, ``ZxYxX``, or ``none`` to ignore what the file says.
    diameter
        Usual width of an object in pixels of the image, or ``auto`` to measure it: the image is resampled for the
        network so that objects have the width of those that the model was trained on. It goes before the pixel size.
    """

    channel: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=_LONGEST)], ...],
        BeforeValidator(_texts),
        Field(max_length=_MOST_CHANNELS, description="Channels, by name or by number from 0."),
    ] = ()
    plane: _Text | None = Field(default=None, description=f"Plane along Z: {FORMS['plane']}.", examples=["max"])
    frame: _Text | None = Field(default=None, description=f"Frame along time: {FORMS['frame']}.", examples=["0"])
    series: _Text | None = Field(default=None, description=f"Image in a file of several: {FORMS['series']}.")
    input_axes: _Text | None = Field(default=None, description=f"Meaning of the file's axes: {FORMS['input_axes']}.")
    pixel_size: _Text | None = Field(
        default=None, description=f"Pixel size instead of the file's: {FORMS['pixel_size']}."
    )
    diameter: _Text | None = Field(default=None, description=f"Size of objects: {FORMS['diameter']}.")

    @field_validator("plane")
    @classmethod
    def _plane(cls, value: str | None) -> str | None:
        return _number_or(value, "plane", (LARGEST, EACH, STITCH))

    @field_validator("frame")
    @classmethod
    def _frame(cls, value: str | None) -> str | None:
        return _number_or(value, "frame", (EACH,))

    @field_validator("input_axes")
    @classmethod
    def _axes(cls, value: str | None) -> str | None:
        if value is None:
            return None
        letters = value.upper()
        if set(letters) - set("TCZYX") or len(set(letters)) != len(letters) or not {"Y", "X"} <= set(letters):
            raise ValueError(f"expected different letters of TCZYX with Y and X, such as TYX, got {value[:20]!r}")
        return letters

    @field_validator("pixel_size")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is None or value.lower() == NONE:
            return value and NONE
        parts = value.lower().split("x")
        sizes = [float(part) for part in parts if _SIZE.fullmatch(part)]
        known = [size for size in sizes if SMALLEST_PIXEL <= size <= LARGEST_PIXEL]
        if len(known) != len(parts) or len(parts) > 3:
            raise ValueError(
                f"expected micrometres such as 0.5, 0.5x0.5 (Y x X) or 2x0.5x0.5 (Z x Y x X), got {value[:40]!r}"
            )
        return value.lower()

    @field_validator("diameter")
    @classmethod
    def _width(cls, value: str | None) -> str | None:
        if value is None or value.lower() == AUTO:
            return value and AUTO
        if not _SIZE.fullmatch(value) or not SMALLEST_DIAMETER <= float(value) <= LARGEST_DIAMETER:
            limits = f"{SMALLEST_DIAMETER:g} to {LARGEST_DIAMETER:g}"
            raise ValueError(f"expected {limits} pixels, such as 40, or {AUTO}, got {value[:40]!r}")
        return value

    @property
    def each(self) -> str:
        """The axes along which every entry is answered separately: of ``TZ``; empty for none."""
        return ("T" if self.frame == EACH else "") + ("Z" if self.plane in (EACH, STITCH) else "")

    @property
    def joined(self) -> str:
        """The axes of :attr:`each` along which the objects of separate answers are joined: ``Z``, or empty."""
        return "Z" if self.plane == STITCH else ""

    def sizes(self) -> dict[str, float] | None:
        """Return the pixel size given, by axis; empty for ``none``, None where nothing was given."""
        if self.pixel_size is None:
            return None
        if self.pixel_size == NONE:
            return {}
        numbers = [float(part) for part in self.pixel_size.split("x")]
        if len(numbers) == 1:
            numbers *= 2
        return dict(zip("ZYX"[-len(numbers) :], numbers, strict=True))

    def given(self) -> dict[str, Any]:
        """Return the fields that choose something, as JSON has them."""
        return {name: value for name, value in selection_in(self).items() if value}

    def choices(self) -> Choices:
        """Return the fields that choose something, as functions take them."""
        return cast(Choices, self.given())

    def without(self, *fields: str) -> Selection:
        """Return the same choice with some fields left out."""
        return Selection(**{name: value for name, value in self.given().items() if name not in fields})

    @property
    def selection(self) -> Selection:
        """The choice alone, where these fields are part of a larger question."""
        return Selection(**self.given())


EVERYTHING = Selection()


def merge(one: Selection, other: Selection) -> Selection:
    """Merge two selections, such as those of a request's address and body.

    Raises
    ------
    RequestError
        Both choose the same thing.
    """
    twice = sorted(one.given().keys() & other.given().keys())
    if twice:
        raise RequestError(f"expected {twice[0]} once, found it twice", field=twice[0], hint="set it in one place")
    return Selection(**one.given(), **other.given())


def selection_in(source: Any) -> dict[str, Any]:
    """Return the fields of a choice out of an object that has them, channels as a list."""
    values = {name: getattr(source, name) for name in Selection.model_fields}
    return values | {"channel": list(values["channel"])}


def selection_of(values: Mapping[str, Any]) -> Selection:
    """Make a choice of fields that came from outside; None and empty lists choose nothing.

    Raises
    ------
    RequestError
        A field is unknown, or its value is none that it takes.
    """
    given = {
        name: value
        for name, value in values.items()
        if value is not None and not (isinstance(value, list | tuple) and not value)
    }
    try:
        return Selection(**given)
    except ValidationError as error:
        raise selection_error(error) from None


def selection_error(error: ValidationError) -> RequestError:
    """Return what is wrong with a choice as one sentence with the field and what it takes."""
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "selection"
    if first["type"] == "extra_forbidden":
        return RequestError(
            f"expected one of {', '.join(FORMS)}, got {field[:80]!r}", field=field[:80], hint="remove it"
        )
    message = first["msg"].removeprefix("Value error, ")
    if not message.startswith("expected"):
        message = f"expected {field} as {FORMS[field]}, got {str(first['input'])[:80]!r}"
    return RequestError(message, field=field, hint=f"{field} takes {FORMS[field]}")


def _number_or(value: str | None, what: str, words: tuple[str, ...]) -> str | None:
    if value is None or _NUMBER.fullmatch(value):
        return value
    if value.lower() in words:
        return value.lower()
    raise ValueError(f"expected a {what} by its number from 0, or {' or '.join(words)}, got {value[:40]!r}")
