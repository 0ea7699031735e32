"""Facts of simulated training runs: drawn from what real short ones wrote down, healthy or with one fault.

The ranges come from 26 runs of the product on synthetic data (nuclei, mixed nuclei, stains, cells of two classes; 12 to
480 steps, U-Net of two levels and a small ResNet, CPU), ended as ``cytoray train`` ends them:

=========================  ===================================================================================
healthy (7 runs)           loss to 0.1 to 0.4 of its beginning, late steps scattered by 17 to 32 %; gain at full rate
                           +0.02 to +0.09 a step, no step worse by 1 % or more (one of 8 in a network without norms);
                           weights move by 1.1 to 1.4 % a step, at most 3 to 5 % (8 %); dead channels 0 to 0.25 (0.38);
                           outputs 1.3 to 4.2; images 0.87 to 1.00, spread 0.04 to 0.26, training images at most 0.10
                           better; cells 95 to 100 % right, wrong ones at log-odds of −2.3 to −0.1, right ones around
                           5 to 9; no dispute in 370 objects
rate 10 to 100 times       weights move by 20 to 36 % in one step; 0 to 4 of 8 steps worse by 1 % or more; dead
too high (4)               channels 0.25 to 1
rate 1000 times too low    gain +0.0000 to +0.0021, weights move by 4e-6 to 1e-4; loss to 0.9 to 1
dead layers                1.0 from the first step on; gain +0.001, weights move by 9e-5
exploding layers           outputs 1e5 to 1e7 from the first step on
runaway                    leaps of 1e4 to 1e7 in a third of the late steps, median as at the beginning; or rising
under-fitted (4)           images 0.00 to 0.58; loss still falling by 4 to 14 % over the last third
over-fitted                training 0.97 ± 0.07, validation 0.50 ± 0.07, curve of validation flat or falling
labels wrong               3 to 20 % of the classes exchanged, in one split or both
rare classes               recall 0.1 to 0.5 where the others have 0.95
=========================  ===================================================================================

What a step or an image gives is drawn here; twins, features and disputes are found by the product in drawn pixels,
objects and probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import norm

from cytoray_analysis.fine_structure import fine_structure
from cytoray_analysis.tasks.classification import Classification
from cytoray_analysis.tasks.fitting import fit_decode
from cytoray_training.diagnosis.disputes import contradicted_classes, contradicted_objects
from cytoray_training.diagnosis.facts import (
    Cells,
    Dispute,
    EndedBy,
    Ending,
    Facts,
    Failure,
    ImageScore,
    Layer,
    Probe,
    Spent,
    Steps,
    Unscored,
    Validation,
)
from cytoray_training.diagnosis.probe import probe_period
from cytoray_training.diagnosis.splits import find_twins, image_features
from cytoray_training.engines.schedule import learning_rate_at

SPLITS = ("train", "val")
_LAYERS = ("stem.0", "stem.1", "down.0.first.0", "down.0.first.1", "up.0.first.0", "up.0.first.1", "head")
_WARMUP = 0.05
_SIDE = 64


@dataclass(frozen=True)
class Course:
    """What one training is like, before chance has its say; see the table above."""

    steps: int
    rate: float
    fall: float  # loss at the end, of that at the beginning
    scatter: float
    gain: float
    worse: float  # share of steps that lose by 1 % or more
    update: float
    longest: float
    dead: float
    output: float
    known: float  # score of training images
    new: float  # score of validation images
    spread: float  # between images
    images: int  # in val
    classes: bool
    wrong: float  # share of labels
    rare: float  # recall of the rare class; 1 for equal classes
    other_microscope: bool
    twins: int
    waited: float
    agreement: float | None
    ended_by: EndedBy
    leaps: float = 0.0


def simulated(seed: int, fault: str | None = None) -> Facts:
    """Draw the facts of a training.

    Parameters
    ----------
    seed
        The same seed, the same facts.
    fault
        Name of the finding that is right, one of :data:`FAULTS`; None for a healthy training.
    """
    random = np.random.default_rng((seed, 0 if fault is None else 1 + list(FAULTS).index(fault)))
    course = _healthy(random)
    if fault is not None:
        course = replace(course, **FAULTS[fault](random, course))
    facts = _told(random, course)
    if fault == "not-finite":
        where = {"what": "output", "layer": "head"}
        facts = replace(facts, failure=Failure(course.steps // 2, 3, float("nan"), float("nan"), **where), ending=None)
    if fault == "no-score":
        lost = tuple(Unscored(one.epoch, "missing", ("dice",)) for one in facts.validations)
        facts = replace(facts, validations=(), unscored=lost)
    return facts


def _healthy(random: np.random.Generator) -> Course:
    known = random.uniform(0.87, 0.99)
    spread = random.uniform(0.04, min(0.2, 0.9 * np.sqrt(known * (1 - known))))
    varies = np.hypot(spread, np.sqrt(known * (1 - known) / 10))  # of an image of ten cells
    agreement = min(1.0, known + random.uniform(0.05, 0.1)) if random.random() < 0.3 else None
    return Course(
        steps=int(random.integers(96, 1500)),
        rate=10 ** random.uniform(-3.3, -2),
        fall=random.uniform(0.1, 0.4),
        scatter=random.uniform(0.15, 0.35),
        gain=random.uniform(0.02, 0.09),
        worse=random.choice([0.0, 0.0, 0.0, random.uniform(0, 0.12)]),
        update=random.uniform(0.002, 0.014),
        longest=random.uniform(0.02, 0.085),
        dead=random.uniform(0, 0.38),
        output=random.uniform(1.3, 4.2),
        known=known,
        new=known - random.uniform(0, 0.05),
        spread=spread,
        images=int(max(20, random.uniform(2, 3) * (3.92 * varies / 0.15) ** 2)),  # enough
        classes=bool(random.random() < 0.5),
        wrong=0.0,
        rare=1.0,
        other_microscope=False,
        twins=0,
        waited=random.choice([0.001, 0.05, 0.15]),
        agreement=agreement,
        ended_by=str(random.choice(["epochs", "minutes", "early stopping"])),  # type: ignore[arg-type] # one of them
    )


def _over_fitted(random: np.random.Generator, course: Course) -> dict[str, Any]:
    new = course.known - random.uniform(0.2, 0.45)
    return {"new": new, "spread": random.uniform(0.05, 0.12), "images": int(random.integers(8, 24))}


def _under_fitted(random: np.random.Generator, course: Course) -> dict[str, Any]:
    known = random.uniform(0.02, 0.5)
    return {"known": known, "new": known - random.uniform(-0.03, 0.05), "spread": 0.1, "agreement": None} | {
        "fall": random.uniform(0.4, 0.95),
        "steps": int(random.integers(24, 600)),
    }


FAULTS: Mapping[str, Callable[[np.random.Generator, Course], dict[str, Any]]] = {
    "not-finite": lambda random, course: {},
    "no-score": lambda random, course: {},
    "diverging": lambda random, course: (
        {"fall": 10 ** random.uniform(0.7, 3)} if random.random() < 0.5 else {"leaps": random.uniform(0.2, 0.4)}
    ),
    "learning-rate-too-high": lambda random, course: (
        {"longest": random.uniform(0.2, 0.36), "rate": 100 * course.rate}
        if random.random() < 0.7
        else {"worse": random.uniform(0.5, 0.7), "gain": 0.01}
    ),
    "learning-rate-too-low": lambda random, course: {
        "update": 10 ** random.uniform(-5.4, -4),
        "longest": 1.4e-4,
        "gain": random.uniform(0, 0.0021),
        "worse": 0.0,
        "fall": random.uniform(0.9, 1.0),
        "steps": int(random.integers(96, 500)),
        "known": (known := random.uniform(0.02, 0.4)),
        "new": known - random.uniform(-0.02, 0.02),
        "agreement": None,
    },
    "exploding-layers": lambda random, course: {"output": 10 ** random.uniform(3.2, 7)},
    "dead-layers": lambda random, course: {"dead": random.uniform(0.55, 1.0)},
    "over-fitting": _over_fitted,
    "under-fitting": _under_fitted,
    "different-splits": lambda random, course: {"other_microscope": True},
    "same-content": lambda random, course: {"twins": int(random.integers(1, 4))},
    "class-imbalance": lambda random, course: {"classes": True, "rare": random.uniform(0.1, 0.5)},
    "disputed-labels": lambda random, course: {
        "classes": True,
        "wrong": random.uniform(0.02, 0.08),
        "known": random.uniform(0.97, 0.995),
        "new": random.uniform(0.95, 0.99),
        "images": int(random.integers(12, 30)),
        "spread": 0.03,
    },
    "too-few-examples": lambda random, course: {"images": int(random.integers(2, 6)), "spread": 0.15},
    "annotator-agreement": lambda random, course: {"agreement": course.new - random.uniform(0.0, 0.05)},
    "waiting-for-data": lambda random, course: {"waited": random.uniform(0.5, 4.0)},
}


def _told(random: np.random.Generator, course: Course) -> Facts:
    """Let chance have its say."""
    epochs = 8 if course.ended_by == "epochs" else 16  # of which 8 are done
    recipe = {
        "model": {
            "task": {"name": "classification" if course.classes else "segmentation"},
            "network": {"name": "unet"},
        },
        "data": {"balance": 0.0},
        "scale": {"cpus_per_worker": 2},
        "training": {
            "learning_rate": course.rate,
            "weight_decay": 0.01,
            "gradient_clip": 1.0,
            "warmup": _WARMUP,
            "epochs": epochs,
            "minutes": 3.0 if course.ended_by == "minutes" else None,
            "early_stopping": 3 if course.ended_by == "early stopping" else None,
        },
    }
    done = (np.arange(course.steps) + 0.5) / course.steps
    rates = np.array([learning_rate_at(float(one), course.rate, _WARMUP) for one in done])
    return Facts(
        recipe=recipe,
        metric="accuracy" if course.classes else "ap50",
        images={"train": 6 * course.images, "val": course.images},
        agreement=course.agreement,
        steps=_steps(random, course, done, rates),
        probes=_probes(random, course, rates),
        validations=tuple(_validations(random, course)),
        spent=tuple(_spent(random, course)),
        ended_by=course.ended_by,
        ending=_ending(random, course),
    )


def _steps(random: np.random.Generator, course: Course, done: NDArray[np.float64], rates: NDArray[np.float64]) -> Steps:
    level = course.fall + (1 - course.fall) * np.exp(-6 * done)
    if course.fall > 1:  # falls first, then runs away
        level = np.exp(-6 * done) + course.fall * done**4
    loss = 2 * level * np.exp(random.normal(0, course.scatter, course.steps))
    leaping = (done > 0.4) & (random.random(course.steps) < course.leaps)
    loss = np.where(leaping, 10 ** random.uniform(4, 7, course.steps), loss)
    norm = 1.5 * np.exp(random.normal(0, 0.4, course.steps))
    return Steps(tuple(range(course.steps)), *(tuple(column.tolist()) for column in (loss, norm, rates)))


def _probes(random: np.random.Generator, course: Course, rates: NDArray[np.float64]) -> tuple[Probe, ...]:
    probes = []
    faulty = int(random.integers(1, len(_LAYERS)))
    looks = range(0, course.steps, probe_period(course.steps))
    longest = int(random.integers(2, 8))
    for place, step in enumerate(looks):
        share = rates[step] / course.rate
        update = course.update * share * np.exp(random.normal(0, 0.2))
        if place == longest:
            update = course.longest
        gain = course.gain * share * np.exp(random.normal(0, 0.4))
        if random.random() < course.worse:
            gain = -random.uniform(0.01, 0.15)
        layers = tuple(
            Layer(
                name,
                rms=float((course.output if at >= faulty else min(course.output, 4.0)) * np.exp(random.normal(0, 0.1))),
                largest=10.0,
                dead=float(np.clip(course.dead + random.normal(0, 0.02), 0, 1)) if at == faulty else 0.0,
                update=float(update * np.exp(random.normal(0, 0.3))) if at % 2 == 0 else None,
            )
            for at, name in enumerate(_LAYERS)
        )
        probes.append(Probe(step, float(rates[step]), float(gain), layers))
    return tuple(probes)


def _validations(random: np.random.Generator, course: Course) -> list[Validation]:
    best = course.new - random.uniform(0, 0.01)
    return [
        Validation(epoch, float(max(0.0, best * (1 - np.exp(-0.9 * (epoch + 1))))), float(course.known))
        for epoch in range(8)
    ]


def _spent(random: np.random.Generator, course: Course) -> list[Spent]:
    seconds = random.uniform(5, 60)
    return [Spent(epoch, course.waited * seconds, seconds, 3.0, 2.0, 1.0, 4.0) for epoch in range(8)]


def _ending(random: np.random.Generator, course: Course) -> Ending:
    planes = {split: _planes(random, course, split) for split in SPLITS}
    for number in range(course.twins):
        planes["val"][number] = np.rot90(0.8 * planes["train"][number] + 10, number).copy()
    details = {
        split: [(f"{split}/{at}.tif", fine_structure(plane)) for at, plane in enumerate(planes[split])]
        for split in SPLITS
    }
    rows = {split: [image_features(plane) for plane in planes[split]] for split in SPLITS}
    ending = Ending(
        "accuracy" if course.classes else "ap50",
        features={
            split: {name: tuple(row[name] for row in rows[split]) for name in rows[split][0]} for split in SPLITS
        },
        twins=find_twins(details["train"], details["val"]),
    )
    return _classified(random, course, ending) if course.classes else _segmented(random, course, ending)


def _planes(random: np.random.Generator, course: Course, split: str) -> list[NDArray[np.float32]]:
    moved = course.other_microscope and split == "val"
    planes = []
    for _ in range(24 if split == "train" else 12):
        blobs = gaussian_filter(random.random((_SIDE, _SIDE)), 4.0)
        blobs = (blobs - blobs.min()) / np.ptp(blobs)
        plane = random.normal(20, 4) + random.normal(130, 25) * blobs**2 + random.normal(0, 3, blobs.shape)
        planes.append((0.5 * gaussian_filter(plane, 1.0) + 120 if moved else plane).astype(np.float32))
    return planes


def _image_means(random: np.random.Generator, mean: float, spread: float, count: int) -> NDArray[np.float64]:
    """Draw what single images score: a beta distribution of that mean and spread."""
    mean = float(np.clip(mean, 0.01, 0.99))
    certain = max(mean * (1 - mean) / spread**2 - 1, 0.3)
    return random.beta(mean * certain, (1 - mean) * certain, count)


def _segmented(random: np.random.Generator, course: Course, ending: Ending) -> Ending:
    images, disputes, judged = [], [], 0
    for split, mean in zip(SPLITS, (course.known, course.new), strict=True):
        count = min(course.images, 48) if split == "train" else course.images
        objects = random.integers(2, 12, count)
        scores = _image_means(random, mean, course.spread, count)
        images += [
            ImageScore(f"{split}/{at}.tif", split, float(score), int(held))
            for at, (score, held) in enumerate(zip(scores, objects, strict=True))
        ]
        drawn = [_objects(random, float(score), course.wrong) for score in scores]
        judged += sum(int(truth.max()) for _, truth, _ in drawn)
        disputes += [
            Dispute(f"{split}/{one.image}.tif", split, one.given, one.proposed, one.confidence, one.place)
            for one in contradicted_objects(*zip(*drawn, strict=True))
        ]
    return replace(ending, images=tuple(images), disputes=tuple(disputes), judged=judged)


def _objects(
    random: np.random.Generator, score: float, wrong: float
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Draw answer, truth and confidence of one image: squares on a grid, the small ones missed or invented first."""
    answer, truth = np.zeros((2, _SIDE, _SIDE), np.int32)
    confidence = [0.0]
    for row, column in np.ndindex(3, 3):
        large = bool(random.random() < 0.65)
        side = int(random.integers(9, 16) if large else random.integers(4, 9))
        place = (slice(20 * row, 20 * row + side), slice(20 * column, 20 * column + side))
        error = (1 - score) * (0.1 if large else 0.9) * 0.5  # missed and invented alike
        kind = random.choice(["both", "missed", "invented"], p=[1 - 2 * error, error, error])
        if large and kind != "both":  # a good model splits and merges what is large, and sees something there
            kind = kind if random.random() < (1 - score) ** 2 else "both"
        sure = random.beta(1, 1 + 10 * score) if kind == "invented" else random.beta(1 + 20 * score, 1)
        if kind != "invented":
            truth[place] = truth.max() + 1
        if kind != "missed":
            answer[place] = answer.max() + 1
            confidence.append(float(sure))
        if kind == "both" and random.random() < wrong:
            truth[place] = 0
    return answer, truth, np.array(confidence, np.float32)


def _classified(random: np.random.Generator, course: Course, ending: Ending) -> Ending:
    images, cells, disputes, judged, drawn = [], {}, [], 0, {}
    rare, each = course.rare < 1, 10
    for split, mean in zip(SPLITS, (course.known, course.new), strict=True):
        count = min(course.images, 48) if split == "train" else course.images
        owner = np.repeat([f"{split}/{at}.tif" for at in range(count)], each)
        truth = (random.random(len(owner)) < (0.12 if rare else 0.5)).astype(np.int64)
        right = np.repeat(_image_means(random, mean, course.spread, count), each)
        right = np.where((truth == 1) & rare, course.rare, right)
        # What speaks for the true class is normal, and above 0 in as many cells as are right.
        margin = _normal_quantile(right) + random.normal(0, 1, len(truth))
        logits = np.stack([np.where(truth == kind, margin, -margin) for kind in range(2)], 1).astype(np.float32) * 2.5
        labelled = np.where(random.random(len(truth)) < course.wrong, 1 - truth, truth)
        drawn[split] = logits, labelled, owner
    task = Classification(classes=("round", "spindle"))
    decode = fit_decode(task, [drawn["val"][0]], [drawn["val"][1]])
    for split, (logits, labelled, owner) in drawn.items():
        probabilities = task.decode(logits, decode).values
        count = len(owner) // each
        predicted = probabilities.argmax(axis=1)
        rows = np.arange(len(labelled))
        cells[split] = Cells(
            tuple(labelled.tolist()),
            tuple(predicted.tolist()),
            tuple(probabilities[rows, labelled].tolist()),
            tuple(probabilities.max(axis=1).tolist()),
            tuple(owner.tolist()),
        )
        scores = (labelled == predicted).reshape(count, each).mean(axis=1)
        images += [ImageScore(f"{split}/{at}.tif", split, float(one), each) for at, one in enumerate(scores)]
        judged += len(labelled)
        disputes += [
            Dispute(owner[at], split, str(labelled[at]), str(predicted[at]), float(probabilities[at].max()), (0.0, 0.0))
            for at in contradicted_classes(probabilities, labelled, np.repeat(np.arange(count), each))
        ]
    counts = (880, 120) if rare else (500, 500)
    return replace(
        ending,
        images=tuple(images),
        classes=("round", "spindle"),
        counts={"train": counts},
        cells=cells,
        disputes=tuple(disputes),
        judged=judged,
    )


def _normal_quantile(share: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(norm.ppf(np.clip(share, 1e-3, 1 - 1e-3)))
