"""Where a value became NaN or infinite: the step is repeated with hooks on every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Origin = tuple[str, str | None]


def find_origin(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    passes: Sequence[tuple[Tensor, Tensor]],
    precision: torch.dtype | None,
) -> Origin:
    """Find the first value that is not finite, in the order of computation.

    Parameters
    ----------
    network
        The network with the weights before the step.
    loss
        Maps (outputs float32, target) to a scalar.
    passes
        Images and target of the step.
    precision
        Of autocast; None for fp32.

    Returns
    -------
    tuple
        ``input``, ``weights``, ``output``, ``loss`` or ``gradient``; and the name of the layer (or weight), None if no
        layer is the cause. ``gradient`` without a layer means that all values were finite in the repetition.
    """
    spoilt = next((name for name, weight in network.named_parameters() if not _finite(weight)), None)
    if spoilt is not None:
        return "weights", spoilt
    for images, target in passes:
        if not _finite(images):
            return "input", None
        found = _in_pass(network, loss, images, target, precision)
        if found is not None:
            return found
    return "gradient", None


def _in_pass(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    target: Tensor,
    precision: torch.dtype | None,
) -> Origin | None:
    forward: list[str] = []
    backward: list[str] = []
    with _watched(network, forward, backward):
        with torch.autocast(images.device.type, precision or torch.bfloat16, enabled=precision is not None):
            outputs = network(images)
        if forward:
            return "output", forward[0]
        value = loss(outputs.float(), target)
        if not _finite(value):
            return "loss", None
        value.backward()  # type: ignore[no-untyped-call]
    network.zero_grad(set_to_none=True)
    return ("gradient", backward[0]) if backward else None


@contextmanager
def _watched(network: nn.Module, forward: list[str], backward: list[str]) -> Iterator[None]:
    """Record the layers with finite input and an output or gradient that is not finite."""
    handles = []

    def watch_output(name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not forward and not _finite(output):
                forward.append(name)
            elif isinstance(output, Tensor) and output.requires_grad:
                output.register_hook(watch_gradient(name))  # type: ignore[no-untyped-call]

        return look

    def watch_gradient(name: str) -> Any:
        # The gradient of a layer's output comes from the layers after it; the last finite one marks the fault.
        def look(gradient: Tensor) -> None:
            if _finite(gradient):
                passed.append(name)
            elif not backward:
                backward.append(passed[-1] if passed else "loss")

        return look

    passed: list[str] = []
    for name, module in network.named_modules():
        if not any(True for _ in module.children()):
            handles.append(module.register_forward_hook(watch_output(name or "network")))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())
