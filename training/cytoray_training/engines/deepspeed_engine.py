"""The DeepSpeed engine: ZeRO stages 0 to 3 (arXiv:1910.02054) on the process group of Ray Train or torchrun.

Its own checkpoint writer pickles, and ties a checkpoint to stage and number of workers. These networks are small, so
:class:`~cytoray_training.engines.engine.Engine` gathers full fp32 tensors by name instead. Only this module knows how a
stage distributes a tensor.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, distributed, nn

from cytoray_analysis.tasks.loss import Loss
from cytoray_training.engines.adamw import (
    MOMENTS,
    WHOLE,
    State,
    Trunk,
    build_optimizer,
    moments_of,
    set_learning_rate,
    set_moments,
    step_count,
    trainable,
)
from cytoray_training.engines.engine import Engine, Mean, Passes, rank, world_size
from cytoray_training.recipe import Training


class DeepSpeedEngine(Engine):
    """DeepSpeed with the optimizer, clipping and autocast of :class:`~cytoray_training.engines.engine.TorchEngine`."""

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        training: Training,
        device: torch.device,
        trunk: Trunk = WHOLE,
        *,
        crops: int,
        passes: int,
    ) -> None:
        super().__init__(network, loss, training, device)
        deepspeed = _deepspeed(device)
        self._stage = training.zero_stage
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=self.network,
            optimizer=build_optimizer(self.network, training, trunk),
            config=_configuration(training, crops, passes, self.network, self.precision),
        )

    def _update(self, passes: Passes, part: Mean, learning_rate: float) -> tuple[list[Tensor], float]:
        set_learning_rate(self._optimizer.param_groups, learning_rate)
        losses: list[Tensor] = []
        norm = 0.0
        for index, (images, target) in enumerate(passes):
            loss = part(self._engine(images).float(), target)
            if not _finite_everywhere(loss):  # the weights do not change, so that the origin can be located
                return [*losses, loss.detach()], math.nan
            # DeepSpeed computes the means over workers and over passes.
            self._engine.backward(loss * world_size() * len(passes))
            if self._stage == 0 and index == len(passes) - 1:
                # DeepSpeed also clips here, but does not return the norm.
                norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.training.gradient_clip))
                if not math.isfinite(norm):
                    return [*losses, loss.detach()], norm
            self._engine.step()  # takes effect only after the last pass
            losses.append(loss.detach())
        return losses, norm if self._stage == 0 else float(self._engine.get_global_grad_norm())

    def _moments(self) -> State:
        if self._stage == 0:
            return moments_of(self._optimizer, self.network)
        from deepspeed.utils import safe_get_full_optimizer_state, safe_get_local_optimizer_state

        self._link_moments()
        moments = {}
        for name, parameter in trainable(self.network):
            for moment in MOMENTS:
                if self._stage == 3:
                    value = self._gathered(name, safe_get_local_optimizer_state(parameter, moment))
                else:
                    value = safe_get_full_optimizer_state(parameter, moment)
                moments[f"{moment}/{name}"] = value.detach().to("cpu", copy=True).contiguous()
        return moments

    def _set_moments(self, moments: Mapping[str, Tensor]) -> None:
        if self._stage == 0:
            set_moments(self._optimizer, self.network, moments, self.steps)
            return
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        # AdamW creates its state in the first step; here it must exist earlier, to be filled.
        zero = self._optimizer
        for flat in zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups:
            zero.optimizer.state[flat] = {"step": step_count(self.steps, flat)} | {
                moment: torch.zeros_like(flat) for moment in MOMENTS
            }
        self._link_moments()
        for name, parameter in trainable(self.network):
            for moment in MOMENTS:
                value = moments[f"{moment}/{name}"].to(self.device)
                if self._stage == 3:
                    safe_set_local_optimizer_state(parameter, self._part(name, value), moment)
                else:
                    safe_set_full_optimizer_state(parameter, value, moment)

    def _link_moments(self) -> None:
        """Let stages 1 and 2 find each parameter's moments in the flat ones.

        DeepSpeed does this once, after the step of the first parameter group, when the other groups have no moments.
        """
        if self._stage < 3:
            self._optimizer._hp_optimizer_states_linked = False
            self._optimizer._lazy_init_hp_params_optimizer_state()

    # Stage 3 keeps of each parameter an equal, zero-padded piece of its flat form on each worker (``ds_tensor``).

    def _local(self, parameter: nn.Parameter) -> Tensor:
        return parameter.ds_tensor.data if hasattr(parameter, "ds_tensor") else parameter.data

    def _part(self, name: str, value: Tensor) -> Tensor:
        parameter = self._parameter(name)
        if not hasattr(parameter, "ds_tensor"):
            return value.clone()
        size = parameter.ds_tensor.numel()
        padded = value.new_zeros(size * world_size())
        padded[: value.numel()] = value.reshape(-1)
        return padded[size * rank() : size * (rank() + 1)].clone()

    def _gathered(self, name: str, part: Tensor) -> Tensor:
        parameter = self._parameter(name)
        if not hasattr(parameter, "ds_tensor"):
            return part
        pieces = [torch.empty_like(part) for _ in range(world_size())]
        distributed.all_gather(pieces, part.contiguous())
        return torch.cat([piece.reshape(-1) for piece in pieces])[: parameter.ds_numel].view(parameter.ds_shape)

    def _parameter(self, name: str) -> Any:
        """Return the parameter with this name, including DeepSpeed's attributes; None for a buffer."""
        return dict(self.network.named_parameters()).get(name)


def _finite_everywhere(loss: Tensor) -> bool:
    """Whether the loss of every worker is finite: all take the step, or none."""
    finite = torch.isfinite(loss.detach()).float()
    if world_size() > 1:
        distributed.all_reduce(finite, distributed.ReduceOp.MIN)
    return bool(finite)


def _deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed with its accelerator preset instead of detected."""
    if not distributed.is_initialized():
        # DeepSpeed requires a process group; one of a single process needs no network.
        store = distributed.HashStore()  # type: ignore[attr-defined]
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    os.environ.setdefault("LOCAL_RANK", "0")
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Its collectives use names that this torch reports as deprecated, one line per layer and step.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed
    import deepspeed.ops

    # Otherwise it probes every operator with the compiler and builds a shared-memory operator that is never used.
    deepspeed.ops.__compatible_ops__ = {}
    return deepspeed


def _configuration(
    training: Training, crops: int, passes: int, network: nn.Module, precision: torch.dtype | None
) -> dict[str, Any]:
    # Buckets default to 2 GB each; a bucket larger than the network has no advantage.
    bucket = max(2**20, sum(parameter.numel() for parameter in network.parameters()))
    bucket += bucket % 2  # an odd size is refused
    return {
        "train_micro_batch_size_per_gpu": crops,
        "gradient_accumulation_steps": passes,
        "gradient_clipping": training.gradient_clip if training.zero_stage else 0.0,
        "steps_per_print": 2**31,
        "zero_optimization": {
            "stage": training.zero_stage,
            "overlap_comm": False,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
        # Without a list, gradients of convolutions would be exchanged in bf16 and the engines would differ.
        "torch_autocast": {
            "enabled": precision is not None,
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
    }
