"""Plain PyTorch and DeepSpeed behind the same four methods: ``step``, ``state``, ``weights``, ``average``.

Both keep fp32 master weights, run the network under autocast, clip the mean gradient and take the same
``torch.optim.AdamW`` step, so that they differ in where things are kept and not in what is computed. What they save has
one form, too: full fp32 tensors by parameter name. A checkpoint of one engine, ZeRO stage and number of workers can be
continued by any other.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from cytoray_analysis.devices import choose_precision
from cytoray_analysis.errors import PlatformError
from cytoray_training.recipe import Training

Loss = Callable[[Tensor, Tensor], Tensor]
State = dict[str, Tensor]
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Trunk:
    """The part of a network that started from another model.

    Attributes
    ----------
    prefixes
        What the names of its parameters begin with.
    rate
        Its learning rate over that of the rest; what is frozen takes no gradient and is in no optimizer.
    """

    prefixes: tuple[str, ...] = ()
    rate: float = 1.0

    def holds(self, name: str) -> bool:
        """Whether a parameter of that name is part of it."""
        return name.startswith(tuple(f"{prefix}." for prefix in self.prefixes))


WHOLE = Trunk()  # nothing was taken over


@dataclass(frozen=True)
class Step:
    """What one optimizer step showed: this worker's mean loss, and the norm of the mean gradient before clipping."""

    loss: float
    gradient_norm: float


class Engine(ABC):
    """A network in training.

    Parameters
    ----------
    network
        The network, in fp32, with the weights to start from.
    loss
        Maps (outputs float32, target) to a scalar.
    training
        The recipe's section.
    device
        Where the network lives.
    trunk
        What learns at another rate than the rest.
    """

    def __init__(
        self, network: nn.Module, loss: Loss, training: Training, device: torch.device, trunk: Trunk = WHOLE
    ) -> None:
        self.network = network.to(device)
        self.trunk = trunk
        self.loss = loss
        self.training = training
        self.device = device
        self.precision = autocast_dtype(training.precision, device)
        self.steps = 0
        self._average: list[Tensor] = []

    def step(self, passes: Sequence[tuple[Tensor, Tensor]], learning_rate: float) -> Step:
        """Take one optimizer step from passes of (images, target), each on this device.

        All workers have as many passes, together of ``training.batch_size`` crops. Where these do not divide evenly,
        some passes are a crop smaller; each counts by its crops, so that the gradient is that of the mean over all.
        """
        self.network.train()
        losses, norm = self._update(passes, learning_rate)
        if math.isfinite(norm):  # else this was the last step, and the average is still good
            self.steps += 1
            self._update_average()
        return Step(mean_loss(losses, passes), float(norm))

    def share(self, images: Tensor) -> float:
        """Return what the loss of a pass is multiplied by, so that the mean over workers is that over all crops."""
        return world_size() * len(images) / self.training.batch_size

    @torch.no_grad()
    def loss_of(self, passes: Sequence[tuple[Tensor, Tensor]]) -> float:
        """Return this worker's mean loss as in training, and leave no trace. Every worker must call it."""
        buffers = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        self.network.train()
        losses = []
        for images, target in passes:
            with self._autocast():
                outputs = self.network(images)
            losses.append(self.loss(outputs.float(), target))
        for buffer, before in buffers:  # batch norms have counted these crops already
            buffer.copy_(before)
        return mean_loss(losses, passes)

    def local_weights(self) -> list[tuple[str, Tensor]]:
        """Return this worker's part of each parameter, which steps change in place."""
        return [(name, self._local(parameter)) for name, parameter in self.network.named_parameters()]

    def _autocast(self) -> torch.autocast:
        dtype = self.precision
        return torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def state(self) -> State:
        """Return everything that training goes on from, full fp32 on the CPU. Every worker must call it."""
        state = {f"weights/{name}": value for name, value in self.weights().items()}
        state |= {f"average/{name}": value for name, value in self.average().items()}
        if self.steps:
            state |= {f"optimizer/{name}": value for name, value in self._moments().items()}
        state["steps"] = torch.tensor(self.steps)
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a :meth:`state`. Weights were loaded into the network before the engine was made."""
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
    def _update(self, passes: Sequence[tuple[Tensor, Tensor]], learning_rate: float) -> tuple[list[Tensor], float]:
        """Forward, backward, clip, step; return the losses of the passes and the gradient norm."""

    @abstractmethod
    def _moments(self) -> State:
        """Return AdamW's moments as ``exp_avg/name`` and ``exp_avg_sq/name``."""

    @abstractmethod
    def _set_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Put AdamW's moments back."""

    def _local(self, parameter: nn.Parameter) -> Tensor:
        """Return the part of a parameter that lives on this worker."""
        return parameter.data

    def _part(self, name: str, value: Tensor) -> Tensor:
        """Return this worker's part of a full tensor, as a copy."""
        return value.clone()

    def _gathered(self, name: str, part: Tensor) -> Tensor:
        """Return the full tensor of which this worker holds a part."""
        return part

    def _tracked(self) -> list[tuple[str, Tensor]]:
        """Name every tensor of the state dict that is averaged: parameters (this worker's part), then float buffers."""
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
        # Each worker's batch norm sees other crops; what is saved and judged is their mean.
        if world_size() > 1 and tensors:
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            distributed.all_reduce(flat)
            flat /= world_size()
            sizes = [tensor.numel() for tensor in tensors]
            for tensor, mean in zip(tensors, torch.split(flat, sizes), strict=True):
                tensor.copy_(mean.view_as(tensor))


class TorchEngine(Engine):
    """PyTorch as it is; ``DistributedDataParallel`` when there is more than one worker."""

    def __init__(
        self, network: nn.Module, loss: Loss, training: Training, device: torch.device, trunk: Trunk = WHOLE
    ) -> None:
        super().__init__(network, loss, training, device, trunk)
        self._optimizer = build_optimizer(self.network, training, trunk)
        self._parallel: nn.Module = self.network
        if world_size() > 1:
            self._parallel = DistributedDataParallel(
                self.network, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def _update(self, passes: Sequence[tuple[Tensor, Tensor]], learning_rate: float) -> tuple[list[Tensor], float]:
        losses = []
        for index, (images, target) in enumerate(passes):
            with self._silent(index < len(passes) - 1):
                with self._autocast():
                    outputs = self._parallel(images)
                loss = self.loss(outputs.float(), target)
                (loss * self.share(images)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.training.gradient_clip))
        set_learning_rate(self._optimizer.param_groups, learning_rate)
        if math.isfinite(norm):  # else the weights stay, so that it can be found out where it began
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return losses, norm

    def _silent(self, more_to_come: bool) -> AbstractContextManager[None]:
        """Hold the exchange of gradients back until the last pass."""
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
    """Return this worker's place among all workers."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def mean_loss(losses: Sequence[Tensor], passes: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the mean loss over the crops of this worker's passes, as far as these have a loss."""
    sizes = [len(images) for images, _ in passes[: len(losses)]]
    return float(sum(size * loss for size, loss in zip(sizes, losses, strict=True)) / sum(sizes))


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the low precision to compute in, or None for fp32; ``auto`` takes bf16 where the device has it.

    Raises
    ------
    PlatformError
        bf16 was asked for on a graphics card without it. (A processor without it is slow, but computes the same.)
    """
    native = choose_precision(device) == "bf16"
    if precision == "bf16" and device.type == "cuda" and not native:
        raise PlatformError(
            "this graphics card has no bf16", field="training.precision", hint="use precision: fp32 or auto"
        )
    return torch.bfloat16 if precision == "bf16" or (precision == "auto" and native) else None


def build_optimizer(network: nn.Module, training: Training, trunk: Trunk = WHOLE) -> torch.optim.AdamW:
    """Make the AdamW (arXiv:1711.05101) of both engines: weight decay on matrices and kernels only."""
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
    """Name the parameters that take a gradient; those of a frozen trunk do not."""
    return [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]


def set_learning_rate(groups: Iterable[dict[str, Any]], learning_rate: float) -> None:
    """Set the learning rate of every parameter group, times the group's own ``rate``."""
    for group in groups:
        group["lr"] = learning_rate * group["rate"]


def moments_of(optimizer: torch.optim.Optimizer, network: nn.Module) -> State:
    """Return the moments of an optimizer that holds the network's own parameters, keyed ``moment/name``."""
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
    """Return AdamW's step counter as its fused implementation keeps it."""
    return torch.tensor(float(steps), dtype=torch.float32, device=like.device)


def under(state: Mapping[str, Tensor], prefix: str) -> State:
    """Return the entries below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def build_engine(
    network: nn.Module,
    loss: Loss,
    training: Training,
    *,
    crops: int,
    passes: int | None = None,
    device: torch.device,
    state: Mapping[str, Tensor] | None = None,
    trunk: Trunk = WHOLE,
) -> Engine:
    """Make the engine that the recipe asks for, continuing from `state` where there is one.

    Parameters
    ----------
    network
        Freshly built, the same on every worker.
    loss
        Maps (outputs float32, target) to a scalar.
    training
        The recipe's section.
    crops
        Crops per backward pass and worker, at most.
    passes
        Backward passes per step of a worker; None for ``training.accumulate``.
    device
        Where to train.
    state
        What :meth:`Engine.state` returned, of either engine and any number of workers.
    trunk
        What learns at another rate than the rest.
    """
    if state is not None:
        network.load_state_dict(under(state, "weights/"))
    engine: Engine
    if training.engine == "deepspeed":
        from cytoray_training.deepspeed_engine import DeepSpeedEngine

        engine = DeepSpeedEngine(
            network, loss, training, device, trunk, crops=crops, passes=passes or training.accumulate
        )
    else:
        engine = TorchEngine(network, loss, training, device, trunk)
    if state is not None:
        engine.restore(state)
    return engine
