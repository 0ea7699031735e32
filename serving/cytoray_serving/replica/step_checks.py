"""Checks that models can follow each other, without loading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cytoray_analysis.errors import RequestError
from cytoray_analysis.kinds import Per, TruthKind
from cytoray_serving.answers.kind import HandOver, answer_kind


@dataclass(frozen=True)
class Step:
    """One model of several: its name, the kind of its answers, and their unit."""

    name: str
    kind: TruthKind
    per: Per


def check_steps(steps: Sequence[Step], *, objects: str | None) -> None:
    """Raise :class:`RequestError` unless each model can use what the one before it answers.

    Parameters
    ----------
    steps
        The models in order.
    objects
        The given objects, ``masks`` or ``boxes``; None for none.
    """
    given = objects
    for step in steps:
        if objects is not None and (step.per == "pixel" or (step.per == "link" and objects == "boxes")):
            raise RequestError(
                f"expected only an image for the model {step.name}, got also {objects}",
                field=given or "steps",
                hint="classification accepts masks and boxes, tracking accepts masks",
            )
        if objects is None and step.per == "link":
            raise RequestError(
                f"expected the objects of the movie for the model {step.name}, got none",
                field="masks",
                hint="give masks, or a segmentation such as nuclei@champion",
            )
        if step is not steps[-1]:
            require_step(step.name, step.kind)
        objects = "labels" if step.kind == "labels" else None


def require_step(name: str, kind: TruthKind) -> HandOver:
    """Return how the answers of a model become the input of the next; raise :class:`RequestError` if they cannot."""
    step = answer_kind(kind).step
    if step is None:
        raise RequestError(
            f"expected a model of labels or images before another model, got {name}, whose answers are of the "
            f"kind {kind!r}",
            field="segmentation",
            hint="name a model that was trained for segmentation",
        )
    return step
