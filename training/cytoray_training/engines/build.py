"""Construction of the engine of a recipe."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cytoray_analysis.tasks.loss import Loss, mean_over_crops
from cytoray_training.engines.adamw import WHOLE, Trunk
from cytoray_training.engines.batch_norm import synchronised
from cytoray_training.engines.engine import Engine, Mean, TorchEngine, under
from cytoray_training.recipe import Training


def build_engine(
    network: nn.Module,
    loss: Loss | Mean,
    training: Training,
    *,
    crops: int,
    passes: int | None = None,
    device: torch.device,
    state: Mapping[str, Tensor] | None = None,
    trunk: Trunk = WHOLE,
) -> Engine:
    """Create the engine of the recipe, continuing from `state` if given.

    Parameters
    ----------
    network
        Newly built, the same on every worker.
    loss
        Of a task; or any function of (outputs float32, target) that is a mean over crops.
    training
        The recipe's section.
    crops
        Maximum number of crops per backward pass and worker.
    passes
        Backward passes per step of a worker; None for ``training.accumulate``.
    device
        The device to train on.
    state
        The result of :meth:`Engine.state`, from either engine and any number of workers.
    trunk
        The part with a different learning rate.
    """
    if state is not None:
        network.load_state_dict(under(state, "weights/"))
    if not isinstance(loss, Loss):
        loss = mean_over_crops(loss)
    if training.batch_norm == "synchronised":
        network = synchronised(network)
    engine: Engine
    if training.engine == "deepspeed":
        from cytoray_training.engines.deepspeed_engine import DeepSpeedEngine

        engine = DeepSpeedEngine(
            network, loss, training, device, trunk, crops=crops, passes=passes or training.accumulate
        )
    else:
        engine = TorchEngine(network, loss, training, device, trunk)
    if state is not None:
        engine.restore(state)
    return engine
