"""The form for programs: a prediction as plain arrays in one safetensors file, which runs no code on reading.

=========  =================  =======================================  ============================================
kind       array              shape and type                           what it is
=========  =================  =======================================  ============================================
labels     ``labels``         (spatial…) int32                         the number of each pixel's object, 0 for none
labels     ``confidence``     (objects + 1,) float32                   confidence of object n; empty if unknown
image      ``image``          (channels, spatial…) float32             the predicted channels
class      ``probabilities``  (cells, classes) float32                 rows sum to one
class      ``boxes``          (cells, 2, axes) float64                 where a cell begins and ends, along ``box_axes``
class      ``numbers``        (cells,) int64                           the number of each cell
lineage    ``masks``          (frames, spatial…) int32                 the number of each pixel's track, 0 for none
lineage    ``tracks``         (tracks, 4) int64                        number, first and last frame, parent or 0
lineage    ``confidence``     (tracks,) float32                        confidence of each track; empty if unknown
=========  =================  =======================================  ============================================

The header contains the ``kind``, the ``model`` with its ``version`` and ``digest``, and as JSON the ``classes`` and
the ``warnings``, if any. Planes or frames that were predicted one by one are axes before the spatial ones.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cytoray_serving.answers.form import Form
from cytoray_serving.answers.kind import answer_kind

if TYPE_CHECKING:
    from cytoray_analysis.inference import Prediction


@dataclass(frozen=True, eq=False)
class Arrays:
    """The contents of such a file.

    Attributes
    ----------
    arrays
        Arrays by name, in the order of the table above.
    about
        The header: ``kind``, ``model``, ``version`` (absent for a bundle folder), ``digest``.
    classes
        Names of the classes; empty for other kinds.
    """

    arrays: dict[str, NDArray[Any]]
    about: dict[str, str]
    classes: tuple[str, ...] = ()


def encode_arrays(prediction: Prediction) -> bytes:
    """Encode a prediction of any kind as safetensors; the module describes the contents."""
    from safetensors.numpy import save

    model = prediction.model
    kind = answer_kind(prediction.kind)
    arrays = kind.arrays(prediction)
    about = {"kind": prediction.kind, "model": model.name, "digest": model.digest}
    if prediction.warnings:
        about["warnings"] = json.dumps([asdict(one) for one in prediction.warnings])
    if model.version is not None:
        about["version"] = model.version
    about |= kind.about(prediction)
    return bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, about))


def read_arrays(body: bytes) -> Arrays:
    """Read what :func:`encode_arrays` wrote; the arrays are copies."""
    from safetensors.numpy import load

    length = int.from_bytes(body[:8], "little")
    about: dict[str, str] = json.loads(body[8 : 8 + length]).get("__metadata__", {})
    classes = tuple(json.loads(about.pop("classes", "[]")))
    arrays: dict[str, NDArray[Any]] = load(body)
    ordered = [name for name in answer_kind(about["kind"]).tensors(2) if name in arrays]
    return Arrays({name: arrays[name] for name in ordered}, about, classes)


FORM = Form("arrays", "application/x-safetensors", ".safetensors", encode_arrays)
