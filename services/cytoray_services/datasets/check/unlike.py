"""The check for one file that is unlike all others of its kind in a data set.

Nothing here is wrong by itself: sets of several microscopes differ in all of it. So the others must agree first. A
trait counts where hardly a file has another, a number where it lies further from those of all other files than they
lie from each other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from cytoray_analysis.images.names import image_suffix
from cytoray_services.datasets.check.findings import Checked, Finding
from cytoray_services.datasets.check.looks import UNKNOWN, Look

_FEWEST = 4  # others that numbers are compared with
_FEWEST_ALIKE = 3  # others that must have one trait
_ONE_IN = 50  # so many files may have one that is unlike them
_TIMES = 2.0  # the width of the others' range, from which on a number is outside it
_FEW = 8.0  # the range of few files is narrower than that of many: with this many it counts twice

_TRAITS: Mapping[str, str] = {
    "ending": "its name ends in {got}, unlike those of the others",
    "type": "its pixels are of the type {got}, those of the others {usual}",
    "size": "its size is {got}, that of the others {usual}",
    "channels": "its channels are called {got}, those of the others {usual}",
    "pixel size": "its pixel size is {got}, that of the others {usual}",
}
# By name: how far outside the others' range a number must lie at least, what to say of one above it, and below it.
_MEASURES: Mapping[str, tuple[float, str, str]] = {
    "brightness": (2.0, "it is {times} times as bright as", "it is {times} times darker than"),
    "range": (2.0, "its values span {times} times as much as those of", "its values span {times} times less than"),
    "at its smallest value": (3.0, "{times} times as many pixels have its smallest value as in", ""),
    "contrast": (0.3, "its objects are bright, unlike those of", "its objects are dark, unlike those of"),
    "polarity": (0.35, "it looks inverted beside", "it looks inverted beside"),
    "roughness": (1.5, "it is {times} times as noisy as", "it is {times} times smoother than"),
    "spike": (0.7, "single pixels stand out {times} times as far from their neighbours as in", ""),
    "row step": (1.5, "a row differs {times} times as much from the next as in", ""),
    "column step": (1.5, "a column differs {times} times as much from the next as in", ""),
    "equal run": (2.0, "pixels that follow each other have one value, {times} times as many as in", ""),
    "steps": (0.9, "its values are multiples of {times} times the step of", "its values are in between the steps of"),
    "smallest piece": (2.0, "", "it holds a speck {times} times smaller than any of"),
    "largest piece": (2.0, "it holds an object {times} times as large as any of", "its objects are smaller than in"),
    "pieces": (0.15, "its objects are in pieces more than those of", ""),
    "covered": (2.0, "its objects cover {times} times as much as in", "its objects cover {times} times less than in"),
    "numbers": (1.5, "its numbers go {times} times as high for as many objects as those of", ""),
    "stray pixels": (0.9, "it holds single pixels of an object far from it, unlike", ""),
    "holes": (2.0, "its objects have holes of one pixel, {times} times as many as in", ""),
    "straight edge": (0.9, "its objects are cut along a row, {times} times as far as in", ""),
    "outline": (1.0, "its objects are {times} times as ragged as those of", ""),
    "continuity": (0.2, "", "it does not show what the frames before and after it show, as in"),
    "fit": (0.2, "", "it does not lie on its image as those of"),
}
UNLIKE_REMEDY = (
    "Look at it beside the others; restore or export it again where it is damaged, or keep it if it is meant."
)


def find_unlike(checked: Checked) -> Iterator[Finding]:
    """Find images, masks and targets that are unlike all others of the set."""
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
    """Return files that are unlike the others, with what is unlike."""
    said: dict[Path, list[str]] = defaultdict(list)
    for path, sentence in (*unlike_traits(looks), *unlike_measures(looks)):
        said[path].append(sentence)
    return {path: "; ".join(sentences) for path, sentences in said.items()}


def unlike_traits(looks: Mapping[Path, Look]) -> Iterator[tuple[Path, str]]:
    """Yield files that have another type, size, … than nearly all, and what is unlike."""
    for name, sentence in _TRAITS.items():
        values = {path: look.traits.get(name) or _ending(path) for path, look in looks.items()}
        counts = Counter(values.values())
        few = max(1, len(values) // _ONE_IN)
        if few < counts[UNKNOWN] < len(values) - few:  # some files say nothing: those that do are compared
            values = {path: value for path, value in values.items() if value != UNKNOWN}
            del counts[UNKNOWN]
        if not counts:
            continue
        usual, agreeing = counts.most_common(1)[0]
        if agreeing >= _FEWEST_ALIKE and 0 < len(values) - agreeing <= max(1, len(values) // _ONE_IN):
            for path, got in values.items():
                if got != usual and counts[got] < _FEWEST_ALIKE:  # several alike are another kind of image
                    yield path, sentence.format(got=got, usual=usual)


def unlike_measures(looks: Mapping[Path, Look]) -> Iterator[tuple[Path, str]]:
    """Yield files of which a number lies far outside the range of all others, and what is unlike."""
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
