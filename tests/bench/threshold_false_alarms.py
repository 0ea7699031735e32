"""How often a canary is accused of drift, and an image of another intensity range, where all is as it was.

    python tests/bench/threshold_false_alarms.py DATA [--steps 1000] [--only drift | range]

Drift: the numbers that describe answers are measured on the true masks of real sets. Both versions of a canary answer
with draws of the same population, and the analysis' own rule looks at them at its own looks and levels, with 20
requests of the canary, 30, 45 and so on.

Intensity range: for each set, statistics of its training images as a training measures them, then each validation
image as a model with them prepares it. DATA is the folder that ``check_false_alarms.py`` takes; counts go to
``false_alarms.json``.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from check_false_alarms import SOURCES, Source, opened
from false_alarms import store
from numpy.typing import NDArray

from cytoray_analysis.bundle import ModelInput
from cytoray_analysis.images import IntensityScaling, fit_statistics, read_image, read_labels
from cytoray_analysis.images.axes import COLOURS
from cytoray_analysis.model_input import prepare
from cytoray_services.datasets import Dataset
from cytoray_services.rollouts.canary_analysis import FALSE_ALARMS, GROWTH_BETWEEN_LOOKS, LARGEST_SAMPLE
from cytoray_services.rollouts.rollout import STEPS, Limits
from cytoray_services.rollouts.rules import FEWEST, RULES, Sample, drift

Numbers = NDArray[np.float64]
MOST = 520  # requests of the canary: a step is complete with 500
COPY = "bccd_leukocytes"  # the images of bccd, with another truth
POPULATIONS = {"true masks of all sets of planes": "", "those of dsb2018": "dsb2018"}


@dataclass(frozen=True)
class Drift:
    """How many canaries that are the same model are accused.

    Attributes
    ----------
    population
        Where the answers come from.
    others
        How many requests the other version has for each of the canary's.
    requests
        Of the canary at this look; 0 where the row counts whole steps.
    far
        How many have a distance above the limit in any of the numbers, whatever its level.
    accused
        How many the rule accuses.
    """

    population: str
    answers: int
    others: float
    requests: int
    canaries: int
    far: int
    accused: int


@dataclass(frozen=True)
class Range:
    """How many validation images of a set are warned about."""

    name: str
    method: str
    train: int
    images: int
    warned: int


def looks() -> Iterator[int]:
    """Yield the requests of the canary at each look of the analysis."""
    requests = FEWEST
    while requests <= MOST:
        yield requests
        requests = math.ceil(requests * GROWTH_BETWEEN_LOOKS)


def drifts(population: str, answers: dict[str, Numbers], others: float, steps: int) -> Iterator[Drift]:
    """Lead canaries through a step each, and count look by look."""
    random, sizes, limits = np.random.default_rng(0), list(looks()), Limits()
    count = len(next(iter(answers.values())))
    far, accused, ever = [0] * len(sizes), [0] * len(sizes), 0
    no_times, no_batches = np.empty(0), np.empty(0, np.int64)
    for _ in range(steps):
        drawn = [random.integers(count, size=math.ceil(times * sizes[-1])) for times in (1, others)]
        blamed = False
        for look, requests in enumerate(sizes):
            parts = [drawn[0][:requests], drawn[1][: min(math.ceil(others * requests), LARGEST_SAMPLE)]]
            own, other = (
                Sample((), no_times, no_times, no_batches, {name: values[part] for name, values in answers.items()})
                for part in parts
            )
            level = FALSE_ALARMS / len(STEPS) / ((look + 1) * (look + 2)) / len(RULES)
            said = drift(own, other, limits, level) is not None
            accused[look] += said
            blamed |= said
            far[look] += any(distance(own.summaries[name], other.summaries[name]) > limits.drift for name in answers)
        ever += blamed
    for look, requests in enumerate(sizes):
        yield Drift(population, count, others, requests, steps, far[look], accused[look])
    yield Drift(population, count, others, 0, steps, 0, ever)


def distance(one: Numbers, other: Numbers) -> float:
    """Return the largest distance between two distribution functions; numbers that an answer lacks are left out."""
    known = [np.sort(values[np.isfinite(values)]) for values in (one, other)]
    both = np.concatenate(known)
    shares = [np.searchsorted(values, both, side="right") / max(1, len(values)) for values in known]
    return float(np.abs(shares[0] - shares[1]).max(initial=0.0))


def described(source: Source, data: Path) -> list[tuple[float, float, float]]:
    """Return objects per megapixel, the share covered, and the median area of each true mask of planes."""
    rows = []
    for items in opened(data / source.folder, source).images:
        labels = read_labels(items[0].truth) if items[0].truth is not None else None
        if labels is None or labels.ndim != 2:
            continue
        areas = np.bincount(labels.ravel())[1:]
        areas = areas[areas > 0]
        median = float(np.median(areas)) if len(areas) else math.nan
        rows.append((len(areas) / (labels.size / 1e6), areas.sum() / labels.size, median))
    return rows


def ranges(source: Source, data: Path) -> Iterator[Range]:
    """Prepare the validation images of a set with statistics of its training images."""
    dataset = opened(data / source.folder, source)
    if not {"train", "val"} <= set(dataset.splits):
        return
    groups: list[tuple[str, Dataset]] = [(source.name, dataset)]
    if source.name == "dsb2018":  # two kinds that need a scale each
        groups = [(f"dsb2018, {kind}", dataset.where("kind", glob)) for kind, glob in
                  (("fluorescence", "fluo*"), ("H&E", "histology*"))]  # fmt: skip
        groups.append(("dsb2018, both kinds", dataset))
    methods: tuple[Literal["percentile", "zscore"], ...] = ("percentile", "zscore")
    for name, part in groups:
        train, val = ([read_image(items[0].image) for items in part.split(split).images] for split in ("train", "val"))
        colour = any(image.size("C") == len(COLOURS) for image in train)
        axes = "CZYX" if train[0].size("Z") > 1 else "CYX"
        for method in methods:
            scaling = IntensityScaling(method=method, scope="dataset")
            channels = COLOURS if colour else tuple(train[0].select(axes).channels)
            pixels = (image.select(axes).read() for image in train)
            if colour:
                pixels = (np.repeat(one, len(COLOURS) // len(one), axis=0) for one in pixels)
            statistics = fit_statistics(pixels, scaling)
            model = ModelInput(axes=axes, channels=channels, grey_as_rgb=colour, scaling=scaling, statistics=statistics)
            warned = [any(one.code == "intensity-range" for one in prepare(image, model).warnings) for image in val]
            found = Range(name, method, len(train), len(val), sum(warned))
            print(found, file=sys.stderr, flush=True)
            yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=1000, help="canaries of each kind")
    parser.add_argument("--only", choices=["drift", "range"])
    words = parser.parse_args()
    sources = [
        source
        for source in SOURCES
        if not source.classes and not source.folder.startswith("tracking/") and "stardist" not in source.folder
    ]
    if words.only != "range":
        store("drift", list(drift_counts(sources, words.data, words.steps)))
    if words.only != "drift":
        store("range", [row for source in sources if source.name != COPY for row in ranges(source, words.data)])


def drift_counts(sources: Sequence[Source], data: Path, steps: int) -> Iterator[Drift]:
    """Count over every population, with as many requests of the other version, and as many as in the first step."""
    masks = {source.name: described(source, data) for source in sources if source.folder.startswith("segmentation/")}
    for population, only in POPULATIONS.items():
        rows = np.array([row for name, part in masks.items() if not only or name == only for row in part])
        answers = dict(zip(("objects_per_megapixel", "covered", "median_area"), rows.T, strict=True))
        for others in (1.0, (1 - STEPS[0]) / STEPS[0]):
            found = list(drifts(population, answers, others, steps))
            print(found[-1], file=sys.stderr, flush=True)
            yield from found


if __name__ == "__main__":
    main()
