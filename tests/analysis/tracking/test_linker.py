from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoray_analysis.errors import AxesError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.networks.overlap import overlap_then_distance
from cytoray_analysis.tracking import linker
from cytoray_analysis.tracking.candidates import FEATURES, Candidates
from cytoray_analysis.tracking.judged import JudgedFrame, JudgedMovie
from cytoray_analysis.tracking.lineage import Lineage, check_lineage
from cytoray_analysis.tracking.linker import PARAMETERS, link
from cytoray_analysis.tracking.linking import judge_movie, link_movie

DEFAULTS = {name: values[0] for name, values in PARAMETERS.items()}
PLAIN = dict.fromkeys(PARAMETERS, 0.0)


def random_movie(seed: int, frames: int = 7, objects: int = 4, spread: float = 3.0) -> JudgedMovie:
    """A movie in which any object may be linked to any other, with logits drawn by chance."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, objects + 1, frames)
    judged = []
    for index, count in enumerate(counts):
        candidates = outputs = None
        if index:
            rows = [
                (0, i, j, k) for i in range(counts[index - 1]) for j in range(count) for k in (-1, *range(j + 1, count))
            ]
            if index > 1:
                rows += [(1, i, j, -1) for i in range(counts[index - 2]) for j in range(count)]
            gap, source, target, sister = np.array(rows, np.int64).reshape(-1, 4).T
            candidates = Candidates(index, gap, source, target, sister, np.empty((0, len(rows)), np.float32))
            outputs = rng.normal(-1.0, spread, (2, len(rows))).astype(np.float32)
        place = np.stack((np.full(count, float(index)), np.arange(count, dtype=float)), axis=1)
        corner = place.astype(np.int64)
        judged.append(
            JudgedFrame(np.arange(1, count + 1), place, np.stack((corner, corner + 1), axis=1), candidates, outputs)
        )
    return JudgedMovie((frames, 10, 10), tuple(judged), gap=1)


def same(one: Lineage, two: Lineage) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(two, name))
        for name in ("track_id", "begin", "end", "parent", "frame", "track", "label", "confidence")
    )


def value(movie: JudgedMovie, lineage: Lineage) -> float:
    """What the linker maximises, from its answer alone."""
    at = {(f, label): t for f, t, label in zip(lineage.frame, lineage.track, lineage.label, strict=True)}
    begin = dict(zip(lineage.track_id, lineage.begin, strict=True))
    end = dict(zip(lineage.track_id, lineage.end, strict=True))
    parent = dict(zip(lineage.track_id, lineage.parent, strict=True))
    total = 0.0
    for index, frame in enumerate(movie.frames):
        if frame.candidates is None or frame.outputs is None:
            continue
        c, links = frame.candidates, {}
        for row in range(len(c)):
            a = at[(index - 1 - c.gap[row], c.source[row] + 1)]
            b = at[(index, c.target[row] + 1)]
            joined = a == b and c.gap[row] == 0
            joined |= parent[b] == a and begin[b] == index and end[a] == index - 1 - c.gap[row]
            if c.sister[row] < 0:
                links[(c.gap[row], c.source[row], c.target[row])] = float(frame.outputs[0, row])
                if joined and (a == b or a not in lineage.divisions):
                    total += float(frame.outputs[0, row])
            else:
                other = at[(index, c.sister[row] + 1)]
                if joined and a != b and parent[other] == a and begin[other] == index:
                    total += float(frame.outputs[1, row]) + max(links[(0, c.source[row], c.target[row])], 0.0)
    return total


def best_value(movie: JudgedMovie) -> float:
    """The same, by trying all sets of candidates of each frame: frames do not interact without gaps."""
    total = 0.0
    for frame in movie.frames:
        if frame.candidates is None or frame.outputs is None:
            continue
        c, rows = frame.candidates, []
        links = {
            (s, t): float(w)
            for s, t, k, gap, w in zip(c.source, c.target, c.sister, c.gap, frame.outputs[0], strict=True)
            if k < 0 and gap == 0
        }
        for row in range(len(c)):
            weight = float(frame.outputs[0, row])
            if c.sister[row] >= 0:
                weight = float(frame.outputs[1, row]) + max(links[(c.source[row], c.target[row])], 0.0)
            if weight > 0:
                taken = {("in", int(c.target[row]))} | ({("in", int(c.sister[row]))} if c.sister[row] >= 0 else set())
                rows.append((weight, taken | {("out", int(c.source[row]))}))
        best = 0.0
        for size in range(len(rows) + 1):
            if size > 4:
                break
            for chosen in itertools.combinations(rows, size):
                places = [place for _, taken in chosen for place in taken]
                if len(places) == len(set(places)):
                    best = max(best, sum(weight for weight, _ in chosen))
        total += best
    return total


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_windows_of_any_length_give_the_links_of_one_pass(seed: int, window: int) -> None:
    movie = random_movie(seed)
    assert same(link(movie, DEFAULTS, window=window), link(movie, DEFAULTS, window=1000))


@pytest.mark.slow
@given(st.integers(0, 2**32), st.sampled_from([-1.0, 0.0, 3.0]), st.sampled_from([-1.0, 0.0, 3.0]))
@settings(max_examples=60, deadline=None)
def test_a_lineage_is_always_valid(seed: int, appear: float, division: float) -> None:
    movie = random_movie(seed, objects=5)
    lineage = link(movie, {"appear": appear, "division": division, "gap": 0.0}, window=3)
    check_lineage(lineage, gap=1)
    assert len(lineage.frame) == sum(len(frame.labels) for frame in movie.frames)


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_no_set_of_links_is_better(seed: int) -> None:
    movie = random_movie(seed, frames=4, objects=3)
    held = tuple(movie.frames)
    without_gaps = replace(
        movie,
        frames=tuple(
            frame
            if frame.candidates is None or frame.outputs is None
            else replace(frame, outputs=np.where(frame.candidates.gap > 0, -50.0, frame.outputs).astype(np.float32))
            for frame in held
        ),
    )
    assert value(without_gaps, link(without_gaps, PLAIN)) == pytest.approx(best_value(without_gaps), abs=1e-4)


def knows(sample: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A scorer that was told the truth, frame by frame."""
    from cytoray_analysis.tracking.examples import training_examples

    truths = iter([truth for _, truth in training_examples(sample.movie, sample.masks, sample.truth)])

    def score(features: np.ndarray) -> np.ndarray:
        assert features.shape[0] == FEATURES
        return np.where(next(truths) == 1, 6.0, -6.0).astype(np.float32)

    return score


@pytest.mark.parametrize("depth", [None, 5])
def test_a_scorer_that_knows_gives_the_true_lineage(write_sample: Callable[..., Any], depth: int | None) -> None:
    sample = write_sample(depth)
    rng = np.random.default_rng(1)
    mixed = np.stack([np.concatenate(([0], 1 + rng.permutation(9)))[mask] for mask in sample.masks.data])
    masks = image_from_array(mixed, sample.masks.axes)
    lineage = link_movie(sample.movie, masks, knows(sample), DEFAULTS, window=2)
    check_lineage(lineage, gap=1)

    def shape_of(one: Lineage) -> set[tuple[int, ...]]:
        places = [tuple(np.round(place).astype(int)) for place in one.centroid]
        first = {(int(t), int(f)): p for f, t, p in zip(one.frame, one.track, places, strict=True)}
        begin = dict(zip(one.track_id.tolist(), one.begin.tolist(), strict=True))
        return {(b, e, *first[(t, b)], *(first[(p, begin[p])] if p else ())) for t, b, e, p in one.table.tolist()}

    assert shape_of(lineage) == shape_of(sample.truth)
    assert np.array_equal(lineage.tracked[:] > 0, sample.masks.data > 0)
    assert lineage.confidence is not None
    assert lineage.confidence.min() > 0.99


def test_a_movie_is_judged_no_further_than_it_is_gone_through(sample: Any) -> None:
    asked: list[int] = []

    def scorer(features: np.ndarray) -> np.ndarray:
        asked.append(features.shape[1])
        return np.full((2, features.shape[1]), -1.0, np.float32)

    frames = iter(judge_movie(sample.movie, sample.masks, scorer).frames)
    next(frames)
    next(frames)
    assert len(asked) == 1


def test_what_nothing_explains_appears_and_disappears(sample: Any) -> None:
    def never(features: np.ndarray) -> np.ndarray:
        return np.full((2, features.shape[1]), -9.0, np.float32)

    lineage = link_movie(sample.movie, sample.masks, never, DEFAULTS)
    assert len(lineage.track_id) == len(lineage.frame)
    assert lineage.parent.max() == 0


def test_movies_and_masks_without_objects_have_an_empty_lineage() -> None:
    empty = image_from_array(np.zeros((3, 20, 20), np.uint8), "TYX")
    lineage = link_movie(empty, empty, overlap_then_distance, DEFAULTS)
    assert len(lineage.track_id) == 0
    check_lineage(lineage)
    assert lineage.tracked[:].max() == 0


def test_a_single_frame_is_a_movie() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[3:8, 3:8] = 9
    image = image_from_array(mask, "YX")
    assert link_movie(image, image, overlap_then_distance, DEFAULTS).table.tolist() == [[1, 0, 0, 0]]


def test_the_baseline_follows_what_overlaps_and_sees_the_division(sample: Any) -> None:
    lineage = link_movie(sample.movie, sample.masks, overlap_then_distance, DEFAULTS)
    check_lineage(lineage, gap=1)
    assert lineage.divisions.size == 1
    assert sorted(zip(lineage.begin.tolist(), lineage.end.tolist(), strict=True)).count((0, 5)) == 1


def test_masks_of_another_shape_are_refused(sample: Any) -> None:
    with pytest.raises(AxesError, match="expected masks of the movie's shape"):
        judge_movie(sample.movie, image_from_array(sample.masks.data[:, :60], "TYX"), overlap_then_distance)


def test_a_long_movie_of_clear_links_keeps_no_decision_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def frames() -> Iterator[JudgedFrame]:
        place, box = np.array([[5.0, 5.0]]), np.array([[[5, 5], [6, 6]]])
        yield JudgedFrame(np.array([1]), place, box)
        for index in range(1, 80):
            gap = np.arange(min(index, 2))
            one = np.zeros_like(gap)
            candidates = Candidates(index, gap, one, one, one - 1, np.empty((0, len(gap)), np.float32))
            yield JudgedFrame(np.array([1]), place, box, candidates, np.full((2, len(gap)), 5.0, np.float32) - gap)

    kept: list[int] = []
    original = linker._settle

    def noted(choices: linker.Choices, open_from: int) -> tuple[linker.Choices, linker.Choices]:
        settled, rest = original(choices, open_from)
        kept.append(len(rest))
        return settled, rest

    monkeypatch.setattr(linker, "_settle", noted)
    lineage = link(JudgedMovie((80, 10, 10), frames(), gap=1), PLAIN, window=4)
    assert lineage.table.tolist() == [[1, 0, 79, 0]]
    assert max(kept) <= 4


@given(seed=st.integers(0, 200))
@settings(max_examples=20, deadline=None)
def test_every_division_has_a_confidence_and_nothing_else_has(seed: int) -> None:
    lineage = link(random_movie(seed), DEFAULTS)
    assert lineage.division_confidence is not None
    divides = np.isin(lineage.track_id, lineage.divisions)
    assert np.array_equal(~np.isnan(lineage.division_confidence), divides)
    assert (lineage.division_confidence[divides] > 0).all()


def undecided(frames: int, objects: int) -> linker.Choices:
    """What a network that has learnt nothing leaves open: any near pair may be the daughters of any object."""
    rng = np.random.default_rng(0)
    place = rng.uniform(0, 200, (objects, 2)) + rng.normal(0, 3, (frames, objects, 2)).cumsum(axis=0)
    rows = []
    for index in range(1, frames):
        distance = np.linalg.norm(place[index - 1][:, None] - place[index][None], axis=2)
        for source, near in enumerate(np.argsort(distance, axis=1)[:, :6] + index * objects):
            links = [((index - 1) * objects + source, target, -1) for target in near]
            pairs = [(links[0][0], *pair) for pair in itertools.combinations(near, 2)]
            rows += links + pairs
    source, target, sister = np.array(rows).T
    weight = np.where(sister >= 0, 4.0, 1.0) + rng.uniform(0, 0.1, len(rows))
    return linker.Choices(weight, np.full(len(rows), 0.5), source, target, sister)


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_a_network_that_knows_nothing_gets_a_valid_answer_in_seconds() -> None:
    choices = undecided(frames=12, objects=150)
    chosen = linker._solve_programme(choices)
    _, places, count, _ = linker._incidence(choices[chosen])
    assert len(places) == count
    assert choices.weight[chosen].sum() > 0.97 * (choices.weight * linker._relaxation(choices)).sum()
