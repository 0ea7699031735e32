"""Measurement of a single training step: the output of each layer, and the change of its weights.

Hooks are installed for that step only, so other steps have no overhead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from cytoray_training.diagnosis.facts import Layer

# A long training run is measured at every 32nd step, a short one sixteen times.
_RAREST, _LOOKS = 32, 16
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.Embedding)


def probe_period(total_steps: int) -> int:
    """Return the number of steps between two measurements."""
    return min(_RAREST, max(1, total_steps // _LOOKS))


class LayerProbe:
    """Measures the first forward pass, and the update of the weights, between entering and leaving.

    Parameters
    ----------
    network
        The network in training.
    weights
        This worker's part of each parameter, by name; changed in place by the step.
    """

    def __init__(self, network: nn.Module, weights: Sequence[tuple[str, Tensor]]) -> None:
        self.layers: tuple[Layer, ...] = ()
        self._network, self._weights = network, weights
        self._before: list[Tensor] = []
        self._handles: list[RemovableHandle] = []
        self._outputs: dict[int, tuple[str, nn.Module, Tensor]] = {}
        self._measured: list[Layer] | None = None

    def __enter__(self) -> LayerProbe:
        self._before = [weight.detach().clone() for _, weight in self._weights]
        for name, module in self._network.named_modules():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._outputs.clear()
        updates = self._updates()
        self.layers = tuple(replace(layer, update=updates.get(layer.name)) for layer in self._measured or ())

    def _hook(self, name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._measured is not None:
                return
            if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
                # In-place activations change an output after its layer returned it; so it is measured at the end, under
                # the name of its layer.
                self._outputs.setdefault(output.data_ptr(), (name, module, output.detach()))
            if module is self._network:
                self._measure()

        return keep

    @torch.no_grad()
    def _measure(self) -> None:
        kept = list(self._outputs.values())
        self._outputs.clear()
        numbers = torch.stack([_numbers(module, output) for _, module, output in kept]).tolist() if kept else []
        self._measured = [
            Layer(name or "network", rms=row[0], largest=row[1], dead=row[2])
            for (name, _, _), row in zip(kept, numbers, strict=True)
        ]

    @torch.no_grad()
    def _updates(self) -> dict[str, float]:
        """Return the relative change of each layer's weight matrix or kernel."""
        chosen = [
            (name.removesuffix(".weight"), before, weight)
            for (name, weight), before in zip(self._weights, self._before, strict=True)
            if name.endswith(".weight") and weight.ndim > 1
        ]
        if not chosen:
            return {}
        ratios = [(after - before).norm() / before.norm().clamp(min=1e-12) for _, before, after in chosen]
        return dict(zip([name for name, _, _ in chosen], torch.stack(ratios).tolist(), strict=True))


def _numbers(module: nn.Module, output: Tensor) -> Tensor:
    """Return root mean square, largest absolute value and share of dead channels."""
    values = output.float()
    axis = values.ndim - 1 if isinstance(module, _CHANNELS_LAST) else 1
    dead = values.new_zeros(())
    if values.ndim > 1 and values.numel() > values.shape[axis]:
        others = [other for other in range(values.ndim) if other != axis]
        dead = (values.amax(others) == values.amin(others)).float().mean()
    return torch.stack((values.square().mean().sqrt(), values.abs().max(), dead))
