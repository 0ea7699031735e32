"""Plain PyTorch and DeepSpeed behind the same four methods: ``step``, ``state``, ``weights``, ``average``.

A step is divided among workers and passes. The denominators of its loss are summed over all of them first, so loss and
gradient equal those of one large batch, except for batch norms; see :mod:`cytoray_training.engines.batch_norm`.

Both keep fp32 master weights, run the network under autocast, clip the mean gradient and take the same
``torch.optim.AdamW`` step, so they differ in the location of tensors but not in the computation. They also save the
same format: full fp32 tensors by parameter name. A checkpoint of one engine, ZeRO stage and number of workers can be
continued by any other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cytoray_analysis.devices import choose_precision
from cytoray_analysis.errors import PlatformError
from cytoray_analysis.tasks.loss import Loss
from cytoray_training.engines.adamw import (
    WHOLE,
    State,
    Trunk,
    build_optimizer,
    moments_of,
    set_learning_rate,
    set_moments,
)
from cytoray_training.recipe import Training

Mean = Callable[[Tensor, Tensor], Tensor]  # parts of the loss, from outputs float32 and target
Passes = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Step:
    """The result of one optimizer step: the loss, and the norm of its gradient before clipping.

    The loss is that of this worker's crops, scaled to the whole step; the gradient is that of all crops.
    """

    loss: float
    gradient_norm: float


class Engine(ABC):
    """A network in training.

    Parameters
    ----------
    network
        The network, in fp32, with the weights to start from.
    loss
        The loss of a task, which a step computes in parts.
    training
        The recipe's section.
    device
        The device of the network.
    """

    def __init__(self, network: nn.Module, loss: Loss, training: Training, device: torch.device) -> None:
        self.network = network.to(device)
        self.loss = loss
        self.training = training
        self.device = device
        self.precision = autocast_dtype(training.precision, device)
        self.steps = 0
        self._average: list[Tensor] = []

    def step(self, passes: Passes, learning_rate: float) -> Step:
        """Take one optimizer step from passes of (images, target), each on this device.

        All workers have the same number of passes, with ``training.batch_size`` crops in total. If these do not divide
        evenly, some passes have one crop less. The loss is always that of all crops together.
        """
        self.network.train()
        losses, norm = self._update(passes, self.part(passes), learning_rate)
        if math.isfinite(norm):  # else this was the last step, and the average stays valid
            self.steps += 1
            self._update_average()
        return Step(self._mean(losses, passes), float(norm))

    def part(self, passes: Passes) -> Mean:
        """Return the part of a pass in the loss of the step; the parts of all passes add up to it.

        Every worker must call it: the amounts in the denominators are those of the whole step.
        """
        amounts = torch.stack([self.loss.amounts(target) for _, target in passes]).sum(0)
        if world_size() > 1:
            distributed.all_reduce(amounts)
        return partial(self.loss, of=amounts)

    def share(self, passes: Passes) -> float:
        """Return this worker's number of crops divided by the mean over workers."""
        return world_size() * sum(len(images) for images, _ in passes) / self.training.batch_size

    @torch.no_grad()
    def loss_of(self, passes: Passes) -> float:
        """Return the loss of a step as :class:`Step` does, without side effects. Every worker must call it."""
        part = self.part(passes)
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        self.network.train()
        losses = []
        for images, target in passes:
            with self._autocast():
                outputs = self.network(images)
            losses.append(part(outputs.float(), target))
        for buffer, before in buffers:  # batch norms have already counted these crops
            buffer.copy_(before)
        return self._mean(losses, passes)

    def _mean(self, parts: Sequence[Tensor], passes: Passes) -> float:
        """Return the loss from the parts of this worker's passes, if any."""
        return world_size() * float(sum(parts)) / self.share(passes[: len(parts)])

    def local_weights(self) -> list[tuple[str, Tensor]]:
        """Return this worker's part of each parameter, which steps change in place."""
        return [(name, self._local(parameter)) for name, parameter in self.network.named_parameters()]

    def _autocast(self) -> torch.autocast:
        dtype = self.precision
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def state(self) -> State:
        """Return everything needed to continue training, full fp32 on the CPU. Every worker must call it."""
        state = {f"weights/{name}": value for name, value in self.weights().items()}
        state |= {f"average/{name}": value for name, value in self.average().items()}
        if self.steps:
            state |= {f"optimizer/{name}": value for name, value in self._moments().items()}
        state["steps"] = torch.tensor(self.steps)
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a :meth:`state`. Weights must be loaded into the network before the engine is created."""
        self.steps = int(state["steps"])
        average = under(state, "average/")
        self._average = [self._part(name, average[name].to(self.device)) for name, _ in self._tracked()]
        if self.steps:
            self._set_moments(under(state, "optimizer/"))

    def weights(self) -> State:
        """Return the weights and buffers, buffers averaged over workers. Every worker must call it."""
        self._synchronise_buffers()
        return self._whole([tensor for _, tensor in self._tracked()])

    def average(self) -> State:
        """Return the running average of weights and buffers. Every worker must call it."""
        if not self._average:
            return self.weights()
        self._synchronise(self._average[len(list(self.network.parameters())) :])
        return self._whole(self._average)

    @abstractmethod
    def _update(self, passes: Passes, part: Mean, learning_rate: float) -> tuple[list[Tensor], float]:
        """Forward, backward, clip, step; return the passes' parts of the loss, and the gradient norm."""

    @abstractmethod
    def _moments(self) -> State:
        """Return AdamW's moments as ``exp_avg/name`` and ``exp_avg_sq/name``."""

    @abstractmethod
    def _set_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Restore AdamW's moments."""

    def _local(self, parameter: nn.Parameter) -> Tensor:
        """Return the part of a parameter on this worker."""
        return parameter.data

    def _part(self, name: str, value: Tensor) -> Tensor:
        """Return this worker's part of a full tensor, as a copy."""
        return value.clone()

    def _gathered(self, name: str, part: Tensor) -> Tensor:
        """Return the full tensor, of which this worker has a part."""
        return part

    def _tracked(self) -> list[tuple[str, Tensor]]:
        """Name every averaged tensor of the state dict: parameters (this worker's part), then float buffers."""
        parameters = [(name, self._local(parameter)) for name, parameter in self.network.named_parameters()]
        buffers = [(name, b) for name, b in self.network.named_buffers() if b.is_floating_point()]
        return parameters + buffers

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.training.ema_decay, (1 + self.steps) / (10 + self.steps))
        tracked = [tensor for _, tensor in self._tracked()]
        if not self._average or decay == 0:
            self._average = [tensor.clone() for tensor in tracked]
        else:
            torch._foreach_lerp_(self._average, tracked, 1 - decay)

    def _whole(self, parts: Sequence[Tensor]) -> State:
        names = [name for name, _ in self._tracked()]
        whole = {name: self._gathered(name, part) for name, part in zip(names, parts, strict=True)}
        whole |= {name: buffer for name, buffer in self.network.named_buffers() if not buffer.is_floating_point()}
        return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in whole.items()}

    def _synchronise_buffers(self) -> None:
        self._synchronise([buffer for buffer in self.network.buffers() if buffer.is_floating_point()])

    def _synchronise(self, tensors: Sequence[Tensor]) -> None:
        # Each worker's batch norm processes different crops; their mean is saved and validated.
        if world_size() > 1 and tensors:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            distributed.all_reduce(flat)
            flat /= world_size()
            sizes = [tensor.numel() for tensor in tensors]
            for tensor, mean in zip(tensors, torch.split(flat, sizes), strict=True):
                tensor.copy_(mean.view_as(tensor))


class TorchEngine(Engine):
    """Plain PyTorch; with ``DistributedDataParallel`` if there is more than one worker."""

    def __init__(
        self, network: nn.Module, loss: Loss, training: Training, device: torch.device, trunk: Trunk = WHOLE
    ) -> None:
        super().__init__(network, loss, training, device)
        self._optimizer = build_optimizer(self.network, training, trunk)
        self._parallel: nn.Module = self.network
        if world_size() > 1:
            self._parallel = DistributedDataParallel(
                self.network, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def _update(self, passes: Passes, part: Mean, learning_rate: float) -> tuple[list[Tensor], float]:
        losses = []
        for index, (images, target) in enumerate(passes):
            with self._silent(index < len(passes) - 1):
                with self._autocast():
                    outputs = self._parallel(images)
                loss = part(outputs.float(), target)
                (loss * world_size()).backward()  # type: ignore[no-untyped-call]  # DDP takes the mean over workers
            losses.append(loss.detach())
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.training.gradient_clip))
        set_learning_rate(self._optimizer.param_groups, learning_rate)
        if math.isfinite(norm):  # else the weights do not change, so that the origin can be located
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return losses, norm

    def _silent(self, more_to_come: bool) -> AbstractContextManager[None]:
        """Delay the exchange of gradients until the last pass."""
        if more_to_come and isinstance(self._parallel, DistributedDataParallel):
            return self._parallel.no_sync()
        return nullcontext()

    def _moments(self) -> State:
        return moments_of(self._optimizer, self.network)

    def _set_moments(self, moments: Mapping[str, Tensor]) -> None:
        set_moments(self._optimizer, self.network, moments, self.steps)


def world_size() -> int:
    """Return the number of workers, 1 outside any process group."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Return this worker's rank."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the low precision to compute in, or None for fp32; ``auto`` uses bf16 if the device supports it.

    Raises
    ------
    PlatformError
        bf16 was requested on a GPU without it. (A CPU without it is slow, but computes the same.)
    """
    native = choose_precision(device) == "bf16"
    if precision == "bf16" and device.type == "cuda" and not native:
        raise PlatformError(
            "expected a GPU with bf16, found one without",
            field="training.precision",
            hint="use precision: fp32 or auto",
        )
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and native) else None


def under(state: Mapping[str, Tensor], prefix: str) -> State:
    """Return the entries below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
