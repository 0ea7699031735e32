"""A task's loss as fractions: a step computes the sums in parts, and divides each by what all of them hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A sum of fractions whose denominators depend on the target only.

    So a batch may be divided among workers and passes: with the amounts of the whole batch as denominators, the losses
    of its parts, and their gradients, add up to those of the batch.

    Attributes
    ----------
    sums
        Maps outputs (float32) and target of some crops to the numerators, (K,).
    amounts
        Maps the target to how much there is to be a mean over, such as known pixels, cells or crops, (M,) float32. Of
        several parts the amounts add up.
    denominators
        Maps the amounts of the whole batch to the denominators, (K,).
    """

    sums: Callable[[Tensor, Tensor], Tensor]
    amounts: Callable[[Tensor], Tensor]
    denominators: Callable[[Tensor], Tensor] = lambda amounts: amounts.clamp(min=1)

    def __call__(self, outputs: Tensor, target: Tensor, of: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar; its part of a larger batch's where `of` gives the amounts of that."""
        amounts = self.amounts(target) if of is None else of
        return (self.sums(outputs, target) / self.denominators(amounts)).sum()


def mean_over_crops(mean: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Return a plain function of outputs and target, a mean over crops that count alike, as a loss of parts."""
    return Loss(
        lambda outputs, target: mean(outputs, target).reshape(1) * len(target),
        lambda target: torch.full((1,), float(len(target)), device=target.device),
    )


def counted(*amounts: Tensor) -> Tensor:
    """Stack counts and sums of any type to amounts, (K,) float32."""
    return torch.stack([amount.float() for amount in amounts])
