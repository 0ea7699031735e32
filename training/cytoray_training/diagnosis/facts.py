"""What a training writes down about itself, and how it is read back.

While it goes on, worker 0 appends lines to the run's progress file, each an object with a ``stage``: ``start``,
``steps``, ``probe``, ``validation``, ``spent``, ``failure``. When it has ended, ``diagnosis/facts.json`` is written.
A training that was interrupted and went on has written some steps twice; the later ones count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import MissingFileError, TrainingError
from cytoray_analysis.files import write_whole
from cytoray_training.reporter import PROGRESS

FOLDER = "diagnosis"
ENDING = "facts.json"
FORMAT = 1


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
    """The metric of one image with the best weights; `objects` it holds in truth."""

    file: str
    split: str
    score: float
    objects: int


@dataclass(frozen=True)
class Cells:
    """Classified cells of one split, one entry each: true and predicted class, and the probability of either."""

    truth: tuple[int, ...] = ()
    predicted: tuple[int, ...] = ()
    probability_of_truth: tuple[float, ...] = ()
    probability: tuple[float, ...] = ()


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
        Name of the score, of which more is better.
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
    spent: tuple[Spent, ...] = ()
    failure: Failure | None = None
    ending: Ending | None = None

    def setting(self, path: str) -> Any:
        """Return a field of the recipe by its dotted path; None where it has none."""
        value: Any = self.recipe
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def write_ending(folder: Path, ending: Ending) -> Path:
    """Write what was measured at the end into a run's folder; it appears whole or not at all."""
    return write_whole(folder / FOLDER / ENDING, json.dumps({"format": FORMAT, **asdict(ending)}))


def read_facts(folder: Path) -> Facts:
    """Read what the training in a folder has written down so far.

    Raises
    ------
    MissingFileError
        There is no training in that folder, or one from before trainings wrote facts down.
    TrainingError
        A file is damaged.
    """
    path = folder / PROGRESS
    if not path.is_file():
        raise MissingFileError(f"expected the folder of a training, found no {PROGRESS} in {folder}", field="run")
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        facts = _from_lines(lines)
        ending = folder / FOLDER / ENDING
        return facts if not ending.is_file() else _with_ending(facts, json.loads(ending.read_text(encoding="utf-8")))
    except StopIteration:
        raise MissingFileError(
            f"the training in {folder} wrote no facts down: it never began, or an older version trained it",
            field="run",
            hint="train again with this version",
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"the facts in {folder} cannot be read: {error}", field="run") from error


def _from_lines(lines: Iterable[Mapping[str, Any]]) -> Facts:
    by_stage: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_stage.setdefault(line["stage"], []).append({key: value for key, value in line.items() if key != "stage"})
    start = next(reversed(by_stage.get("start", [])))
    return Facts(
        recipe=start["recipe"],
        metric=start["metric"],
        images=start["images"],
        agreement=start["agreement"],
        steps=_steps(by_stage.get("steps", [])),
        probes=tuple(_probe(line) for line in _last_of_each(by_stage.get("probe", []), "step")),
        validations=tuple(Validation(**line) for line in _last_of_each(by_stage.get("validation", []), "epoch")),
        spent=tuple(Spent(**line) for line in _last_of_each(by_stage.get("spent", []), "epoch")),
        failure=_failure(by_stage.get("failure", [])),
    )


def _steps(lines: Iterable[Mapping[str, Any]]) -> Steps:
    seen: dict[int, tuple[float, float, float]] = {}
    for line in lines:
        rows = zip(line["loss"], line["gradient_norm"], line["learning_rate"], strict=True)
        seen |= {line["first"] + place: row for place, row in enumerate(rows)}
    order = sorted(seen)
    return Steps(tuple(order), *(tuple(seen[step][column] for step in order) for column in range(3)))


def _probe(line: Mapping[str, Any]) -> Probe:
    return Probe(line["step"], line["learning_rate"], line["gain"], tuple(Layer(**layer) for layer in line["layers"]))


def _failure(lines: list[dict[str, Any]]) -> Failure | None:
    """Take the last failure; of workers that failed together, one that knows where."""
    if not lines:
        return None
    together = [line for line in lines if line["step"] == lines[-1]["step"]]
    return Failure(**min(together, key=lambda line: line["layer"] is None))


def _last_of_each(lines: Iterable[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    last = {line[key]: line for line in lines}
    return [last[number] for number in sorted(last)]


def _with_ending(facts: Facts, document: dict[str, Any]) -> Facts:
    if document.pop("format") != FORMAT:
        raise ValueError("another format")
    ending = Ending(
        metric=document["metric"],
        images=tuple(ImageScore(**image) for image in document["images"]),
        classes=tuple(document["classes"]),
        counts={split: tuple(counts) for split, counts in document["counts"].items()},
        cells={
            split: Cells(**{key: tuple(value) for key, value in cells.items()})
            for split, cells in document["cells"].items()
        },
        disputes=tuple(Dispute(**one | {"place": tuple(one["place"])}) for one in document["disputes"]),
        judged=document["judged"],
        features={
            split: {name: tuple(values) for name, values in features.items()}
            for split, features in document["features"].items()
        },
        twins=tuple(Twin(**twin) for twin in document["twins"]),
    )
    return replace(facts, ending=ending)
