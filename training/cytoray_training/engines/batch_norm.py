"""Batch norms in training: over the crops of one worker's pass, or over those of all workers in the same pass.

Passes are sequential: a later pass cannot contribute to the statistics of an earlier one. So with batch norms, a step
of many small passes differs from one of few large passes, although all other sums agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SynchronisedBatchNorm(_BatchNorm):
    """A batch norm with statistics over the crops of all workers, on CPUs and GPUs.

    PyTorch's own supports only GPUs. Each worker's mean and variance are combined by their sums of squares, weighted by
    their numbers of values, because workers may differ by one crop.

    Attributes
    ----------
    apart
        Whether statistics are temporarily those of this worker, because the others do not compute the same pass.
    """

    apart: bool = False

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise (B, C, …) per channel."""
        if not self.training or self.apart or not distributed.is_initialized():
            normalised: Tensor = super().forward(input)
            return normalised
        values = input.float()
        others = [axis for axis in range(values.ndim) if axis != 1]
        variance, mean = torch.var_mean(values, dim=others, correction=0)
        # Relative to the shared running mean: squares of large means would dominate the variance.
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
        """Accept any number of spatial axes."""

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, rate)
        self.running_var.lerp_(variance, rate)


class _OverWorkers(torch.autograd.Function):
    """The sum over workers, differentiable for each worker's loss."""

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
    """Return the network with synchronised batch norms of the same names, weights and buffers."""
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
    """Let each worker compute independently: its number of passes may differ from the others."""
    norms = [module for module in network.modules() if isinstance(module, SynchronisedBatchNorm)]
    for norm in norms:
        norm.apart = True
    try:
        yield
    finally:
        for norm in norms:
            norm.apart = False


def takes_statistics(network: nn.Module) -> bool:
    """Whether a network in training has batch norms with batch statistics; those of a frozen trunk are fixed."""
    return any(isinstance(module, _BatchNorm) and module.training for module in network.train().modules())
