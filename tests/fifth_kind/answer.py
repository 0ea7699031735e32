"""Answers of this kind: a table of cells."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from cytoray_serving.answers.form import ARROW, Form, arrow_bytes, csv_bytes
from cytoray_serving.answers.kind import FREE, AnswerKind

if TYPE_CHECKING:
    from cytoray_analysis.predictor import Prediction


def columns(prediction: Prediction) -> dict[str, Any]:
    """Return number and amount of each cell."""
    return {"number": prediction.answer.cells.numbers, "amount": prediction.answer.values[:, 0]}


def _json(prediction: Prediction) -> bytes:
    cells = {name: column.tolist() for name, column in columns(prediction).items()}
    return json.dumps({"kind": "amount", "model": prediction.model.name, **cells}).encode()


AMOUNTS = AnswerKind(
    own=(
        Form("json", "application/json", ".json", _json),
        Form("csv", "text/csv", ".csv", lambda prediction: csv_bytes(columns(prediction))),
        Form("arrow", ARROW, ".arrows", lambda prediction: arrow_bytes(columns(prediction))),
    ),
    arrays=lambda prediction: {"amounts": prediction.answer.values.astype(np.float32)},
    tensors=lambda axes: {"amounts": ("FP32", [FREE, 1])},
    summary=lambda prediction, megapixels: {"mean_amount": float(prediction.answer.values.mean())},
    example="-F image=@image.tif -F masks=@masks.tif",
    noun="cell",
    takes=("masks", "boxes"),
)
