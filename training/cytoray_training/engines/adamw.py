"""The AdamW (arXiv:1711.05101) of both engines: learning rates of parameter groups, and moments by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cytoray_training.recipe import Training

State = dict[str, Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Trunk:
    """The part of a network that started from another model.

    Attributes
    ----------
    prefixes
        Prefixes of the names of its parameters.
    rate
        Its learning rate relative to the rest; frozen parameters have no gradient and no optimizer state.
    """

    prefixes: tuple[str, ...] = ()
    rate: float = 1.0

    def holds(self, name: str) -> bool:
        """Whether a parameter with this name is part of it."""
        return name.startswith(tuple(f"{prefix}." for prefix in self.prefixes))


WHOLE = Trunk()  # no weights were taken over


def build_optimizer(network: nn.Module, training: Training, trunk: Trunk = WHOLE) -> torch.optim.AdamW:
    """Make the optimizer: weight decay on matrices and kernels only."""
    named = trainable(network)
    groups = [
        {
            "params": [p for name, p in named if (p.ndim > 1) == matrices and trunk.holds(name) == inside],
            "weight_decay": training.weight_decay if matrices else 0.0,
            "rate": trunk.rate if inside else 1.0,
        }
        for inside in (False, True)
        for matrices in (True, False)
    ]
    kept = [group for group in groups if group["params"]]
    return torch.optim.AdamW(kept, lr=training.learning_rate, fused=True)


def trainable(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the names of the parameters with a gradient; those of a frozen trunk have none."""
    return [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]


def set_learning_rate(groups: Iterable[dict[str, Any]], learning_rate: float) -> None:
    """Set the learning rate of every parameter group, times the group's own ``rate``."""
    for group in groups:
        group["lr"] = learning_rate * group["rate"]


def moments_of(optimizer: torch.optim.Optimizer, network: nn.Module) -> State:
    """Return the moments of an optimizer of the network's own parameters, keyed ``moment/name``."""
    return {
        f"{moment}/{name}": optimizer.state[parameter][moment].detach().to("cpu", copy=True).contiguous()
        for name, parameter in trainable(network)
        for moment in MOMENTS
    }


def set_moments(
    optimizer: torch.optim.Optimizer, network: nn.Module, moments: Mapping[str, Tensor], steps: int
) -> None:
    """Undo :func:`moments_of`."""
    for name, parameter in trainable(network):
        optimizer.state[parameter] = {"step": step_count(steps, parameter)} | {
            moment: moments[f"{moment}/{name}"].to(parameter.device).clone() for moment in MOMENTS
        }


def step_count(steps: int, like: Tensor) -> Tensor:
    """Return AdamW's step counter as its fused implementation stores it."""
    return torch.tensor(float(steps), dtype=torch.float32, device=like.device)
