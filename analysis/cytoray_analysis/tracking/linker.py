"""The linker: of all ways to link the objects of a movie, the most likely one.

Each candidate weighs the log-odds that a network gives it, plus what it saves of appearing and disappearing. The best
set of candidates, in which every object comes from at most one and goes to at most one, is an integer programme
(Padberg's set packing, as in Jug et al., MICCAI Workshop 2014, and in motile), solved by HiGHS through SciPy. A network
that hardly learnt makes large programmes, which get a good answer instead of the best: see :func:`_solve_programme`.
Objects that no candidate explains appear; those that none takes up disappear.

A candidate that weighs nothing or less is in no best set, and links over a gap are asked only where links from frame
to frame leave something open. Without those the programme falls apart into small ones that share no object. Each is
solved when no later frame can add to it, so that links do not depend on how many frames are looked at together: they
are those of one programme over the whole movie. Memory grows with the longest run of frames in which an open object
leads to the next, not with the movie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import PlatformError
from cytoray_analysis.tracking.judged import JudgedFrame, JudgedMovie
from cytoray_analysis.tracking.lineage import Integers, Lineage

# A network that learnt on other movies is surer of a link than of a division that it never saw the like of.
PARAMETERS: dict[str, tuple[float, ...]] = {
    "appear": (0.0, -2.0, -1.0, 1.0, 2.0, 4.0),
    "division": (2.0, 0.0, 1.0, 3.0, 4.0, 5.0, 6.0),
    "gap": (0.0, -2.0, -1.0, 1.0, 2.0),
}
# Branch and bound is exact and usually quick; its time grows exponentially with candidates that weigh nearly the same.
_EXACT = 500  # candidates
_NODES = 100
_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Choices:
    """M candidates worth choosing, by the numbers that objects have in the movie.

    Parameters
    ----------
    weight
        (M,) float64, more than 0.
    probability
        (M,) float64, 0 to 1: what the network says, corrected by the decode parameters.
    source, target, sister
        (M,) objects; `sister` is −1 for a link.
    """

    weight: NDArray[np.float64]
    probability: NDArray[np.float64]
    source: Integers
    target: Integers
    sister: Integers

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, chosen: NDArray[np.bool_] | Integers) -> Choices:
        return Choices(*(column[chosen] for column in vars(self).values()))


def link(movie: JudgedMovie, parameters: Mapping[str, float], *, window: int = 32) -> Lineage:
    """Choose the best set of candidates of a movie.

    Parameters
    ----------
    movie
        Judged frames, gone through once.
    parameters
        ``appear``: what a link saves because its target need not appear, in log-odds; ``division`` and ``gap``: what
        is added to the log-odds of a division, and of a link per frame skipped.
    window
        How many frames are looked at before what they settle is solved. Changes nothing but memory and time.

    Returns
    -------
    Lineage
        Valid: see :func:`~cytoray_analysis.tracking.lineage.check_lineage`.
    """
    blocks: list[JudgedFrame] = []
    seen: list[JudgedFrame] = []
    starts = [0]
    waiting, chosen = [_none()], [_none()]
    certain: Integers = np.zeros(0, np.int64)
    for index, frame in enumerate(movie.frames):
        seen.append(JudgedFrame(frame.labels, frame.centroid, frame.box))
        choices, certain = _without_idle_gaps(_weigh(frame, starts, index, parameters), starts, index, certain)
        waiting.append(choices)
        starts.append(starts[-1] + len(frame.labels))
        certain = certain[certain >= 2 * starts[max(index - movie.gap, 0)]]
        if (index + 1) % window == 0:
            # Later candidates leave from objects of the last frames only.
            open_from = starts[max(index - movie.gap, 0)]
            settled, kept = _settle(_joined(waiting), open_from)
            waiting, chosen = [kept], [*chosen, settled]
            # Many small arrays that stay would keep the memory of each frame's pixels from being used again.
            blocks, seen = [*blocks, _stacked(seen)], []
    settled, _ = _settle(_joined(waiting), starts[-1])
    return _assemble(movie, _stacked([*blocks, *seen]), np.array(starts), _joined([*chosen, settled]))


def _weigh(frame: JudgedFrame, starts: list[int], index: int, parameters: Mapping[str, float]) -> Choices:
    """Weigh the candidates of a frame, and keep those that are worth choosing."""
    candidates, outputs = frame.candidates, frame.outputs
    if candidates is None or outputs is None or len(candidates) == 0:
        return _none()
    logits = outputs.astype(np.float64)
    divides = candidates.sister >= 0
    weight = logits[0] + parameters["appear"] + parameters["gap"] * candidates.gap
    # A division also explains its nearer target, as a link to it would.
    links = np.flatnonzero(~divides)
    key = _key(candidates.gap, candidates.source, candidates.target, len(frame.labels))
    order = links[np.argsort(key[links])]
    nearer = order[np.searchsorted(key[order], key[divides])]
    weight[divides] = (
        logits[1][divides] + parameters["division"] + np.maximum(logits[0][nearer] + parameters["appear"], 0.0)
    )
    # Only the last few frames have sources: looking at all would make long movies slow.
    latest = np.array(starts[max(index - 1 - int(candidates.gap.max()), 0) : index])
    before = latest[-1 - candidates.gap]
    choices = Choices(
        weight,
        1.0 / (1.0 + np.exp(-np.where(divides, logits[1] + parameters["division"], logits[0]).clip(-50.0, 50.0))),
        before + candidates.source,
        starts[index] + candidates.target,
        np.where(divides, starts[index] + candidates.sister, -1),
    )
    return choices[weight > 0]


def _key(gap: Integers, source: Integers, target: Integers, targets: int) -> Integers:
    return np.asarray((gap * (int(source.max(initial=0)) + 1) + source) * targets + target)


def _without_idle_gaps(choices: Choices, starts: list[int], index: int, certain: Integers) -> tuple[Choices, Integers]:
    """Drop links over a gap from or to an object that certainly has a link to the adjacent frame.

    A candidate between neighbouring frames that is the best for its source and for its targets is sure: no set of
    links between these frames is better without it.

    Parameters
    ----------
    certain
        Places (see :func:`_incidence`) that sure candidates of the frames before take.

    Returns
    -------
    Choices
        The others.
    numpy.ndarray
        `certain`, and the places that sure candidates of this frame take.
    """
    if len(choices) == 0:
        return choices, certain
    over_gap = choices.source < starts[index - 1]
    near = choices[~over_gap]
    rows, places, _, names = _incidence(near)
    order = np.lexsort((rows, -near.weight[rows], places))
    best = np.zeros(len(rows), bool)
    best[order[np.concatenate(([True], np.diff(places[order]) != 0))] if len(order) else order] = True
    second_best = np.bincount(rows[~best], minlength=len(near)) > 0
    certain = np.concatenate((certain, names[places[~second_best[rows]]]))
    idle = np.isin(choices.source * 2, certain) | np.isin(choices.target * 2 + 1, certain)
    return choices[~(over_gap & idle)], certain


def _settle(choices: Choices, open_from: int) -> tuple[Choices, Choices]:
    """Solve what no later candidate can change; return what was chosen, and the rest."""
    if len(choices) == 0:
        return choices, choices
    group = _groups(choices)
    is_open = np.zeros(int(group.max()) + 1, bool)
    is_open[group[choices.source >= open_from]] = True
    kept = is_open[group]
    return _solve(choices[~kept], group[~kept]), choices[kept]


def _groups(choices: Choices) -> Integers:
    """Return which candidates compete, directly or through others: (M,) numbers of groups."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, places, count, _ = _incidence(choices)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, places + len(choices))), shape=(len(choices) + count,) * 2)
    return np.asarray(connected_components(graph, directed=False)[1][: len(choices)], dtype=np.int64)


def _incidence(choices: Choices) -> tuple[Integers, Integers, int, Integers]:
    """Return which candidates take which of how many places, and what the places are.

    A place is an object's way out, twice its number, or its way in, one more.
    """
    pair = np.flatnonzero(choices.sister >= 0)
    rows = np.concatenate((np.arange(len(choices)), np.arange(len(choices)), pair))
    inward = np.concatenate((choices.target, choices.sister[pair]))
    places = np.concatenate((choices.source * 2, inward * 2 + 1))
    names, places = np.unique(places, return_inverse=True)
    return rows, places, len(names), names


def _solve(choices: Choices, group: Integers) -> Choices:
    """Choose the best candidates of every group."""
    if len(choices) == 0:
        return choices
    # The best of each source is an upper bound; where these do not get in each other's way, it is reached.
    order = np.lexsort((choices.sister, choices.target, -choices.weight, choices.source))
    best = order[np.concatenate(([True], np.diff(choices.source[order]) != 0))]
    taken = np.concatenate((choices.target[best], choices.sister[best]))
    owner = np.concatenate((group[best], group[best]))[taken >= 0]
    taken = taken[taken >= 0]
    _, inverse, counts = np.unique(taken, return_inverse=True, return_counts=True)
    contested = np.zeros(int(group.max()) + 1, bool)
    contested[owner[counts[inverse] > 1]] = True
    chosen = [best[~contested[group[best]]]]
    hard = np.flatnonzero(contested[group])
    hard = hard[np.lexsort((choices.sister[hard], choices.target[hard], choices.source[hard], group[hard]))]
    borders = np.flatnonzero(np.diff(group[hard])) + 1
    chosen += [members[_solve_programme(choices[members])] for members in np.split(hard, borders) if len(members)]
    return choices[np.concatenate(chosen)]


def _solve_programme(choices: Choices) -> NDArray[np.bool_]:
    """Choose the candidates of greatest weight that share no place.

    The optimum where the linear relaxation has integer values, or is small enough for branch and bound. Of a large one
    that a network made which knows little, and whose optimum would take hours, candidates that the relaxation chooses
    wholly are taken (or, if it has none, the heaviest), which usually leaves small programmes. The result depends on
    the candidates only, not on time.
    """
    chosen = np.zeros(len(choices), bool)
    pending = [np.arange(len(choices))]
    while pending:
        part = pending.pop()
        here = choices[part]
        values = _relaxation(here)
        taken = values > 1 - _TOLERANCE
        if (values[~taken] > _TOLERANCE).any():
            exact = _optimum(here) if len(here) <= _EXACT else None
            if exact is not None:
                taken = exact
            elif not taken.any():
                taken = _heaviest(here, values > _TOLERANCE)
        if not taken.any():  # they weigh less than the solver's tolerance
            continue
        chosen[part[taken]] = True
        rows, places, count, _ = _incidence(here)
        used = np.zeros(count, bool)
        used[places[taken[rows]]] = True
        blocked = np.zeros(len(here), bool)
        blocked[rows[used[places]]] = True
        rest = part[~blocked]
        if len(rest):
            group = _groups(choices[rest])
            order = np.argsort(group, kind="stable")
            pending += np.split(rest[order], np.flatnonzero(np.diff(group[order])) + 1)
    return chosen


def _relaxation(choices: Choices) -> NDArray[np.float64]:
    """Return the optimum if candidates could be chosen in part: (M,) from 0 to 1."""
    found = _programme(choices, integer=False)
    if found.x is None:
        raise PlatformError(f"the solver found no links among {len(choices)} candidates: {found.message}")
    return np.asarray(found.x)


def _heaviest(choices: Choices, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the heaviest candidates that share no place, a tenth of those in question."""
    rows, places, _, _ = _incidence(choices)
    takes: list[list[int]] = [[] for _ in range(len(choices))]
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        takes[row].append(place)
    found = np.zeros(len(choices), bool)
    used: set[int] = set()
    left = 1 + int(among.sum()) // 10
    for row in np.argsort(np.where(among, -choices.weight, 0.0), kind="stable")[: int(among.sum())].tolist():
        if left and used.isdisjoint(takes[row]):
            found[row] = True
            used.update(takes[row])
            left -= 1
    return found


def _optimum(choices: Choices) -> NDArray[np.bool_] | None:
    """Return which candidates are the best set; None if branch and bound did not find it within its nodes."""
    found = _programme(choices, integer=True)
    return None if found.x is None or found.status != 0 else np.asarray(found.x > 0.5)


def _programme(choices: Choices, *, integer: bool) -> Any:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    rows, places, count, _ = _incidence(choices)
    matrix = csr_array((np.ones(len(rows)), (places, rows)), shape=(count, len(choices)))
    return milp(
        -choices.weight,
        integrality=np.full(len(choices), int(integer)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(matrix, ub=np.ones(count)),
        options={"mip_rel_gap": 0.0, "node_limit": _NODES} if integer else {},
    )


def _assemble(movie: JudgedMovie, seen: JudgedFrame, starts: Integers, chosen: Choices) -> Lineage:
    """Turn chosen candidates into tracks, numbered in order of their first objects."""
    count, frames, axes = int(starts[-1]), len(starts) - 1, len(movie.shape) - 1
    frame = np.repeat(np.arange(frames), np.diff(starts))
    before = np.full(count, -1)
    sure = np.ones(count)
    pair = chosen.sister >= 0
    for target, of in ((chosen.target, slice(None)), (chosen.sister[pair], pair)):
        before[target] = chosen.source[of]
        sure[target] = chosen.probability[of]
    division = np.full(count, np.nan)
    division[chosen.source[pair]] = chosen.probability[pair]
    goes_on = before >= 0
    goes_on[goes_on] = (frame[goes_on] == frame[before[goes_on]] + 1) & np.isnan(division[before[goes_on]])
    track = np.zeros(count, np.int64)
    track[~goes_on] = np.arange(1, int((~goes_on).sum()) + 1)
    for index in range(frames):
        here = np.arange(starts[index], starts[index + 1])
        here = here[goes_on[here]]
        track[here] = track[before[here]]
    first = np.flatnonzero(~goes_on)
    end = np.zeros(len(first), np.int64)
    np.maximum.at(end, track - 1, frame)
    confidence = np.ones(len(first))
    np.minimum.at(confidence, track - 1, sure)
    ends = np.full(len(first), np.nan, np.float32)
    divided = ~np.isnan(division)
    ends[track[divided] - 1] = division[divided]
    order = np.lexsort((track, frame))
    return Lineage(
        frames=frames,
        shape=movie.shape[1:],
        track_id=np.arange(1, len(first) + 1),
        begin=frame[first],
        end=end,
        parent=np.where(before[first] >= 0, track[before[first]], 0),
        frame=frame[order],
        track=track[order],
        label=seen.labels[order],
        centroid=seen.centroid.reshape(count, axes)[order],
        box=seen.box.reshape(count, 2, axes)[order],
        masks=movie.masks,
        confidence=confidence.astype(np.float32),
        division_confidence=ends,
    )


def _stacked(frames: list[JudgedFrame]) -> JudgedFrame:
    """Lay the objects of frames one after the other."""
    if not frames:
        return JudgedFrame(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    labels, centroid, box = (
        np.concatenate([vars(one)[name] for one in frames]) for name in ("labels", "centroid", "box")
    )
    return JudgedFrame(labels, centroid, box)


def _none() -> Choices:
    return Choices(np.zeros(0), np.zeros(0), *(np.zeros(0, np.int64) for _ in range(3)))


def _joined(parts: list[Choices]) -> Choices:
    return Choices(*(np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])))
