"""The forms of a lineage."""

from __future__ import annotations

from pathlib import Path

from cytoray_analysis.tracking.ctc import write_results
from cytoray_analysis.tracking.formats import tracks_csv, write_geff
from cytoray_analysis.tracking.lineage import Lineage
from cytoray_serving.answers.form import ARROW, Answered, Form, arrow_bytes, folder_form
from cytoray_serving.schema import TrackRow, TrackTable


def write_masks(answered: Answered, folder: Path) -> None:
    """Write masks whose pixels carry the number of their track and ``res_track.txt``, a result of the challenge."""
    write_results(folder, answered.prediction.answer)


def write_graph(answered: Answered, folder: Path) -> None:
    """Write a GEFF store: a node per object, an edge per link."""
    write_geff(folder, answered.prediction.answer, pixel_size=answered.image.pixel_size)


def napari_tracks(answered: Answered) -> bytes:
    """Encode a lineage as CSV, as the tracks layer of napari opens it."""
    return tracks_csv(answered.prediction.answer).encode()


def track_table(answered: Answered) -> bytes:
    """Encode a lineage as a JSON table of tracks, see :class:`cytoray_serving.schema.TrackTable`."""
    lineage: Lineage = answered.prediction.answer
    confidence = [None] * len(lineage.track_id) if lineage.confidence is None else lineage.confidence.tolist()
    table = TrackTable(
        model=answered.model,
        warnings=answered.warnings,
        channels=answered.channels,
        frames=lineage.frames,
        shape=list(lineage.shape),
        divisions=lineage.divisions.tolist(),
        seconds=dict(answered.prediction.seconds),
        tracks=[
            TrackRow(track=track, begin=begin, end=end, parent=parent or None, confidence=sure)
            for (track, begin, end, parent), sure in zip(lineage.table.tolist(), confidence, strict=True)
        ],
    )
    return table.model_dump_json().encode()


def track_arrow(answered: Answered) -> bytes:
    """Encode a lineage as an Arrow stream: track, first and last frame, parent (0 for none), confidence where known."""
    lineage: Lineage = answered.prediction.answer
    columns = dict(zip(("track", "begin", "end", "parent"), lineage.table.T, strict=True))
    return arrow_bytes(columns | ({} if lineage.confidence is None else {"confidence": lineage.confidence}))


FORMS = (
    folder_form("zip", "application/zip", "_RES", write_masks),
    Form("csv", "text/csv", ".csv", napari_tracks),
    folder_form("geff", "application/zip; content=geff", ".geff", write_graph),
    Form("json", "application/json", ".json", track_table),
    Form("arrow", ARROW, ".arrows", track_arrow),
)
