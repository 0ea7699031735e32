"""What crosses between the gateway and a model: a question with files as they came, an answer as it is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Protocol

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.images import Limits
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_analysis.tasks import TruthKind
from cytoray_serving.schema import ChannelChosen, ModelStatus

_LONGEST_WARNINGS, _LONGEST_SENTENCE = 4096, 500
UPLOADED = Limits(frames=4096)  # of an image that comes in a request; its pixels are each replica's to limit


@dataclass(frozen=True)
class Question:
    """An image, and what is told beside it.

    Attributes
    ----------
    image
        The bytes of an image file.
    accept
        The header that chooses the answer's form; None accepts anything.
    masks
        The bytes of a label image of the same size (of a movie: of all frames), whose objects are asked about.
    boxes
        Where the objects are, as JSON: ``[[xmin, ymin, xmax, ymax], …]`` in pixels.
    segmentation
        Reference of a registered model that finds the objects.
    megapixels
        What the header of the image declares, for those who queue it.
    summary
        Whether the answer is to be described in numbers.
    selection
        What of the image is asked about.
    warnings
        What was assumed or left out where the files were made from others, of which they say nothing.
    lane
        It goes through the network only with others in its lane.
    """

    image: bytes
    accept: str | None = None
    masks: bytes | None = None
    boxes: str | None = None
    segmentation: str | None = None
    megapixels: float = 0.0
    summary: bool = False
    selection: Selection = EVERYTHING
    warnings: Warnings = ()
    lane: int = 0


@dataclass(frozen=True)
class Answer:
    """An encoded answer, with what the gateway says and counts about it.

    Attributes
    ----------
    body, media_type
        The answer itself.
    name, version, digest
        The model that gave it.
    kind
        What it is: labels, an image, classes or a lineage.
    objects
        Objects that it holds.
    steps
        The versions of the models that worked before this one, such as the one that found the objects; in order.
    megapixels
        Size of the image.
    body_in
        Bytes of the files that came.
    batch, place
        Images that went through the network together, and which of them this is, from 0.
    seconds
        Per stage: ``read`` (image decoding and scaling), ``queue`` (all waiting), ``network``, ``decode`` (outputs to
        objects), ``encode``, and what else the predictor measures; of a batch each image has its part.
    summary
        A few numbers about the answer, by name, that are compared between versions; see
        :mod:`cytoray_serving.answers.summary`. Empty where nobody asked for them.
    warnings
        What was assumed, left out or unknown on the way to it, by all models that worked.
    channels
        Those of the image that were chosen, in their order; empty where none were.
    """

    body: bytes
    media_type: str
    name: str
    version: str | None
    digest: str
    kind: TruthKind
    objects: int
    steps: tuple[str, ...]
    megapixels: float
    body_in: int
    batch: int
    seconds: dict[str, float] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    warnings: Warnings = ()
    channels: tuple[ChannelChosen, ...] = ()
    place: int = 0


def warnings_text(warnings: Warnings) -> str:
    """Write warnings as JSON in ASCII, for headers and parameters: at most 4 KB.

    Sentences are cut where they are long; what does not fit is counted in the last entry.
    """
    listed = [{"code": one.code, "sentence": _cut(one.sentence)} for one in warnings]
    for kept in range(len(listed), -1, -1):
        rest = len(listed) - kept
        more = {"code": "more-warnings", "sentence": f"{rest} more: ask for application/json to read them all"}
        text = json.dumps(listed[:kept] + ([more] if rest else []))
        if len(text) <= _LONGEST_WARNINGS:
            break
    return text


def _cut(sentence: str) -> str:
    return sentence if len(sentence) <= _LONGEST_SENTENCE else sentence[: _LONGEST_SENTENCE - 1] + "…"


class Answering(Protocol):
    """What answers questions for every door of the service: HTTP, the Open Inference Protocol, gRPC."""

    async def answer(
        self, model: str, version: str | None, question: Question, *, deadline: float | None = None
    ) -> Answer:
        """Answer one question.

        Parameters
        ----------
        model
            As in the address: a model, ``model@alias``, or the name of a pipeline.
        version
            A version of the model in the registry; None for the one that its alias points to.
        deadline
            Seconds after which nobody waits any longer.

        Raises
        ------
        CytorayError
            There is no such model, it cannot answer the question, or cannot answer now.
        """
        ...

    async def status(self, model: str, version: str | None) -> ModelStatus:
        """Describe one model.

        Raises
        ------
        ModelNotFoundError
            There is none.
        """
        ...

    async def statuses(self) -> list[ModelStatus]:
        """Describe everything that is served."""
        ...
