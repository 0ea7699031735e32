"""A loss in a subgroup is found, whatever other subgroups there are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice
from cytoray_analysis.images import image_from_array
from cytoray_analysis.predictor import Prediction
from cytoray_analysis.selection import EVERYTHING
from cytoray_analysis.tasks import get_task
from cytoray_services.datasets import DataSource, Item, Labelled
from cytoray_services.kinds.evaluated import Evaluation, ItemScore
from cytoray_services.promotion.evaluation_set import EvaluationSet
from cytoray_services.promotion.gate import judge

TASK = get_task("segmentation")
SPEC = BundleSpec(name="cells", task=TaskChoice(), input=ModelInput(), network=NetworkChoice(name="unet", arguments={}))
CELL = np.pad(np.ones((4, 4), np.int32), 2)


def evaluation(sites: list[str], missed: int) -> Evaluation:
    """Of one cell an image, the first so many are missed."""
    items = []
    for number, site in enumerate(sites):
        answer = CELL * (number >= missed)
        item = Item(Path(f"{number}.tif"), Path(f"{number}-mask.tif"), "test", {"site": site})
        labelled = Labelled((item,), image_from_array(CELL, "YX"), CELL)
        model: Any = SimpleNamespace(task=TASK)
        prediction = Prediction(answer, 1, {}, labelled.image, model)
        items.append(ItemScore(labelled, site, prediction, TASK.score([answer], [CELL])))

    def pooled(chosen: list[ItemScore]) -> dict[str, float]:
        return TASK.score([one.prediction.answer for one in chosen], [one.labelled.truth for one in chosen])

    groups = {site: pooled([one for one in items if one.group == site]) for site in sorted(set(sites))}
    return Evaluation(pooled(items), groups, tuple(items), 0.0, {}, "ap50", score=TASK.score)


@pytest.mark.slow
def test_a_crowd_of_single_images_hides_no_loss() -> None:
    """A third of the cells of the north is lost; 200 sites of one image each can tell nothing, either way."""
    frozen = EvaluationSet(DataSource((Path("data"),), "labels", selection=EVERYTHING), "test", "0" * 64, "site", None)
    for others in (0, 200):
        sites = ["north"] * 12 + [f"site {number}" for number in range(others)]
        judged = judge(evaluation(sites, 4), evaluation(sites, 0), Bundle(Path(), SPEC, "0" * 64), frozen)
        verdicts = {one.name: one.verdict for one in judged.subgroups}
        assert verdicts.pop("site = north") == "worse"
        assert set(verdicts.values()) <= {"unknown"}
