"""The options that select a part of a file, the same for every command."""

from __future__ import annotations

from typing import Annotated

import typer

from cytoray_analysis.selection import Selection, selection_of

_PANEL = "Part of each file"
ChannelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        metavar="NAME|N",
        help="Channel, by name or number from 0; repeat it for each input channel of the model, in order.",
        rich_help_panel=_PANEL,
    ),
]
PlaneOption = Annotated[
    str | None,
    typer.Option(
        "--plane", metavar="N|max|each", help="Plane along Z, the maximum, or each separately.", rich_help_panel=_PANEL
    ),
]
FrameOption = Annotated[
    str | None,
    typer.Option("--frame", metavar="N|each", help="Time point from 0, or each separately.", rich_help_panel=_PANEL),
]
SeriesOption = Annotated[
    str | None,
    typer.Option(
        "--series", metavar="NAME|N|each", help="Image of a file with several, or each.", rich_help_panel=_PANEL
    ),
]
InputAxesOption = Annotated[
    str | None,
    typer.Option("--input-axes", metavar="TYX", help="Meaning of the axes of the file.", rich_help_panel=_PANEL),
]
PixelSizeOption = Annotated[
    str | None,
    typer.Option(
        "--pixel-size",
        metavar="Y|YxX|ZxYxX|none",
        help="Micrometres per pixel, instead of the value in the file.",
        rich_help_panel=_PANEL,
    ),
]
DiameterOption = Annotated[
    str | None,
    typer.Option(
        "--diameter",
        metavar="N|auto",
        help="Usual width of an object in pixels, if it differs from the model's; auto measures it.",
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
    diameter: str | None = None,
) -> Selection:
    """Return the selection of the options.

    Raises
    ------
    RequestError
        An option has an invalid value.
    """
    return selection_of(
        {
            "channel": channel,
            "plane": plane,
            "frame": frame,
            "series": series,
            "input_axes": input_axes,
            "pixel_size": pixel_size,
            "diameter": diameter,
        }
    )
