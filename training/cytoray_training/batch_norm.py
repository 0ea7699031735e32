"""Batch norms in training: over the crops of one worker's pass, or over those of all workers' in the same pass.

Passes follow each other: what a later one holds cannot enter the statistics of an earlier one. So a step of many small
passes differs from one of few large ones where there are batch norms, whatever else is summed up over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SynchronisedBatchNorm(_BatchNorm):
    """A batch norm whose statistics are those of all workers' crops, on processors and graphics cards alike.

    PyTorch's own knows graphics cards only. Each worker's mean and variance are combined by their sums of squares,
    weighted by their numbers of values, as workers may have a crop more or less.

    Attributes
    ----------
    apart
        Whether statistics are those of this worker for a while, because the others do not compute along.
    """

    apart: bool = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch calls it
        """Normalise (B, C, …) per channel."""
        if not self.training or self.apart or not distributed.is_initialized():
            normalised: Tensor = super().forward(input)
            return normalised
        values = input.float()
        others = [axis for axis in range(values.ndim) if axis != 1]
        variance, mean = torch.var_mean(values, dim=others, correction=0)
        # About the running mean, which all workers share: squares of large means would drown the variance.
        about = mean.new_zeros(()) if self.running_mean is None else self.running_mean.clone()
        size = mean.new_full((1,), float(values.numel() // values.shape[1]))
        sums = torch.cat((size, size * (mean - about), size * (variance + (mean - about) ** 2)))
        total = _over_workers(sums)
        count = total[0]
        shift, square = (total[1:] / count).chunk(2)
        mean, variance = about + shift, square - shift**2
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance.clamp(min=0) + self.eps)
        if self.weight is not None:
            scale = scale * self.weight.float()
        offset = -mean * scale if self.bias is None else self.bias.float() - mean * scale
        shape = [-1 if axis == 1 else 1 for axis in range(values.ndim)]
        return (values * scale.view(shape) + offset.view(shape)).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Take any number of spatial axes."""

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance, rate)


class _OverWorkers(torch.autograd.Function):
    """The sum over workers, of which each worker's loss takes its gradient."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


def _over_workers(values: Tensor) -> Tensor:
    total: Tensor = _OverWorkers.apply(values)  # type: ignore[no-untyped-call]
    return total


def synchronised(network: nn.Module) -> nn.Module:
    """Return the network with its batch norms made into synchronised ones of the same names, weights and buffers."""
    if isinstance(network, _BatchNorm):
        return _as_synchronised(network)
    for name, child in network.named_children():
        setattr(network, name, synchronised(child))
    return network


def _as_synchronised(norm: _BatchNorm) -> SynchronisedBatchNorm:
    other = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for name, parameter in norm.named_parameters():
        other.register_parameter(name, parameter)
    for name, buffer in norm.named_buffers():
        other.register_buffer(name, buffer)
    return other.train(norm.training)


@contextmanager
def apart(network: nn.Module) -> Iterator[None]:
    """Let each worker compute by itself: it need not take as many passes through the network as the others."""
    norms = [module for module in network.modules() if isinstance(module, SynchronisedBatchNorm)]
    for norm in norms:
        norm.apart = True
    try:
        yield
    finally:
        for norm in norms:
            norm.apart = False


def takes_statistics(network: nn.Module) -> bool:
    """Whether a network in training has batch norms that look at its crops; those of a frozen trunk stand still."""
    return any(isinstance(module, _BatchNorm) and module.training for module in network.train().modules())
