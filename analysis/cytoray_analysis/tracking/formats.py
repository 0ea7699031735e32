"""Lineages as files: GEFF, a CSV that napari's Tracks layer opens, and a CSV of divisions to look at."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import DatasetError, MissingFileError
from cytoray_analysis.files import whole_path, write_whole
from cytoray_analysis.tracking.lineage import Integers, Lineage, check_lineage

_AXES = "zyx"


def write_geff(path: str | Path, lineage: Lineage, *, pixel_size: Mapping[str, float] | None = None) -> None:
    """Write a lineage as GEFF 1 (Graph Exchange File Format, a Zarr group).

    Nodes are objects, with ``t``, ``z`` (volumes), ``y``, ``x``, ``track_id`` and ``label``; those that divide also
    have ``division_confidence``, 0 to 1, when known. Edges lead from an object to the same cell, or to a daughter, in a
    later frame.

    Parameters
    ----------
    path
        A folder, by custom ending in ``.geff``; one that is there already is replaced.
    lineage
        Positions are written in pixels.
    pixel_size
        Micrometres per pixel by axis (``Z``, ``Y``, ``X``), stored as the scale of the axes, when known.
    """
    from geff import GeffMetadata
    from geff.core_io import write_arrays
    from geff_spec import Axis

    place = Path(path)
    names = _AXES[-len(lineage.shape) :]
    sizes = pixel_size or {}
    axes = [Axis(name="t", type="time", unit="frame")]
    for name in names:
        known = name.upper() in sizes
        scaled = {"scale": sizes[name.upper()], "scaled_unit": "micrometer"} if known else {}
        axes.append(Axis(name=name, type="space", unit="pixel", **scaled))
    columns: dict[str, NDArray[Any]] = {"t": lineage.frame, "track_id": lineage.track, "label": lineage.label}
    columns |= {name: lineage.centroid[:, index] for index, name in enumerate(names)}
    properties: dict[str, Any] = {name: {"values": values, "missing": None} for name, values in columns.items()}
    if lineage.division_confidence is not None:
        of_object = np.searchsorted(lineage.track_id, lineage.track)
        sure = lineage.division_confidence[of_object]
        unknown = np.isnan(sure) | (lineage.frame < lineage.end[of_object])
        properties["division_confidence"] = {"values": np.where(unknown, 0, sure), "missing": unknown}
    with whole_path(place, durable=False) as draft:
        write_arrays(
            draft,
            np.arange(len(lineage.frame), dtype=np.uint64),
            properties,
            edges(lineage).astype(np.uint64),
            {},
            GeffMetadata(
                directed=True,
                axes=axes,
                node_props_metadata={},
                edge_props_metadata={},
                track_node_props={"tracklet": "track_id"},
            ),
            zarr_format=3,
        )


def read_geff(path: str | Path, shape: tuple[int, ...], frames: int | None = None) -> Lineage:
    """Read a lineage that :func:`write_geff` wrote, or any GEFF with ``track_id`` and the same axes.

    Parameters
    ----------
    shape
        Lengths of the spatial axes of the movie; the format does not say them.
    frames
        Frames of the movie; up to the last object when left out.

    Returns
    -------
    Lineage
        Without masks; boxes are one pixel wide.

    Raises
    ------
    MissingFileError
        There is no such folder.
    DatasetError
        It is no GEFF, or lacks a property.
    """
    from geff.core_io import read_to_memory

    place = Path(path)
    if not place.is_dir():
        raise MissingFileError(f"expected a GEFF folder at {place}, found none", hint="a GEFF is a folder")
    try:
        graph = read_to_memory(place)
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise DatasetError(f"expected a GEFF in {place}: {error}", field=str(place), hint="write it again") from error
    names = ["t", *_AXES[-len(shape) :], "track_id"]
    lacking = [name for name in names if name not in graph["node_props"]]
    if lacking:
        raise DatasetError(f"{place}: expected the node properties {names}, missing {lacking}", field=str(place))
    columns = {name: np.asarray(values["values"]) for name, values in graph["node_props"].items()}
    frame, track = columns["t"].astype(np.int64), columns["track_id"].astype(np.int64)
    order = np.lexsort((track, frame))
    index = np.searchsorted(graph["node_ids"], graph["edge_ids"], sorter=np.argsort(graph["node_ids"]))
    source, target = np.argsort(graph["node_ids"])[index].T if len(index) else np.zeros((2, 0), np.int64)
    track_id = np.unique(track)
    begin, end, parent = (np.zeros(len(track_id), np.int64) for _ in range(3))
    begin[:] = np.iinfo(np.int64).max
    where = np.searchsorted(track_id, track)
    np.minimum.at(begin, where, frame)
    np.maximum.at(end, where, frame)
    leads = track[source] != track[target]
    parent[where[target[leads]]] = track[source[leads]]
    centroid = np.stack([columns[name] for name in names[1:-1]], axis=1).astype(np.float64)
    corner = np.floor(centroid).astype(np.int64)
    lineage = Lineage(
        frames=frames or (int(frame.max()) + 1 if len(frame) else 0),
        shape=tuple(shape),
        track_id=track_id,
        begin=begin,
        end=end,
        parent=parent,
        frame=frame[order],
        track=track[order],
        label=columns.get("label", track).astype(np.int64)[order],
        centroid=centroid[order],
        box=np.stack((corner, corner + 1), axis=1)[order],
        division_confidence=_division_confidence(graph["node_props"].get("division_confidence"), where, len(track_id)),
    )
    check_lineage(lineage, source=str(place), gap=None, daughters=max(len(track_id), 2))
    return lineage


def _division_confidence(given: Any, track: Integers, tracks: int) -> NDArray[np.float32] | None:
    """Return the confidence of the division of each track, NaN where it has none; `track` is that of each object."""
    if given is None:
        return None
    values, missing = np.asarray(given["values"], np.float32), given["missing"]
    known = ~np.isnan(values) if missing is None else ~np.asarray(missing)
    confidence = np.full(tracks, np.nan, np.float32)
    confidence[track[known]] = values[known]
    return confidence


def tracks_csv(lineage: Lineage) -> str:
    """Return a lineage as CSV with the columns ``track_id,t,(z,)y,x,parent``.

    napari: the columns up to ``x`` are the data of a Tracks layer, and ``{track: [parent]}`` its graph. Rows are in
    order of track and frame, as the layer wants them.
    """
    names = _AXES[-len(lineage.shape) :]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("track_id", "t", *names, "parent"))
    order = np.lexsort((lineage.frame, lineage.track))
    parents = dict(zip(lineage.track_id.tolist(), lineage.parent.tolist(), strict=True))
    for track, frame, place in zip(
        lineage.track[order].tolist(), lineage.frame[order].tolist(), lineage.centroid[order].tolist(), strict=True
    ):
        writer.writerow((track, frame, *(f"{value:.3f}" for value in place), parents[track]))
    return text.getvalue()


def divisions_csv(lineage: Lineage) -> str:
    """Return the divisions as CSV, the least sure first, to look at them in this order.

    Columns: ``mother``, the number of its track; ``frame``, its last one; ``(z,)y,x`` there, in pixels; ``daughters``,
    numbers of tracks separated by spaces; ``confidence``, 0 to 1, empty when unknown.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("mother", "frame", *_AXES[-len(lineage.shape) :], "daughters", "confidence"))
    mothers = np.searchsorted(lineage.track_id, lineage.divisions)
    unknown = np.full(len(lineage.track_id), np.nan)
    confidence = (unknown if lineage.division_confidence is None else lineage.division_confidence)[mothers]
    place = dict(zip(lineage.track.tolist(), lineage.centroid.tolist(), strict=True))  # that of the last frame
    born = defaultdict(list)
    for track, parent in zip(lineage.track_id.tolist(), lineage.parent.tolist(), strict=True):
        born[parent].append(str(track))
    for index in np.argsort(confidence, kind="stable").tolist():
        mother = int(lineage.track_id[mothers[index]])
        sure = "" if np.isnan(confidence[index]) else f"{confidence[index]:.3f}"
        centre = (f"{value:.3f}" for value in place[mother])
        writer.writerow((mother, int(lineage.end[mothers[index]]), *centre, " ".join(born[mother]), sure))
    return text.getvalue()


def write_tracks_csv(path: str | Path, lineage: Lineage) -> None:
    """Write :func:`tracks_csv` to a file."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_whole(place, tracks_csv(lineage))


def edges(lineage: Lineage) -> Integers:
    """Return (E, 2) indices of objects: each and what it becomes, cells before daughters."""
    order = np.lexsort((lineage.frame, lineage.track))
    same = np.diff(lineage.track[order]) == 0
    along = np.stack((order[:-1][same], order[1:][same]), axis=1)
    first = order[np.concatenate(([True], ~same))] if len(order) else order
    last = order[np.concatenate((~same, [True]))] if len(order) else order
    born = np.flatnonzero(lineage.parent > 0)
    mother = np.searchsorted(lineage.track_id, lineage.parent[born])
    return np.concatenate((along, np.stack((last[mother], first[born]), axis=1)))
