"""Check for one file that differs from all others of its kind in a data set.

None of these differences is an error by itself: sets of several microscopes have all of them. So the others must agree.
A trait counts if almost all files share it, a number if it is further from those of all other files than they are from
each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cytoray_analysis.images.names import image_suffix
from cytoray_services.datasets.check.findings import Checked, Finding
from cytoray_services.datasets.check.looks import UNKNOWN, Look

_FEWEST = 4  # minimum number of other files for numbers
_FEWEST_ALIKE = 3  # minimum number of other files with the same trait
_ONE_IN = 50  # maximum share of files that differ
_TIMES = 2.0  # factor of the width of the others' range above which a number is outside
_FEW = 8.0  # the range of few files is narrower than that of many: with this number it counts twice

_TRAITS: Mapping[str, str] = {
    "ending": "its name ends in {got}, unlike those of the others",
    "type": "its pixels are of the type {got}, those of the others {usual}",
    "size": "its size is {got}, that of the others {usual}",
    "channels": "its channels are called {got}, those of the others {usual}",
    "pixel size": "its pixel size is {got}, that of the others {usual}",
}
# By name: minimum distance from the others' range, text for a number above it, and below it.
_MEASURES: Mapping[str, tuple[float, str, str]] = {
    "brightness": (2.0, "it is {times} times as bright as", "it is {times} times darker than"),
    "range": (2.0, "its values span {times} times as much as those of", "its values span {times} times less than"),
    "at its smallest value": (3.0, "{times} times as many pixels have its smallest value as in", ""),
    "contrast": (0.3, "its objects are bright, unlike those of", "its objects are dark, unlike those of"),
    "polarity": (0.35, "it looks inverted compared with", "it looks inverted compared with"),
    "roughness": (1.5, "it is {times} times as noisy as", "it is {times} times smoother than"),
    "spike": (0.7, "single pixels stand out {times} times as far from their neighbours as in", ""),
    "row step": (1.5, "a row differs {times} times as much from the next as in", ""),
    "column step": (1.5, "a column differs {times} times as much from the next as in", ""),
    "equal run": (2.0, "it has a run of equal pixels, {times} times as long as in", ""),
    "steps": (0.9, "its values are multiples of {times} times the step of", "its values are in between the steps of"),
    "smallest piece": (2.0, "", "it contains a speck {times} times smaller than any of"),
    "largest piece": (2.0, "it contains an object {times} times as large as any of", "its objects are smaller than in"),
    "pieces": (0.15, "its objects are more fragmented than those of", ""),
    "covered": (2.0, "its objects cover {times} times as much as in", "its objects cover {times} times less than in"),
    "numbers": (1.5, "its numbers go {times} times as high for as many objects as those of", ""),
    "stray pixels": (0.9, "it contains isolated pixels far from their object, unlike", ""),
    "holes": (2.0, "its objects have holes of one pixel, {times} times as many as in", ""),
    "straight edge": (0.9, "its objects are cut along a row, {times} times as long as in", ""),
    "outline": (1.0, "its objects are {times} times as ragged as those of", ""),
    "continuity": (0.2, "", "it differs from the frames before and after it, unlike"),
    "fit": (0.2, "", "it does not fit its image as those of"),
}
UNLIKE_REMEDY = "Compare it with the others; restore or export it again if it is damaged, or keep it if it is intended."


def find_unlike(checked: Checked) -> Iterator[Finding]:
    """Find images, masks and targets that differ from all others of the set."""
    images = {path: facts.look for (path, _), facts in checked.facts.items() if facts.look is not None}
    truths = {
        path: facts.truth_look
        for (_, path), facts in checked.facts.items()
        if path is not None and facts.truth_look is not None
    }
    owner = {truth: checked.name(image) for image, truth in checked.facts if truth is not None}
    for looks in (images, truths):
        for path, problem in unlike_files(looks).items():
            named = problem.replace("its image", f"its image {owner.get(path, '')}")
            yield Finding("note", checked.name(path), named, UNLIKE_REMEDY, "unlike-others")


def unlike_files(looks: Mapping[Path, Look]) -> dict[Path, str]:
    """Return files that differ from the others, with the difference."""
    said: dict[Path, list[str]] = defaultdict(list)
    for path, sentence in (*unlike_traits(looks), *unlike_measures(looks)):
        said[path].append(sentence)
    return {path: "; ".join(sentences) for path, sentences in said.items()}


def unlike_traits(looks: Mapping[Path, Look]) -> Iterator[tuple[Path, str]]:
    """Yield files with another type, size, … than almost all, and the difference."""
    for name, sentence in _TRAITS.items():
        values = {path: look.traits.get(name) or _ending(path) for path, look in looks.items()}
        counts = Counter(values.values())
        few = max(1, len(values) // _ONE_IN)
        if few < counts[UNKNOWN] < len(values) - few:  # some files have no value: compare those that have one
            values = {path: value for path, value in values.items() if value != UNKNOWN}
            del counts[UNKNOWN]
        if not counts:
            continue
        usual, agreeing = counts.most_common(1)[0]
        if agreeing >= _FEWEST_ALIKE and 0 < len(values) - agreeing <= max(1, len(values) // _ONE_IN):
            for path, got in values.items():
                if got != usual and counts[got] < _FEWEST_ALIKE:  # several equal ones are another kind of image
                    yield path, sentence.format(got=got, usual=usual)


def unlike_measures(looks: Mapping[Path, Look]) -> Iterator[tuple[Path, str]]:
    """Yield files with a number far outside the range of all others, and the difference."""
    names = sorted({name for look in looks.values() for name in look.measures})
    paths = list(looks)
    for full in names:
        name, _, channel = full.partition(", ")
        least, above, below = _MEASURES[name]
        having = [path for path in paths if full in looks[path].measures]
        if len(having) <= _FEWEST:
            continue
        values = np.array([looks[path].measures[full] for path in having])
        order = np.argsort(values)
        width = values[order[-2]] - values[order[0]]
        for place, step, others, text in (
            (order[-1], values[order[-1]] - values[order[-2]], width, above),
            (order[0], values[order[1]] - values[order[0]], values[order[-1]] - values[order[1]], below),
        ):
            margin = max(least, _TIMES * (1 + _FEW / len(having)) * others)
            if text and step >= margin:
                sentence = text.format(times=f"{2.0**step:.3g}") + " the others"
                yield having[place], sentence + (f" ({channel})" if channel else "")


def _ending(path: Path) -> str:
    return "that of an image" if image_suffix(path) else path.suffix or "nothing"
