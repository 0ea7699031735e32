"""The forms of a lineage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cytoray_serving.answers.form import (
    ARROW,
    Form,
    arrow_bytes,
    channels_chosen,
    folder_form,
    known,
    model_answered,
    warning_rows,
)
from cytoray_serving.answers.kind import FREE, AnswerKind, Arrays, Tensors
from cytoray_serving.schema import TrackRow, TrackTable

if TYPE_CHECKING:
    from cytoray_analysis.inference import Prediction
    from cytoray_analysis.tracking.lineage import Lineage


def write_masks(prediction: Prediction, folder: Path) -> None:
    """Write masks with track numbers as pixel values and ``res_track.txt``, a result of the challenge."""
    from cytoray_analysis.tracking.ctc import write_results

    write_results(folder, prediction.answer)


def write_graph(prediction: Prediction, folder: Path) -> None:
    """Write a GEFF store: one node per object, one edge per link."""
    from cytoray_analysis.tracking.formats import write_geff

    write_geff(folder, prediction.answer, pixel_size=prediction.image.pixel_size)


def napari_tracks(prediction: Prediction) -> bytes:
    """Encode a lineage as CSV for the tracks layer of napari."""
    from cytoray_analysis.tracking.formats import tracks_csv

    return tracks_csv(prediction.answer).encode()


def divisions(prediction: Prediction) -> bytes:
    """Encode the divisions of a lineage as CSV, the least sure first."""
    from cytoray_analysis.tracking.formats import divisions_csv

    return divisions_csv(prediction.answer).encode()


def track_table(prediction: Prediction) -> bytes:
    """Encode a lineage as a JSON table of tracks, see :class:`cytoray_serving.schema.TrackTable`."""
    lineage: Lineage = prediction.answer
    confidence, ends = (
        [None] * len(lineage.track_id)
        if of is None
        else [None if math.isnan(value) else value for value in of.tolist()]
        for of in (lineage.confidence, lineage.division_confidence)
    )
    table = TrackTable(
        model=model_answered(prediction),
        warnings=warning_rows(prediction),
        channels=channels_chosen(prediction.image),
        frames=lineage.frames,
        shape=list(lineage.shape),
        divisions=lineage.divisions.tolist(),
        seconds=dict(prediction.seconds),
        tracks=[
            TrackRow(
                track=track, begin=begin, end=end, parent=parent or None, confidence=sure, division_confidence=split
            )
            for (track, begin, end, parent), sure, split in zip(lineage.table.tolist(), confidence, ends, strict=True)
        ],
    )
    return table.model_dump_json().encode()


def track_arrow(prediction: Prediction) -> bytes:
    """Encode a lineage as an Arrow stream: track, first and last frame, parent (0 for none), confidence if known."""
    lineage: Lineage = prediction.answer
    columns = dict(zip(("track", "begin", "end", "parent"), lineage.table.T, strict=True))
    return arrow_bytes(columns | ({} if lineage.confidence is None else {"confidence": lineage.confidence}))


def arrays(prediction: Prediction) -> Arrays:
    """Return the masks with track numbers, the tracks, and the confidence of each track."""
    lineage: Lineage = prediction.answer
    return {
        "masks": lineage.tracked[:].astype(np.int32, copy=False),
        "tracks": lineage.table.astype(np.int64, copy=False),
        "confidence": known(lineage.confidence),
    }


def _tensors(axes: int) -> Tensors:
    return {"masks": ("INT32", [FREE] * axes), "tracks": ("INT64", [FREE, 4]), "confidence": ("FP32", [FREE])}


def summary(prediction: Prediction, megapixels: float) -> dict[str, float]:
    """Return tracks per frame, divisions per track and mean confidence."""
    lineage: Lineage = prediction.answer
    tracks = len(lineage.track_id)
    numbers = {"tracks_per_frame": tracks / max(1, lineage.frames)}
    if tracks:
        numbers["divisions_per_track"] = len(lineage.divisions) / tracks
        if lineage.confidence is not None:
            numbers["mean_confidence"] = float(lineage.confidence.mean())
    return numbers


LINEAGES = AnswerKind(
    own=(
        folder_form("zip", "application/zip", "_RES", write_masks),
        Form("csv", "text/csv", ".csv", napari_tracks),
        Form("divisions", "text/csv; content=divisions", ".divisions.csv", divisions),
        folder_form("geff", "application/zip; content=geff", ".geff", write_graph),
        Form("json", "application/json", ".json", track_table, schema=TrackTable),
        Form("arrow", ARROW, ".arrows", track_arrow),
    ),
    arrays=arrays,
    tensors=_tensors,
    summary=summary,
    example="-o lineage.zip -F image=@movie.tif -F masks=@masks.tif",
    noun="track",
    takes=("masks",),
    movies=True,
)
