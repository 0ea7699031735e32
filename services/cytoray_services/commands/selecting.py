"""The options that say what of a file is asked about, the same for every command."""

from __future__ import annotations

from typing import Annotated

import typer

from cytoray_analysis.selection import Selection, selection_of

_PANEL = "What of each file"
ChannelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        metavar="NAME|N",
        help="Channel by name or number from 0; once for each that the model takes, in its order.",
        rich_help_panel=_PANEL,
    ),
]
PlaneOption = Annotated[
    str | None,
    typer.Option(
        "--plane", metavar="N|max|each", help="Plane along Z, their maximum, or each alone.", rich_help_panel=_PANEL
    ),
]
FrameOption = Annotated[
    str | None,
    typer.Option("--frame", metavar="N|each", help="Time point from 0, or each alone.", rich_help_panel=_PANEL),
]
SeriesOption = Annotated[
    str | None,
    typer.Option(
        "--series", metavar="NAME|N|each", help="Image of a file of several, or each.", rich_help_panel=_PANEL
    ),
]
InputAxesOption = Annotated[
    str | None,
    typer.Option("--input-axes", metavar="TYX", help="What the axes of the file mean.", rich_help_panel=_PANEL),
]
PixelSizeOption = Annotated[
    str | None,
    typer.Option(
        "--pixel-size",
        metavar="Y|YxX|ZxYxX|none",
        help="Micrometres per pixel, instead of what the file says.",
        rich_help_panel=_PANEL,
    ),
]


def chosen(
    channel: list[str] | None,
    plane: str | None,
    frame: str | None,
    series: str | None,
    input_axes: str | None,
    pixel_size: str | None,
) -> Selection:
    """Return what the options choose.

    Raises
    ------
    RequestError
        One has a value that it does not take.
    """
    return selection_of(
        {
            "channel": channel,
            "plane": plane,
            "frame": frame,
            "series": series,
            "input_axes": input_axes,
            "pixel_size": pixel_size,
        }
    )
