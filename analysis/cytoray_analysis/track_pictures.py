"""Pictures of lineages: where the cells went, and who became whom."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.pictures import RGB, figure_png, new_figure
from cytoray_analysis.tracking.lineage import Lineage


def lineage_picture(frame: RGB, lineage: Lineage, *, title: str = "", tail: int = 10) -> bytes:
    """Draw the tracks on a frame, and next to it the tree of all tracks over time.

    Parameters
    ----------
    frame
        The last frame as a picture, (Y, X, 3) uint8.
    lineage
        Of the movie.
    title
        Stands above all.
    tail
        Frames that a track is drawn back from the last one; divisions in them are marked by a ring.

    Returns
    -------
    bytes
        A PNG file.
    """
    figure = new_figure(width=12.0, height=5.2)
    figure.suptitle(title)
    colours = _colours(lineage.track_id)
    picture, tree = figure.subplots(1, 2, width_ratios=(1.4, 1))
    picture.imshow(frame, interpolation="none")
    picture.set_axis_off()
    picture.set_title(f"tracks of the last {tail} frames; rings: divisions", fontsize=9)
    since = lineage.frames - 1 - tail
    places = lineage.centroid[:, -2:]
    for track, colour in zip(lineage.track_id, colours, strict=True):
        own = (lineage.track == track) & (lineage.frame >= since)
        picture.plot(places[own, 1], places[own, 0], color=colour, linewidth=1.0)
    for parent in lineage.divisions:
        own = (lineage.track == parent) & (lineage.frame >= since)
        if own.any():
            y, x = places[np.flatnonzero(own)[-1]]
            picture.plot(x, y, "o", markersize=9, markerfacecolor="none", markeredgecolor="white")
    _draw_tree(tree, lineage, colours)
    return figure_png(figure)


def _draw_tree(axes: Any, lineage: Lineage, colours: list[Any]) -> None:
    """Draw a line per track over its frames, sisters next to each other, connected to their parent."""
    rows = _rows(lineage)
    for track, begin, end, parent, colour in zip(
        lineage.track_id, lineage.begin, lineage.end, lineage.parent, colours, strict=True
    ):
        axes.plot((begin, end), (rows[track], rows[track]), color=colour, linewidth=1.0)
        if parent:
            before = lineage.end[lineage.track_id == parent][0]
            axes.plot((before, begin), (rows[parent], rows[track]), color=colour, linewidth=0.8)
    axes.set_xlabel("frame")
    axes.set_yticks([])
    axes.set_title(f"{len(lineage.track_id)} tracks, {len(lineage.divisions)} divisions", fontsize=9)


def _rows(lineage: Lineage) -> dict[int, float]:
    """Give each track a height, so that a parent lies between its daughters."""
    daughters: dict[int, list[int]] = {}
    for track, parent in zip(lineage.track_id.tolist(), lineage.parent.tolist(), strict=True):
        daughters.setdefault(parent, []).append(track)
    rows: dict[int, float] = {}
    stack = [(track, False) for track in reversed(daughters.get(0, []))]
    free = 0
    while stack:
        track, seen = stack.pop()
        below = daughters.get(track, [])
        if not below:
            rows[track] = float(free)
            free += 1
        elif seen:
            rows[track] = float(np.mean([rows[one] for one in below]))
        else:
            stack += [(track, True), *((one, False) for one in reversed(below))]
    return rows


def _colours(tracks: NDArray[np.int64]) -> list[Any]:
    """Give each track a hue far from that of its neighbours in number."""
    from matplotlib.colors import hsv_to_rgb

    golden = 0.61803398875
    return [hsv_to_rgb(((track * golden) % 1.0, 0.75, 0.95)) for track in tracks.tolist()]
