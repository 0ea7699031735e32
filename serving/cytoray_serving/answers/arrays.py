"""The form for programs: a prediction as plain arrays in one safetensors file, which runs no code when it is read.

=========  =================  =======================================  ============================================
kind       array              shape and type                           what it is
=========  =================  =======================================  ============================================
labels     ``labels``         (spatial…) int32                         the number of each pixel's object, 0 for none
labels     ``confidence``     (objects + 1,) float32                   how sure object n is, at n; empty if unknown
image      ``image``          (channels, spatial…) float32             the predicted channels
class      ``probabilities``  (cells, classes) float32                 rows sum to one
class      ``boxes``          (cells, 2, axes) float64                 where a cell begins and ends, along ``box_axes``
class      ``numbers``        (cells,) int64                           what each cell is called
lineage    ``masks``          (frames, spatial…) int32                 the number of each pixel's track, 0 for none
lineage    ``tracks``         (tracks, 4) int64                        number, first and last frame, parent or 0
lineage    ``confidence``     (tracks,) float32                        how sure each track is; empty if unknown
=========  =================  =======================================  ============================================

The header names the ``kind``, the ``model`` with its ``version`` and ``digest``, and as JSON lists the ``classes`` and
the ``warnings``, where there are any. Planes or frames that were answered one by one are axes before the spatial ones.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.tasks import Classes
from cytoray_analysis.tracking.lineage import Lineage
from cytoray_serving.answers.form import Answered, Form


@dataclass(frozen=True, eq=False)
class Arrays:
    """What such a file holds.

    Attributes
    ----------
    arrays
        By name, in the order of the table above.
    about
        The header: ``kind``, ``model``, ``version`` (absent for a bundle folder), ``digest``.
    classes
        Names of the classes; empty for other kinds.
    """

    arrays: dict[str, NDArray[Any]]
    about: dict[str, str]
    classes: tuple[str, ...] = ()


def encode_arrays(answered: Answered) -> bytes:
    """Encode a prediction of any kind as safetensors; see the module for what is in it."""
    from safetensors.numpy import save

    prediction, model = answered.prediction, answered.model
    arrays = _arrays_of(answered)
    about = {"kind": prediction.kind, "model": model.name, "digest": model.digest}
    if prediction.warnings:
        about["warnings"] = json.dumps([asdict(one) for one in prediction.warnings])
    if model.version is not None:
        about["version"] = model.version
    if prediction.kind == "class":
        about["classes"] = json.dumps(prediction.answer.names)
        about["box_axes"] = answered.axes
    return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, about))


def read_arrays(body: bytes) -> Arrays:
    """Read what :func:`encode_arrays` wrote; the arrays are copies."""
    from safetensors.numpy import load

    length = int.from_bytes(body[:8], "little")
    about: dict[str, str] = json.loads(body[8 : 8 + length]).get("__metadata__", {})
    classes = tuple(json.loads(about.pop("classes", "[]")))
    arrays: dict[str, NDArray[Any]] = load(body)
    return Arrays({name: arrays[name] for name in _NAMES[about["kind"]]}, about, classes)


_NAMES = {
    "labels": ("labels", "confidence"),
    "image": ("image",),
    "class": ("probabilities", "boxes", "numbers"),
    "lineage": ("masks", "tracks", "confidence"),
}


def _arrays_of(answered: Answered) -> dict[str, NDArray[Any]]:
    prediction = answered.prediction
    if prediction.kind == "labels":
        return {"labels": prediction.answer.astype(np.int32, copy=False), "confidence": _known(prediction.confidence)}
    if prediction.kind == "image":
        return {"image": prediction.answer.astype(np.float32, copy=False)}
    if prediction.kind == "class":
        classes: Classes = prediction.answer
        return {
            "probabilities": classes.probabilities.astype(np.float32, copy=False),
            "boxes": classes.cells.boxes.astype(np.float64, copy=False),
            "numbers": classes.cells.numbers.astype(np.int64, copy=False),
        }
    lineage: Lineage = prediction.answer
    return {
        "masks": lineage.tracked[:].astype(np.int32, copy=False),
        "tracks": lineage.table.astype(np.int64, copy=False),
        "confidence": _known(lineage.confidence),
    }


def _known(confidence: NDArray[np.floating[Any]] | None) -> NDArray[np.float32]:
    return np.zeros(0, np.float32) if confidence is None else confidence.astype(np.float32, copy=False)


FORM = Form("arrays", "application/x-safetensors", ".safetensors", encode_arrays)
