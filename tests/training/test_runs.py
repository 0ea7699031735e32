"""Which run a command writes to."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from cytoray_analysis.errors import TrainingError
from cytoray_training.plan import Plan
from cytoray_training.runs import claim_run

MakePlan = Callable[..., Plan]


def test_an_interrupted_run_is_gone_on_with(make_plan: MakePlan) -> None:
    with claim_run(make_plan(), fresh=False) as first:
        assert first.run_id is None
        first.noting(run_id="abc")
    with claim_run(make_plan(), fresh=False) as second:
        assert (second.folder, second.run_id) == (first.folder, "abc")
    assert re.fullmatch(r"tiny-[0-9a-f]{12}-1", first.folder.name)


def test_a_finished_run_is_not(make_plan: MakePlan) -> None:
    with claim_run(make_plan(), fresh=False) as first:
        first.noting(run_id="abc", finished=True)
    with claim_run(make_plan(), fresh=False) as second:
        assert second.run_id is None
        assert second.folder.name.endswith("-2")


def test_fresh_begins_anew(make_plan: MakePlan) -> None:
    with claim_run(make_plan(), fresh=False) as first:
        first.noting(run_id="abc")
    with claim_run(make_plan(), fresh=True) as second:
        assert second.folder != first.folder
        assert second.run_id is None


def test_another_recipe_is_another_run_but_more_workers_are_not(make_plan: MakePlan) -> None:
    with claim_run(make_plan(), fresh=False) as first, claim_run(make_plan(seed=1), fresh=False) as other:
        assert first.folder.name[:-2] != other.folder.name[:-2]
    assert make_plan(scale={"workers": 2}).identity == make_plan().identity


def test_two_processes_do_not_train_the_same_run(make_plan: MakePlan) -> None:
    with (
        claim_run(make_plan(), fresh=False),
        pytest.raises(TrainingError, match="another process"),
        claim_run(make_plan(), fresh=False),
    ):
        pass
