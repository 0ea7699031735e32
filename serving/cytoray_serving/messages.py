"""The messages between a gateway and a replica: a question with encoded files, and an encoded answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from cytoray_analysis.answer_warnings import Warnings
from cytoray_analysis.errors import ImageTooLargeError, RequestError
from cytoray_analysis.images import Limits
from cytoray_analysis.kinds import TruthKind
from cytoray_analysis.selection import EVERYTHING, Selection
from cytoray_serving.schema import ChannelChosen, ModelStatus

T = TypeVar("T")
Count = Callable[[int], None]
"""Called with the bytes that a request takes in addition to its body; raises if there is no room for them."""

_LONGEST_WARNINGS, _LONGEST_SENTENCE = 4096, 500
LARGEST_BOXES = 2**24
"""Maximum number of characters of boxes; as Python numbers they take many times as much memory."""
_LONGEST_REFERENCE = 1024
UPLOADED = Limits(frames=4096)  # of an image in a request; each replica limits its pixels


SUSPECT_SECONDS = 0.3
"""Seconds that a replica waits before it works on a suspect question, so that what it refuses meanwhile has left it."""


@dataclass(frozen=True)
class Question:
    """A request for a prediction: an image and its options.

    Raises
    ------
    ImageTooLargeError, RequestError
        The text of the boxes or the reference is too long.

    Attributes
    ----------
    image
        The bytes of an image file.
    accept
        The header that chooses the answer's form; None accepts anything.
    masks
        The bytes of a label image of the objects, of the same size (for a movie: of all frames).
    boxes
        Boxes of the objects as JSON: ``[[xmin, ymin, xmax, ymax], …]`` in pixels.
    segmentation
        Reference of a registered model that finds the objects.
    megapixels
        Declared size of the image, for the queues.
    summary
        Whether to add statistics to the answer.
    selection
        The part of the image to use.
    warnings
        Assumptions and omissions when the files were converted, which the files do not contain.
    lane
        Lane of the question: only questions of one lane share a batch.
    doubted
        Whether a replica ended while it processed this question. A replica accepts one such question at a time, so
        that no other is lost with it.
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
    doubted: bool = False

    def __post_init__(self) -> None:
        """Limit the length of texts."""
        check_boxes(len(self.boxes or ""))
        if len(self.segmentation or "") > _LONGEST_REFERENCE:
            raise RequestError(
                f"expected a reference of at most {_LONGEST_REFERENCE} characters, got {len(self.segmentation or '')}",
                field="segmentation",
                hint="give for example nuclei@champion",
            )

    @property
    def size(self) -> int:
        """Bytes of its files and boxes."""
        return len(self.image) + len(self.masks or b"") + len(self.boxes or "")


def check_boxes(length: int) -> None:
    """Raise :class:`ImageTooLargeError` if the text of the boxes is too long."""
    if length > LARGEST_BOXES:
        raise ImageTooLargeError(
            f"expected at most {LARGEST_BOXES} characters of boxes, got {length} or more",
            field="boxes",
            hint="send masks instead, or only a part of the image with its boxes",
        )


@dataclass(frozen=True)
class Answer:
    """An encoded answer, with the facts that the gateway sends and counts.

    Attributes
    ----------
    body, media_type
        The encoded answer.
    name, version, digest
        The model that gave it.
    kind
        Kind of the answer: labels, an image, classes or a lineage.
    objects
        Number of objects in it.
    steps
        The versions of the earlier models in order, such as the one that found the objects.
    megapixels
        Size of the image.
    body_in
        Bytes of the received files.
    batch, place
        Number of images in the batch of the network, and the index of this one.
    seconds
        Seconds per stage: ``read`` (image decoding and scaling), ``queue`` (all waiting), ``network``, ``decode``
        (outputs to objects), ``encode``, and other stages of the predictor; each image of a batch has its part.
    summary
        Statistics of the answer by name, which are compared between versions; see
        :mod:`cytoray_serving.answers.summary`. Empty unless requested.
    warnings
        Warnings of all models about assumptions, omissions and unknown facts.
    channels
        The chosen channels of the image in order; empty if none were chosen.
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
    """Encode warnings as ASCII JSON of at most 4 KB, for headers and parameters.

    Long sentences are cut; the last entry counts the warnings that do not fit.
    """
    listed = [{"code": one.code, "sentence": _cut(one.sentence)} for one in warnings]
    for kept in range(len(listed), -1, -1):
        rest = len(listed) - kept
        more = {"code": "more-warnings", "sentence": f"{rest} more: request application/json to read all"}
        text = json.dumps(listed[:kept] + ([more] if rest else []))
        if len(text) <= _LONGEST_WARNINGS:
            break
    return text


def _cut(sentence: str) -> str:
    return sentence if len(sentence) <= _LONGEST_SENTENCE else sentence[: _LONGEST_SENTENCE - 1] + "…"


class Answering(Protocol):
    """Answers questions for every interface of the service: HTTP, the Open Inference Protocol, gRPC."""

    async def answer(
        self, model: str, version: str | None, question: Question, *, deadline: float | None = None
    ) -> Answer:
        """Answer one question.

        Parameters
        ----------
        model
            The name in the address: a model, ``model@alias``, or a pipeline.
        version
            A version of the model in the registry; None for the version of its alias.
        deadline
            Timeout in seconds.

        Raises
        ------
        CytorayError
            The model does not exist, cannot answer the question, or cannot answer now.
        """
        ...

    def made(
        self, model: str, version: str | None, make: Callable[[ModelStatus, Count], T]
    ) -> AbstractAsyncContextManager[T]:
        """Create a question in a thread when it is the caller's turn, and yield it.

        Parameters
        ----------
        model, version
            The model and version of the question.
        make
            Creates the question and counts its bytes.

        Raises
        ------
        CytorayError
            The model does not exist, the queue is full, or an error of `make`.
        """
        ...

    async def status(self, model: str, version: str | None) -> ModelStatus:
        """Describe one model.

        Raises
        ------
        ModelNotFoundError
            There is no such model.
        """
        ...

    async def statuses(self) -> list[ModelStatus]:
        """Describe everything that is served."""
        ...
