"""What crosses between the gateway and a model: a question with files as they came, an answer as it is sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from cytoray_analysis.tasks import TruthKind


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
    """

    image: bytes
    accept: str | None = None
    masks: bytes | None = None
    boxes: str | None = None
    segmentation: str | None = None


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
    segmentation
        The version of the model that found the objects; None where it was not asked to.
    megapixels
        Size of the image.
    body_in
        Bytes of the files that came.
    batch
        Images that went through the network together.
    seconds
        Per stage: ``read`` (image decoding and scaling), ``queue``, ``network``, ``decode`` (outputs to objects),
        ``encode``, and what else the predictor measures.
    """

    body: bytes
    media_type: str
    name: str
    version: str | None
    digest: str
    kind: TruthKind
    objects: int
    segmentation: str | None
    megapixels: float
    body_in: int
    batch: int
    seconds: dict[str, float] = field(default_factory=dict)
