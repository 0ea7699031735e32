"""Batch norms: synchronised ones compute what PyTorch's do, and those that see few crops are warned of."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, distributed, nn

from cytoray_training.data.batches import fewest_crops
from cytoray_training.diagnosis.findings import find
from cytoray_training.diagnosis.reading import read_facts
from cytoray_training.engines.batch_norm import synchronised, takes_statistics
from cytoray_training.plan.plan import Plan
from cytoray_training.recipe import parse_recipe, recipe_hash
from cytoray_training.run.loop import train
from cytoray_training.run.progress_bar import ProgressBar
from cytoray_training.run.reporter import PROGRESS, FolderReporter

MakePlan = Callable[..., Plan]
CPU = torch.device("cpu")


@pytest.fixture
def _alone() -> Iterator[None]:
    """Make a process group of this process."""
    ours = not distributed.is_initialized()  # DeepSpeed leaves one behind
    if ours:
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    if ours:
        distributed.destroy_process_group()


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(3, affine=False), (5, 3)),
        (nn.BatchNorm1d(3), (5, 3, 7)),
        (nn.BatchNorm2d(3, momentum=None), (5, 3, 6, 6)),
        (nn.BatchNorm3d(3), (2, 3, 4, 6, 6)),
    ],
)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_synchronised_batch_norm_computes_what_pytorchs_does(
    norm: nn.Module, shape: tuple[int, ...], precision: torch.dtype
) -> None:
    found: dict[bool, list[Tensor]] = {}
    for together in (False, True):
        # Far from zero, where sums of squares would lose the variance.
        images = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 30).to(precision).requires_grad_()
        network: nn.Module = nn.Sequential(copy.deepcopy(norm))
        network = synchronised(network) if together else network
        for _ in range(3):
            out = network.train()(images)
        (out.float() ** 3).sum().backward()
        assert images.grad is not None
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        found[together] = [out, images.grad, *gradients, *network.buffers(), network.eval()(images)]
    tolerance = 1e-3 if precision == torch.float32 else 0.1
    for one, other in zip(found[True], found[False], strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_names_and_weights_stay_when_batch_norms_are_synchronised() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))
    before = network.state_dict()
    after = synchronised(network).state_dict()
    assert after.keys() == before.keys()
    assert all(after[name].data_ptr() == value.data_ptr() for name, value in before.items())


def test_a_network_takes_statistics_where_a_batch_norm_is_in_training() -> None:
    class Still(nn.Sequential):
        def train(self, mode: bool = True) -> Still:
            return super().train(False)

    assert takes_statistics(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)))
    assert not takes_statistics(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU()))
    assert not takes_statistics(nn.Sequential(Still(nn.BatchNorm2d(3)), nn.ReLU()))


@pytest.mark.parametrize(
    ("world", "accumulate", "together", "expected"),
    [(1, 1, False, 16), (1, 5, False, 3), (3, 1, False, 5), (3, 1, True, 16), (3, 2, False, 2), (3, 2, True, 7)],
)
def test_the_fewest_crops_that_a_batch_norm_sees(world: int, accumulate: int, together: bool, expected: int) -> None:
    assert fewest_crops(16, world, accumulate, together=together) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "crops"), [(1, None), (2, 2), (4, 1)])
def test_a_training_whose_batch_norms_see_few_crops_says_so_at_its_start_and_in_its_diagnosis(
    make_plan: MakePlan, tmp_path: Path, accumulate: int, crops: int | None
) -> None:
    train(make_plan(epochs=1, accumulate=accumulate), FolderReporter(tmp_path), device=CPU)
    lines = [json.loads(line) for line in (tmp_path / PROGRESS).read_text(encoding="utf-8").splitlines()]
    warnings = [line for line in lines if line["stage"] == "warning"]
    named = [finding for finding in find(read_facts(tmp_path)) if finding.name == "few-crops-per-norm"]
    if crops is None:
        assert not warnings
        assert not named
    else:
        (warning,), (finding,) = warnings, named
        assert f" {crops} crop" in warning["text"]
        assert finding.evidence in warning["text"]
        assert "training.accumulate" in finding.remedy
        assert finding.remedy in warning["text"]
        assert lines.index(warning) < min(place for place, line in enumerate(lines) if line["stage"] == "training")


def test_a_warning_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    bar = ProgressBar(3, "ap50")
    monkeypatch.setattr(bar, "_console", Console(file=shown, width=200))
    for _ in range(2):
        bar.show({"stage": "warning", "text": "few crops (training.batch_norm: synchronised)"})
    assert shown.getvalue().splitlines() == ["warning: few crops (training.batch_norm: synchronised)"]


def test_recipes_of_before_keep_their_hash_and_synchronised_ones_have_another() -> None:
    def digest(**training: Any) -> str:
        return recipe_hash(parse_recipe({"model": {"name": "a"}, "data": {"root": "/x"}, "training": training}))

    assert digest() == digest(batch_norm="local")
    assert digest() != digest(batch_norm="synchronised")
