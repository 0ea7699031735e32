"""Kinds of answers: their forms and descriptions. Each kind is a module, found by its name.

An installed package adds a kind with an entry point of the group ``cytoray.answers`` that names an :class:`AnswerKind`.
Gateways import these modules, so PyTorch, SciPy and Matplotlib are imported inside the functions that use them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cytoray_analysis.errors import RequestError
from cytoray_analysis.kinds import TruthKind, find_kind, installed
from cytoray_serving.answers.form import Form

if TYPE_CHECKING:
    from cytoray_analysis.images import Image
    from cytoray_analysis.predictor import Prediction, Predictor
    from cytoray_analysis.selection import Selection

FREE = -1
"""A variable length in the shape of a tensor."""
Arrays = dict[str, NDArray[Any]]
Tensors = dict[str, tuple[str, list[int]]]
Progress = Callable[[int, int], None]
HandOver = Callable[["Predictor", "Image", Any, "Selection", Progress | None], tuple["Image", Any]]


@dataclass(frozen=True)
class AnswerKind:
    """A kind of answer.

    Attributes
    ----------
    own
        Its forms; the first is the default. Arrays, a form of every kind, are added.
    arrays
        A prediction as plain arrays, by name.
    tensors
        Datatype and shape of each array and of the additions of `named` in the Open Inference Protocol, given the
        number of axes.
    summary
        Returns a few statistics of an answer, given the megapixels of its image.
    example
        The arguments of curl for an answer in the first form.
    noun
        Name of what is counted in it; None if nothing is.
    takes
        What may be given in addition to the image: ``masks``, ``boxes``.
    movies
        Whether the input is a movie, whose frames may be files of a folder.
    about
        Additional entries for the header of the arrays.
    named
        Additional outputs of the Open Inference Protocol, made of the arrays and the names of the classes.
    write_zarr
        Writes an answer as an OME-Zarr; None if it is not an image.
    step
        Runs a model and returns the image and the objects for the next model; None if no model can follow.
    """

    own: tuple[Form, ...]
    arrays: Callable[[Prediction], Arrays]
    tensors: Callable[[int], Tensors]
    summary: Callable[[Prediction, float], dict[str, float]]
    example: str
    noun: str | None = None
    takes: tuple[str, ...] = ()
    movies: bool = False
    about: Callable[[Prediction], dict[str, str]] = lambda prediction: {}
    named: Callable[[Arrays, tuple[str, ...]], Arrays] = lambda arrays, classes: {}
    write_zarr: Callable[[Path, Prediction], object] | None = None
    step: HandOver | None = None


_KINDS: Mapping[TruthKind, str] = {
    "labels": "cytoray_serving.answers.labels:LABELS",
    "image": "cytoray_serving.answers.images:IMAGES",
    "class": "cytoray_serving.answers.classes:CLASSES",
    "lineage": "cytoray_serving.answers.lineages:LINEAGES",
}


@cache
def answer_kind(name: TruthKind) -> AnswerKind:
    """Return the kind of answer with this name.

    Raises
    ------
    RequestError
        Neither Cytoray nor an installed package has this kind.
    """
    try:
        found: AnswerKind = find_kind(name, _KINDS, "cytoray.answers")
    except KeyError as error:
        raise RequestError(f"expected one of the kinds {error.args[0]}, got {name!r}", field="kind") from None
    return found


def answer_kinds() -> dict[TruthKind, AnswerKind]:
    """Return all kinds of answers by name."""
    return {name: answer_kind(name) for name in dict.fromkeys((*_KINDS, *installed("cytoray.answers")))}
