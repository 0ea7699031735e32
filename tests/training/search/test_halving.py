"""When a trial is given up: at like places of the schedule, and by the direction of its score."""

from __future__ import annotations

import pytest

from cytoray_training.recipe import Halving, Training
from cytoray_training.search.halving import is_behind, rungs_of
from cytoray_training.search.study import Member


def trial(name: str, *scores: tuple[float, float], metric: str = "ap50") -> Member:
    """Return a trial by the share of its schedule and the score of each validation."""
    return Member(
        name, scores=tuple({"epoch": at, "progress": place, metric: one} for at, (place, one) in enumerate(scores, 1))
    )


def test_rungs_are_shares_of_the_schedule_and_none_is_at_its_end() -> None:
    assert rungs_of(Halving(grace=1, reduction=3), Training(epochs=10)) == pytest.approx([0.1, 0.3, 0.9])
    assert rungs_of(Halving(grace=1, reduction=3), Training(epochs=9)) == pytest.approx([1 / 9, 1 / 3])
    assert rungs_of(Halving(), Training(epochs=8, validate_every=2)) == pytest.approx([0.25, 0.75])
    assert rungs_of(Halving(grace=8), Training(epochs=8)) == []
    # Each is reached by the epoch that it stands for, however it is rounded.
    rungs = rungs_of(Halving(grace=1), Training(epochs=10))
    assert all(rung <= epoch / 10 for rung, epoch in zip(rungs, (1, 3, 9), strict=True))


def test_a_long_schedule_is_not_given_up_for_being_early_in_it() -> None:
    """Both reach 0.5 at half of their schedules; after four epochs the short one has ended, and is ahead."""
    short = trial("short", (0.25, 0.3), (0.5, 0.5), (0.75, 0.6), (1.0, 0.7))
    long = trial("long", *((at / 16, 0.3 + (at - 4) / 20) for at in range(1, 9)))
    early = trial("long", *((at / 16, 0.3 + (at - 4) / 20) for at in range(1, 5)))
    assert not is_behind(early, [short, early], [0.25, 0.5], 2.0, "ap50")
    assert not is_behind(long, [short, long], [0.25, 0.5], 2.0, "ap50")
    worse = trial("long", *((at / 16, 0.1) for at in range(1, 9)))
    assert is_behind(worse, [short, worse], [0.25, 0.5], 2.0, "ap50")


def test_between_two_validations_the_score_is_linear() -> None:
    one = trial("one", (0.2, 0.4), (0.6, 0.8))
    assert one.after("ap50", 0.4) == pytest.approx(0.6)
    assert one.after("ap50", 0.1) == pytest.approx(0.4)
    assert one.after("ap50", 0.7) is None


@pytest.mark.parametrize(("metric", "behind"), [("ap50", "low"), ("missed", "high")])
def test_who_is_behind_follows_the_direction_of_the_score(metric: str, behind: str) -> None:
    members = [trial("low", (0.5, 0.2), metric=metric), trial("high", (0.5, 0.8), metric=metric)]
    assert [one.name for one in members if is_behind(one, members, [0.5], 2.0, metric)] == [behind]


def test_no_one_is_behind_alone_or_at_the_end_or_between_rungs() -> None:
    best = trial("best", (0.5, 0.9), (1.0, 0.9))
    alone, ended = trial("alone", (0.5, 0.1)), trial("ended", (0.4, 0.1), (1.0, 0.1))
    between = trial("between", (0.5, 0.1), (0.6, 0.1))
    assert not is_behind(alone, [alone], [0.5], 2.0, "ap50")
    assert is_behind(alone, [alone, best], [0.5], 2.0, "ap50")
    assert not is_behind(ended, [ended, best], [0.5], 2.0, "ap50")
    assert not is_behind(between, [between, best], [0.5], 2.0, "ap50")
