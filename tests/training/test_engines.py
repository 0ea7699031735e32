"""Plain PyTorch and DeepSpeed at every ZeRO stage compute the same, and continue each other's checkpoints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, multiprocessing, nn

from cytoray_services.free_ports import free_port
from cytoray_training.engines.build import build_engine
from cytoray_training.engines.engine import Engine, Step
from cytoray_training.recipe import Training

Kind = tuple[Literal["torch", "deepspeed"], int]
TORCH: Kind = ("torch", 0)
KINDS: list[Kind] = [TORCH, ("deepspeed", 0), ("deepspeed", 1), ("deepspeed", 2), ("deepspeed", 3)]
CPU = torch.device("cpu")
RATE = 1e-2


def network() -> nn.Module:
    torch.manual_seed(0)
    # Odd sizes, so that no tensor divides evenly among workers.
    return nn.Sequential(
        nn.Conv2d(1, 13, 3, padding=1, bias=False), nn.BatchNorm2d(13), nn.ReLU(), nn.Conv2d(13, 3, 3, padding=1)
    )


def network_without_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(1, 3, 3, padding=1)


def squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs - target).square().mean()


def crops(step: int, count: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.rand(count, 1, 16, 16, generator=generator), torch.rand(count, 3, 16, 16, generator=generator)


def uneven(step: int, rank: int) -> list[tuple[Tensor, Tensor]]:
    """Divide the four crops of a step among two workers, three of them for the first."""
    images, target = crops(step)
    mine = slice(0, 3) if rank == 0 else slice(3, 4)
    return [(images[mine], target[mine])]


def passes(step: int, accumulate: int, rank: int = 0, world: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Divide the four crops of a step among workers and passes."""
    images, target = crops(step)
    size = 4 // (accumulate * world)
    starts = [(index * world + rank) * size for index in range(accumulate)]
    return [(images[start : start + size], target[start : start + size]) for start in starts]


def engine_of(
    kind: Kind,
    *,
    precision: Literal["fp32", "bf16"] = "fp32",
    accumulate: int = 2,
    world: int = 1,
    state: dict[str, Tensor] | None = None,
) -> Engine:
    training = Training(
        engine=kind[0], zero_stage=kind[1], precision=precision, accumulate=accumulate, gradient_clip=0.1, batch_size=4
    )
    return build_engine(network(), squared_error, training, crops=4 // (accumulate * world), device=CPU, state=state)


def run(engine: Engine, steps: range, accumulate: int = 2) -> list[Step]:
    return [engine.step(passes(step, accumulate), RATE) for step in steps]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS[1:], ids=lambda kind: f"zero{kind[1]}")
def test_deepspeed_computes_what_torch_computes(kind: Kind, precision: Literal["fp32", "bf16"]) -> None:
    expected = run(engine_of(TORCH, precision=precision), range(5))
    steps = run(engine_of(kind, precision=precision), range(5))
    assert [s.loss for s in steps] == pytest.approx([s.loss for s in expected], rel=1e-4)
    assert [s.gradient_norm for s in steps] == pytest.approx([s.gradient_norm for s in expected], rel=1e-3)
    assert steps[0].gradient_norm > 0.1  # so that clipping was part of it


def test_bf16_is_really_used() -> None:
    exact, rounded = (run(engine_of(TORCH, precision=precision), range(1))[0] for precision in ("fp32", "bf16"))
    assert exact.loss != rounded.loss
    assert exact.loss == pytest.approx(rounded.loss, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [TORCH, ("deepspeed", 1)], ids=["torch", "zero1"])
def test_accumulated_passes_equal_one_pass_without_batch_statistics(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "network", network_without_batch_norm)
    whole = run(engine_of(kind, accumulate=1), range(3), accumulate=1)
    parts = run(engine_of(kind, accumulate=4), range(3), accumulate=4)
    assert [s.loss for s in parts] == pytest.approx([s.loss for s in whole], rel=1e-5)
    assert [s.gradient_norm for s in parts] == pytest.approx([s.gradient_norm for s in whole], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}{kind[1]}")
def test_an_engine_goes_on_from_its_state_as_if_never_stopped(kind: Kind) -> None:
    engine = engine_of(kind)
    run(engine, range(3))
    state = engine.state()
    resumed = engine_of(kind, state=state)
    again = resumed.state()
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert run(resumed, range(3, 6)) == run(engine, range(3, 6))


@pytest.mark.slow
@pytest.mark.parametrize("writer", KINDS, ids=lambda kind: f"{kind[0]}{kind[1]}")
def test_any_engine_continues_the_checkpoint_of_any_other(writer: Kind) -> None:
    engine = engine_of(writer)
    run(engine, range(3))
    state = engine.state()
    losses = [[s.loss for s in run(engine_of(reader, state=state), range(3, 6))] for reader in KINDS]
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-4)


def test_the_average_follows_the_weights_and_lags_behind() -> None:
    engine = engine_of(TORCH)
    begin = {name: value.clone() for name, value in engine.weights().items()}
    run(engine, range(10))
    average, weights = engine.average(), engine.weights()
    moved = (weights["3.weight"] - begin["3.weight"]).norm()
    assert 0 < (average["3.weight"] - weights["3.weight"]).norm() < moved
    assert network().load_state_dict(average)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0]}{kind[1]}")
def test_passes_of_unequal_size_count_by_their_crops(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "network", network_without_batch_norm)
    whole = run(engine_of(kind, accumulate=1), range(3), accumulate=1)
    engine = engine_of(kind, accumulate=2)
    parts = [engine.step([*uneven(step, 0), *uneven(step, 1)], RATE) for step in range(3)]
    assert [s.loss for s in parts] == pytest.approx([s.loss for s in whole], rel=1e-5)
    assert [s.gradient_norm for s in parts] == pytest.approx([s.gradient_norm for s in whole], rel=1e-5)


@dataclass(frozen=True)
class Job:
    folder: Path
    port: int


def _worker(rank: int, job: Job) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{job.port}", rank=rank, world_size=2)
    for kind in KINDS:
        engine = engine_of(kind, world=2)
        losses = [engine.step(passes(step, 2, rank, 2), RATE).loss for step in range(3)]
        state = engine.state()
        resumed = engine_of(kind, world=2, state=state)
        again = resumed.state()
        assert all(torch.equal(again[name], state[name]) for name in state)
        losses += [resumed.step(passes(step, 2, rank, 2), RATE).loss for step in range(3, 5)]
        tensors = {"losses": torch.tensor(losses)} | (state if rank == 0 else {})
        save_file(tensors, job.folder / f"{kind[0]}{kind[1]}-{rank}.safetensors")
    globals()["network"] = network_without_batch_norm
    for kind in KINDS:
        engine = engine_of(kind, accumulate=1, world=2)
        norms = [engine.step(uneven(step, rank), RATE).gradient_norm for step in range(3)]
        save_file({"norms": torch.tensor(norms)}, job.folder / f"uneven-{kind[0]}{kind[1]}-{rank}.safetensors")
    distributed.destroy_process_group()


@pytest.mark.ray  # no Ray, but as slow: two processes that import DeepSpeed
def test_two_workers_agree_at_every_stage_and_one_goes_on_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn: Callable[..., object] = multiprocessing.spawn  # type: ignore[attr-defined]
    spawn(_worker, args=(Job(tmp_path, free_port()),), nprocs=2)
    expected = load_file(tmp_path / "torch0-0.safetensors")
    losses = [expected.pop("losses"), load_file(tmp_path / "torch0-1.safetensors")["losses"]]
    assert not torch.equal(*losses)  # each had crops of its own
    for name, stage in KINDS:
        state = load_file(tmp_path / f"{name}{stage}-0.safetensors")
        torch.testing.assert_close(state.pop("losses"), losses[0])
        torch.testing.assert_close(load_file(tmp_path / f"{name}{stage}-1.safetensors")["losses"], losses[1])
        assert {key: value.shape for key, value in state.items()} == {k: v.shape for k, v in expected.items()}
        assert len(run(engine_of(TORCH, state=state), range(3, 5))) == 2
    # Three crops on one worker and one on the other have the gradient of all four on one.
    monkeypatch.setattr(sys.modules[__name__], "network", network_without_batch_norm)
    alone = torch.tensor([step.gradient_norm for step in run(engine_of(TORCH, accumulate=1), range(3), accumulate=1)])
    for name, stage in KINDS:
        for rank in range(2):
            norms = load_file(tmp_path / f"uneven-{name}{stage}-{rank}.safetensors")["norms"]
            torch.testing.assert_close(norms, alone, rtol=1e-4, atol=0.0)


class OddNetwork(nn.Module):
    """More than a bucket of weights, and an odd number of them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, 3, padding=1)  # 30 weights
        self.table = nn.Parameter(torch.zeros(2**20 + 1))

    def forward(self, image: Tensor) -> Tensor:
        outputs: Tensor = self.convolution(image) + self.table[0]
        return outputs


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 2])
def test_a_network_with_an_odd_number_of_weights_is_trained(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "network", OddNetwork)
    losses = [step.loss for step in run(engine_of(("deepspeed", stage)), range(3))]
    assert losses[-1] < losses[0]
