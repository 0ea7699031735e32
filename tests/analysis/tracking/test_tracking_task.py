from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cytoray_analysis.augmentation import Augmentation
from cytoray_analysis.examples import EXAMPLES
from cytoray_analysis.images import image_from_array
from cytoray_analysis.networks.pair_network import PairNetwork
from cytoray_analysis.tasks.tracking import Tracking
from cytoray_analysis.tracking.candidates import FEATURES
from cytoray_analysis.tracking.examples import training_examples
from cytoray_analysis.tracking.linking import judge_movie


def test_unknown_candidates_do_not_change_the_loss() -> None:
    task = Tracking()
    outputs = torch.randn(2, 2, 9)
    truth = torch.randint(-1, 2, (2, 2, 9))
    other = torch.where(task.encode(truth) < 0, torch.randn(2, 2, 9), outputs)
    assert task.loss(outputs, task.encode(truth)) == pytest.approx(float(task.loss(other, task.encode(truth))))
    assert task.loss(outputs, task.encode(torch.full((2, 2, 9), -1))) == 0.0


def test_the_truth_as_logits_has_hardly_any_loss() -> None:
    task = Tracking(division_weight=2.0)
    target = task.encode(torch.tensor([[[1, 0, -1], [-1, 1, 0]]]))
    assert float(task.loss((target * 2 - 1) * 9, target)) < 1e-3
    assert float(task.loss((1 - target * 2) * 9, target)) > 9


def test_each_candidate_is_judged_by_itself() -> None:
    network = PairNetwork(inputs=5, outputs=2, widths=(8,)).eval()
    features = torch.randn(1, 5, 12)
    whole = network(features)
    parts = torch.cat([network(features[:, :, :5]), network(features[:, :, 5:])], dim=2)
    assert torch.allclose(whole, parts, atol=1e-6)
    assert network.stride == 1
    assert network.halo == 0


class Table:
    """A table of candidates whose features and truth are their own numbers."""

    def __init__(self, candidates: int) -> None:
        self.shape = (candidates,)
        self.truth = np.arange(candidates, dtype=np.int32)[None].repeat(2, axis=0)

    def read(self, region: tuple[slice, ...]) -> np.ndarray:
        return np.arange(self.shape[0], dtype=np.float32)[None][:, region[0]]


@pytest.mark.parametrize("candidates", [1, 7, 100, 129, 300])
def test_a_stretch_holds_every_candidate_of_a_table_alike(candidates: int) -> None:
    examples, table, length = EXAMPLES["link"], Table(candidates), 128
    seen = np.zeros(candidates)
    for start in range(candidates):
        chance = np.array([(start + 0.5) / candidates])
        window, truth = examples.window(table, table.truth, 0, chance, (length,), Augmentation())
        assert truth.shape == (2, length)
        np.testing.assert_array_equal(window[0], truth[1])
        np.add.at(seen, truth[0], 1)
    np.testing.assert_array_equal(seen, length)


def test_candidates_of_short_and_long_tables_are_drawn_alike() -> None:
    examples, tables = EXAMPLES["link"], [Table(count) for count in (20, 100, 500)]
    weights = np.array([examples.places(table.truth).weights.sum() for table in tables])
    shown = [examples.window(table, table.truth, 0, np.zeros(1), (128,), Augmentation())[1][0] >= 0 for table in tables]
    sightings = weights * [one.sum() / table.shape[0] for one, table in zip(shown, tables, strict=True)]
    np.testing.assert_allclose(sightings, sightings.mean())


def test_a_stretch_of_an_empty_table_is_unknown() -> None:
    table = Table(0)
    window, truth = EXAMPLES["link"].window(table, table.truth, 0, np.zeros(1), (8,), Augmentation())
    assert window.shape == (1, 8)
    assert (truth == -1).all()


@pytest.mark.slow
def test_a_network_learns_a_small_movie_and_links_it(sample: Any) -> None:
    torch.manual_seed(0)
    task = Tracking()
    examples = list(training_examples(sample.movie, sample.masks, sample.truth))
    features = torch.from_numpy(np.concatenate([f for f, _ in examples], axis=1))[None]
    target = task.encode(torch.from_numpy(np.concatenate([t for _, t in examples], axis=1))[None])
    network = PairNetwork(inputs=FEATURES, outputs=task.output.channels, widths=(16,)).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        task.loss(network(features), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    network.eval()

    def scorer(table: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(table)[None])[0])

    judged = judge_movie(sample.movie, sample.masks, scorer).held()
    lineage = task.decode(judged, task.output.defaults()).values
    assert task.score([lineage], [sample.truth])["division_f1"] == 1.0
    assert task.score([lineage], [sample.truth])["tra"] == pytest.approx(1.0)


def test_numbers_of_masks_cost_no_memory_and_change_no_track(sample: Any) -> None:
    def linked(masks: Any) -> Any:
        judged = judge_movie(sample.movie, masks, lambda table: np.full((2, table.shape[1]), 4.0, np.float32))
        task = Tracking()
        return task.decode(judged, task.output.defaults()).values

    plain = linked(sample.masks)
    stored = np.asarray(sample.masks.read())
    far = linked(image_from_array(np.where(stored > 0, stored.astype(np.uint64) + np.uint64(2**52), 0), "TYX"))
    assert np.array_equal(far.table, plain.table)
    assert np.array_equal(far.label, plain.label + 2**52)  # tables give the numbers of the masks
    assert np.array_equal(far.tracked[:], plain.tracked[:])
