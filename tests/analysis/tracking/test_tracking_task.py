from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

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
