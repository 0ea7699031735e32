"""What a training run records; :mod:`cytoray_training.diagnosis.reading` reads it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cytoray_services.statistics.intervals import Interval

FOLDER = "diagnosis"
EndedBy = Literal["epochs", "minutes", "early stopping", "stop"]


@dataclass(frozen=True)
class Steps:
    """Optimizer steps, one entry each, in order.

    Attributes
    ----------
    step
        Number over all epochs.
    loss
        Mean loss of the batch, before the step.
    gradient_norm
        Norm of the mean gradient before clipping.
    learning_rate
        Learning rate of that step.
    """

    step: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    gradient_norm: tuple[float, ...] = ()
    learning_rate: tuple[float, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One layer during one step.

    Attributes
    ----------
    name
        Path of the module in the network.
    rms, largest
        Root mean square, and largest absolute value, of its output after in-place activations.
    dead
        Share of its channels with one constant value in the whole batch.
    update
        Norm of the weight change of the step, divided by the norm before; None for a layer without weights.
    """

    name: str
    rms: float
    largest: float
    dead: float
    update: float | None = None


@dataclass(frozen=True)
class Probe:
    """A step that was measured in detail.

    Attributes
    ----------
    step, learning_rate
        Its number and its learning rate.
    gain
        Share by which the step reduced the loss, measured on the same batch; negative if it increased.
    layers
        In the order in which they computed.
    """

    step: int
    learning_rate: float
    gain: float
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Validation:
    """One validation: the metric that chooses weights, on the validation split and on some training images."""

    epoch: int
    score: float
    training_score: float | None


@dataclass(frozen=True)
class Unscored:
    """A validation without a score for the weights.

    Attributes
    ----------
    why
        ``missing`` if the task left out the metric that chooses weights, ``nan`` if it was NaN.
    numbers
        Other metrics of the same validation with a finite value.
    """

    epoch: int
    why: Literal["missing", "nan"]
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class Spent:
    """How worker 0 spent the seconds of an epoch.

    Attributes
    ----------
    waited
        The network waited for a batch.
    network
        Forward, backward, optimizer.
    read, augment, encode
        Preparation of batches in parallel: pixels from the cache, augmentation, targets.
    validation
        After the steps.
    """

    epoch: int
    waited: float
    network: float
    read: float
    augment: float
    encode: float
    validation: float


@dataclass(frozen=True)
class Failure:
    """Where a value became NaN or infinite.

    Attributes
    ----------
    layer
        The first module whose output (or gradient) was not finite although its inputs were; None if not located.
    what
        ``input``, ``weights``, ``output``, ``loss`` or ``gradient``.
    """

    step: int
    epoch: int
    loss: float
    gradient_norm: float
    what: str
    layer: str | None


@dataclass(frozen=True)
class ImageScore:
    """The metric of one image with the best weights.

    Attributes
    ----------
    objects
        Number of true objects.
    unit
        What it belongs to and varies with, such as a patient; empty if the image itself is the unit.
    """

    file: str
    split: str
    score: float
    objects: int
    unit: str = ""


@dataclass(frozen=True)
class Cells:
    """Classified cells of one split, one entry each.

    Attributes
    ----------
    truth, predicted
        True and predicted class.
    probability_of_truth, probability
        Predicted probability of each.
    owner
        The unit that the cell belongs to; empty if not recorded.
    """

    truth: tuple[int, ...] = ()
    predicted: tuple[int, ...] = ()
    probability_of_truth: tuple[float, ...] = ()
    probability: tuple[float, ...] = ()
    owner: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dispute:
    """A label that the model contradicts with confidence.

    Attributes
    ----------
    given, proposed
        Label and answer of the model.
    confidence
        Of the model, 0 to 1.
    place
        Centre in pixels along Y and X.
    """

    file: str
    split: str
    given: str
    proposed: str
    confidence: float
    place: tuple[float, ...]


@dataclass(frozen=True)
class Twin:
    """Two images of different splits with the same content; `similarity` of their fine structure, at most 1."""

    train: str
    val: str
    similarity: float


@dataclass(frozen=True)
class Ending:
    """What was measured once, at the end of the training run.

    Attributes
    ----------
    metric
        Name of the score that chooses weights.
    images
        Validation images, and a fixed sample of training images.
    classes
        Names of classes; empty without classes.
    counts
        Items of each class, by split.
    cells
        Classified cells by split.
    disputes
        Highest confidence first.
    judged
        Number of labels that were checked for disputes.
    features
        By split and name of the feature, one number per examined image.
    twins
        Most similar first.
    unit
        The independent unit, as text: ``image``, ``movie``, or the column that groups images.
    intervals
        By score: its 95 % interval on the validation split, over units.
    """

    metric: str
    images: tuple[ImageScore, ...] = ()
    classes: tuple[str, ...] = ()
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    cells: Mapping[str, Cells] = field(default_factory=dict)
    disputes: tuple[Dispute, ...] = ()
    judged: int = 0
    features: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    twins: tuple[Twin, ...] = ()
    unit: str = "image"
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """All inputs of the findings.

    Attributes
    ----------
    recipe
        The recipe of the run, nested.
    metric
        Name of the metric that chooses weights.
    images
        Number of images per split.
    agreement
        What annotators reach against each other in `metric`; None if unknown.
    norm_crops
        How many crops the statistics of batch norms were of, at least; None without batch norms.
    ended_by
        What ended the steps: all ``epochs`` were done, the ``minutes`` were over, validations no longer improved
        (``early stopping``), or ``stop`` was requested. None while it runs, if it failed, or if not recorded.
    ending
        None while the training run continues, or if it failed.
    """

    recipe: Mapping[str, Any]
    metric: str
    images: Mapping[str, int] = field(default_factory=dict)
    agreement: float | None = None
    steps: Steps = Steps()
    probes: tuple[Probe, ...] = ()
    validations: tuple[Validation, ...] = ()
    unscored: tuple[Unscored, ...] = ()
    spent: tuple[Spent, ...] = ()
    failure: Failure | None = None
    norm_crops: int | None = None
    ended_by: EndedBy | None = None
    ending: Ending | None = None

    def setting(self, path: str) -> Any:
        """Return a field of the recipe by its dotted path; None if absent."""
        value: Any = self.recipe
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value
