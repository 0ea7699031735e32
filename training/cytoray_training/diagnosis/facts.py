"""What a training writes down about itself; :mod:`cytoray_training.diagnosis.reading` reads it back."""

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
        Of that step.
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
        Share of its channels that are the same number everywhere in the batch.
    update
        Norm of the step's change of its weights over their norm before; None for a layer without weights.
    """

    name: str
    rms: float
    largest: float
    dead: float
    update: float | None = None


@dataclass(frozen=True)
class Probe:
    """A step that was looked into.

    Attributes
    ----------
    step, learning_rate
        Which one, and its learning rate.
    gain
        Share of the batch's loss that the step took away, measured on the same batch: below 0 the step made it worse.
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
    """A validation that could not tell how good the weights are.

    Attributes
    ----------
    why
        ``missing`` where the task left out the metric that chooses weights, ``nan`` where it was no number.
    numbers
        Other metrics of the same validation that were numbers.
    """

    epoch: int
    why: Literal["missing", "nan"]
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class Spent:
    """Where the seconds of an epoch went, on worker 0.

    Attributes
    ----------
    waited
        The network had no batch to work on.
    network
        Forward, backward, optimizer.
    read, augment, encode
        Preparing batches, beside the network: pixels from the cache, warping and varying, targets.
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
    """Where numbers stopped being numbers.

    Attributes
    ----------
    layer
        The first module whose output (or gradient) was no number though its inputs were; None where not located.
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
        How many it holds in truth.
    unit
        What it belongs to and varies with, such as a patient; empty where it is a unit of its own.
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
        What the model gives to either.
    owner
        The unit that the cell belongs to; empty where nothing was recorded of it.
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
        What the label says, and what the model says.
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
    """What was measured once, when the training had ended.

    Attributes
    ----------
    metric
        Name of the score that chooses weights.
    images
        Validation images, and a fixed sample of training images.
    classes
        Names of classes; empty where there are none.
    counts
        Items of each class, by split.
    cells
        Classified cells by split.
    disputes
        Surest first.
    judged
        Labels that were looked at for disputes.
    features
        By split and name of the feature, one number per image that was looked at.
    twins
        Most similar first.
    unit
        What varies by itself, for people: ``image``, ``movie``, or the column that groups images.
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
    """Everything that findings look at.

    Attributes
    ----------
    recipe
        As it was trained, nested.
    metric
        Name of the metric that chooses weights.
    images
        Number of images per split.
    agreement
        What annotators reach against each other in `metric`; None where nobody knows.
    norm_crops
        How many crops the statistics of batch norms were of, at least; None without batch norms.
    ended_by
        What ended the steps: all ``epochs`` were done, the ``minutes`` were over, validations gained no more (``early
        stopping``), or it was asked to ``stop``. None while it goes on, where it failed, or where it was not recorded.
    ending
        None while the training goes on, or where it failed.
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
        """Return a field of the recipe by its dotted path; None where it has none."""
        value: Any = self.recipe
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value
