"""A step is the same in one part or in many: passes after each other, workers beside each other, uneven ones too."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, multiprocessing, nn

from cytoray_analysis.tasks import (
    Classification,
    InstanceSegmentation,
    LabelFree,
    SemanticSegmentation,
    Task,
    Tracking,
)
from cytoray_services.free_ports import free_port
from cytoray_training.engines.batch_norm import apart
from cytoray_training.engines.build import build_engine
from cytoray_training.engines.engine import Engine
from cytoray_training.recipe import Training

Kind = tuple[Literal["torch", "deepspeed"], int]
KINDS: list[Kind] = [("torch", 0), ("deepspeed", 0), ("deepspeed", 1), ("deepspeed", 2), ("deepspeed", 3)]
CPU = torch.device("cpu")
CROPS = 8


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Case:
    """A task, a network's last layer for it, and a batch whose crops hold very different amounts of everything."""

    task: Task
    layer: Callable[[], nn.Module]
    images: Tensor
    truth: Tensor


def batch() -> tuple[Tensor, Tensor]:
    """Return images, and labels of none to seven objects; the first crop lies half beyond its image."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(CROPS, 32, 32, dtype=torch.int64)
    for crop in range(CROPS):
        for number in range(1, crop + 1):
            y, x = (int(place) for place in torch.randint(0, 28, (2,), generator=generator))
            labels[crop, y : y + 4, x : x + crop] = number
    labels[0, :, :16] = -1
    return torch.rand(CROPS, 1, 32, 32, generator=generator), labels


def links() -> tuple[Tensor, Tensor]:
    """Return features of candidates, and links of which few are divisions."""
    generator = torch.Generator().manual_seed(1)
    truth = torch.randint(0, 2, (CROPS, 2, 16), generator=generator)
    truth[:, 1], truth[2, 0, 4:] = -1, -1
    truth[1, 1, :2] = 1
    return torch.rand(CROPS, 3, 16, generator=generator), truth


def case(name: str) -> Case:
    images, labels = batch()
    stain = images * torch.arange(1.0, CROPS + 1).view(-1, 1, 1, 1)
    stain[0, :, :, :16] = torch.nan
    kinds = torch.tensor([0, 0, 0, 0, 0, 0, 1, 2])
    classification = Classification(classes=("a", "b", "c"), counts=(60, 10, 10), class_weights="balanced")
    flat = lambda: nn.Sequential(nn.Flatten(), nn.Linear(1024, 3))  # noqa: E731
    cases: dict[str, Callable[[], Case]] = {
        "segmentation": lambda: Case(InstanceSegmentation(small_weight=2.0), lambda: convolution(3), images, labels),
        "semantic": lambda: Case(SemanticSegmentation(), lambda: convolution(2), images, labels.clamp(max=1)),
        "label-free": lambda: Case(
            LabelFree(loss={"mse": 1.0, "ms_ssim": 1.0}, uncertainty=True), lambda: convolution(2), images, stain
        ),
        "tracking": lambda: Case(Tracking(), lambda: nn.Conv1d(3, 2, 1), *links()),
        "classes": lambda: Case(classification, flat, images, kinds),
    }
    return cases[name]()


def convolution(outputs: int, inputs: int = 1) -> nn.Module:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def normed() -> nn.Module:
    # Odd sizes, so that no tensor divides evenly among workers.
    return nn.Sequential(nn.Conv2d(1, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5), nn.ReLU(), convolution(3, 5))


def engine_of(case: Case, kind: Kind, sizes: Sequence[int], **training: Any) -> Engine:
    torch.manual_seed(0)
    settings = Training(
        engine=kind[0],
        zero_stage=kind[1],
        precision="fp32",
        batch_size=CROPS,
        accumulate=1,
        gradient_clip=1e9,
        **training,
    )
    return build_engine(case.layer(), case.task.loss, settings, crops=max(sizes), passes=len(sizes), device=CPU)


def parts(case: Case, sizes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    pieces = zip(torch.split(case.images, list(sizes)), torch.split(case.truth, list(sizes)), strict=True)
    return [(images, case.task.encode(truth)) for images, truth in pieces]


def stepped(case: Case, kind: Kind, sizes: Sequence[int], mine: slice = slice(None), **training: Any) -> Engine:
    """Take three steps, of which the later depend on the weights that the first leave behind."""
    engine = engine_of(case, kind, sizes[mine], **training)
    for _ in range(3):
        engine.step(parts(case, sizes)[mine], 1e-2)
    return engine


@pytest.mark.parametrize("sizes", [(4, 4), (3, 3, 2), (1,) * CROPS], ids=len)
@pytest.mark.parametrize("name", ["segmentation", "semantic", "label-free", "tracking", "classes"])
def test_passes_have_the_gradient_of_their_union(name: str, sizes: tuple[int, ...]) -> None:
    one = case(name)
    gradients = []
    for division in ((CROPS,), sizes):
        engine = engine_of(one, KINDS[0], division)
        network = engine.network.double()  # in single precision convolutions of other sizes differ by 1e-5
        part = engine.part(parts(one, division))
        for images, target in parts(one, division):
            part(network(images.double()), target).backward()  # type: ignore[no-untyped-call]
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}{kind[1]}")
def test_passes_take_the_step_of_their_union_and_tell_its_loss(kind: Kind) -> None:
    one = case("tracking")
    whole, divided = engine_of(one, KINDS[0], (CROPS,)), engine_of(one, kind, (3, 3, 2))
    for _ in range(3):
        expected = whole.step(parts(one, (CROPS,)), 1e-2)
        found = divided.step(parts(one, (3, 3, 2)), 1e-2)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)
    assert divided.loss_of(parts(one, (3, 3, 2))) == pytest.approx(whole.loss_of(parts(one, (CROPS,))), rel=1e-5)


@dataclass(frozen=True)
class Job:
    folder: Path
    port: int


UNEVEN = {0: (3, 2), 1: (2, 1)}  # crops of the passes of each of two workers; the second takes what the first leaves
SIZES = (*UNEVEN[0], *UNEVEN[1])


def _worker(rank: int, job: Job) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{job.port}", rank=rank, world_size=2)
    mine = slice(2 * rank, 2 * rank + 2)
    for kind in KINDS:
        for name in ("tracking", "segmentation"):
            weights = stepped(case(name), kind, SIZES, mine).weights()
            if rank == 0:
                save_file(weights, job.folder / f"{name}-{kind[0]}{kind[1]}.safetensors")
        segmentation = case("segmentation")
        one = Case(segmentation.task, normed, segmentation.images, segmentation.truth)
        engine = stepped(one, kind, (5, 3), slice(rank, rank + 1), batch_norm="synchronised")
        weights = engine.weights()
        if rank == 0:
            save_file(weights, job.folder / f"normed-{kind[0]}{kind[1]}.safetensors")
            with apart(engine.network):  # the other does not compute along
                engine.network(segmentation.images)
    distributed.destroy_process_group()


@pytest.mark.ray  # no Ray, but as slow: two processes that import DeepSpeed
def test_two_workers_take_the_steps_of_one_and_share_the_statistics_of_batch_norms(tmp_path: Path) -> None:
    spawn: Callable[..., object] = multiprocessing.spawn  # type: ignore[attr-defined]
    spawn(_worker, args=(Job(tmp_path, free_port()),), nprocs=2)
    segmentation = case("segmentation")
    cases = {
        "tracking": case("tracking"),
        "segmentation": segmentation,
        "normed": Case(segmentation.task, normed, segmentation.images, segmentation.truth),
    }
    for name, one in cases.items():
        expected = stepped(one, KINDS[0], (CROPS,)).weights()
        for kind in KINDS:
            found = load_file(tmp_path / f"{name}-{kind[0]}{kind[1]}.safetensors")
            assert found.keys() == expected.keys()
            for key, value in expected.items():
                torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-4, msg=f"{name} {kind} {key}")
