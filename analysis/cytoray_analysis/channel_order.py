"""Channels of an image in the order of a model: by name if possible, else by position."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cytoray_analysis.answer_warnings import AnswerWarning, Warnings
from cytoray_analysis.errors import AxesError
from cytoray_analysis.images.axes import COLOURS
from cytoray_analysis.images.choose import choose_channels
from cytoray_analysis.images.image import Image

_MADE_UP = re.compile(r"grey|gray|channel \d+")
_INITIALS = dict(zip("rgb", COLOURS, strict=True))


def in_model_order(image: Image, channels: Sequence[str]) -> tuple[Image, Warnings]:
    """Arrange the channels of an image in the order of a model.

    Names are compared without regard to case. Channels with the model's names are put in the model's order; otherwise
    they are used by position, with a warning if that could be wrong.

    Parameters
    ----------
    image
        With as many channels as the model; otherwise it is returned unchanged.
    channels
        Names of the model's channels, in order.

    Raises
    ------
    AxesError
        The model expects colours and the image has three channels with other names; or names contradict the order: some
        names of the model are at other positions in the image.
    """
    if image.size("C") != len(channels):
        return image, ()
    has, wants = _comparable(image.channels, channels), _comparable(channels, channels)
    if has == wants:
        return image, ()
    if sorted(has) == sorted(wants) and len(set(wants)) == len(wants):
        return choose_channels(image, [has.index(name) for name in wants]), ()
    listed = f"{', '.join(image.channels)} for a model of {', '.join(channels)}"
    shared = [name for name in wants if name in has and not _MADE_UP.fullmatch(name)]
    if any(has.index(name) != wants.index(name) for name in shared):
        raise AxesError(
            f"{image.source}: expected the channels in the same order, got {listed}: common names are at different "
            "positions",
            field="channels",
            hint=_how_to_name(channels),
        )
    named = [name for name in has if not _MADE_UP.fullmatch(name)]
    if tuple(wants) == COLOURS and len(named) == len(has):
        raise AxesError(
            f"{image.source}: expected the colours red, green and blue, got the channels {', '.join(image.channels)}",
            field="channels",
            hint=f"use a model of these channels, or state which of them are the colours: {_how_to_name(channels)}",
        )
    if not _may_differ(has, wants):
        return image, ()
    what = "its channels are" if named else "it does not name its channels, which are used as"
    taken = f"{what} {listed}; they were used by position" if named else f"{what} {', '.join(channels)} by position"
    return image, (AnswerWarning("channels-by-position", f"{image.source}: {taken}"),)


def _comparable(names: Sequence[str], channels: Sequence[str]) -> list[str]:
    """Return names in lower case, and colours by their initials."""
    lower = [name.strip().casefold() for name in names]
    if [name.strip().casefold() for name in channels] == list(COLOURS):
        lower = [_INITIALS.get(name, name) for name in lower]
    return lower


def _may_differ(has: Sequence[str], wants: Sequence[str]) -> bool:
    """Whether using channels by position may be wrong: one has another name, or several have no name."""
    if all(_MADE_UP.fullmatch(name) for name in wants):
        return False
    if all(_MADE_UP.fullmatch(name) for name in has):
        return len(has) > 1
    return any(
        one != other and not _MADE_UP.fullmatch(one) and not _MADE_UP.fullmatch(other)
        for one, other in zip(has, wants, strict=True)
    ) or any(_MADE_UP.fullmatch(one) and one != other for one, other in zip(has, wants, strict=True) if len(has) > 1)


def _how_to_name(channels: Sequence[str]) -> str:
    numbers = " ".join(f"--channel {place}" for place in range(len(channels)))
    return f"{numbers} uses the first as {channels[0]} and so on; list names or numbers in the model's order"
