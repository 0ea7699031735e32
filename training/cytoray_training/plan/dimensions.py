"""Whether data, network and task fit together, determined by shapes before any worker starts.

The network runs on tensors of the device ``meta``, which have a shape and no content, so this takes milliseconds and no
memory, whatever the size of a crop.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cytoray_analysis.errors import RecipeError
from cytoray_analysis.networks import build_network, dense
from cytoray_analysis.tiles import per_axis
from cytoray_training.plan.plan import Plan


def require_fitting(plan: Plan) -> None:
    """Pass a batch of crops through the network, and refuse shapes that a layer or the task cannot accept.

    Raises
    ------
    RecipeError
        The message names the axis, the layer, the expected and actual size, and a size that fits.
    """
    recipe = plan.recipe
    network = build_network(plan.network.name, plan.network.arguments)
    stride = dense(network).stride
    strides = per_axis(stride, len(plan.crop)) if isinstance(stride, int) else stride
    if len(strides) != len(plan.crop):
        raise RecipeError(
            f"expected a network for the {len(plan.crop)} axes of {plan.recipe.data.axes}, got one for {len(strides)}",
            field="model.network.arguments.dimensions",
            hint="remove model.network.arguments.dimensions, so that it follows from data.axes, or change data.axes",
        )
    if any(side % stride for side, stride in zip(plan.crop, strides, strict=True)):
        fitting = [max(round(side / stride), 1) * stride for side, stride in zip(plan.crop, strides, strict=True)]
        raise RecipeError(
            f"expected crops whose sides are multiples of the network's stride {strides}, got {plan.crop}",
            field="training.crop_size",
            hint=f"use {fitting[0] if len(set(fitting)) == 1 else fitting}",
        )
    network = network.to("meta").train()
    channels, batch = plan.examples.inputs(plan.model_input), max(recipe.crops_per_pass, 2)
    crops = torch.empty((batch, channels, *plan.crop), device="meta")
    outputs = _through(network, crops, recipe.training.crop_size)
    _require_outputs(plan, outputs, batch)


def _through(network: nn.Module, crops: Tensor, crop_size: Any) -> Tensor:
    entered: list[tuple[str, nn.Module, tuple[int, ...]]] = []

    def enter(name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            shape = tuple(inputs[0].shape) if inputs and isinstance(inputs[0], Tensor) else ()
            entered.append((name, module, shape))

        return note

    handles = [module.register_forward_pre_hook(enter(name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            outputs = network(crops)
    except (RuntimeError, ValueError, IndexError) as error:
        name, module, shape = entered[-1] if entered else ("", network, tuple(crops.shape))
        raise _refused(name, module, shape, tuple(crops.shape), str(error), crop_size) from error
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(outputs, Tensor):
        raise RecipeError(
            f"expected a network that returns one tensor, got {type(outputs).__name__}", field="model.network.name"
        )
    return outputs


def _refused(
    name: str, module: nn.Module, shape: tuple[int, ...], crops: tuple[int, ...], reason: str, crop_size: Any
) -> RecipeError:
    """Describe which axis of which layer does not fit, and which size would."""
    layer = f"the layer {name or 'at the input'} ({type(module).__name__})"
    wanted, axis = _expected(module)
    dimensions = getattr(module, "kernel_size", None)
    if isinstance(dimensions, tuple) and len(shape) not in (len(dimensions) + 1, len(dimensions) + 2):
        return RecipeError(
            f"{layer} expected {len(dimensions)} spatial axes, got {len(shape) - 2} (shape {list(shape)})",
            field="model.network.arguments.dimensions",
            hint=f"remove model.network.arguments.dimensions: crops have {len(crops) - 2} spatial axes; "
            "or change data.axes",
        )
    if wanted is not None and shape and shape[axis] != wanted:
        what = "channels" if axis == 1 else "features"
        arguments = "remove model.network.arguments.inputs, or set the same number of data.channels"
        return RecipeError(
            f"{layer} expected {wanted} {what} along axis {axis % len(shape)}, got {shape[axis]} "
            f"(shape {list(shape)}; the input has shape {list(crops)})",
            field="model.network.arguments",
            hint=f"{arguments}: {crops[1]} channels enter the network",
        )
    return RecipeError(
        f"{layer} cannot accept its input of shape {list(shape)}: {reason.splitlines()[0]}",
        field="training.crop_size",
        hint=f"the input has shape {list(crops)}; try a training.crop_size other than {crop_size}",
    )


def _expected(module: nn.Module) -> tuple[int | None, int]:
    """Return the axis of its input that a layer checks, and the expected length."""
    for member, axis in (("in_channels", 1), ("num_features", 1), ("in_features", -1)):
        value = getattr(module, member, None)
        if isinstance(value, int):
            return value, axis
    return None, 1


def _require_outputs(plan: Plan, outputs: Tensor, batch: int) -> None:
    """Refuse outputs with another shape than the task accepts."""
    output = plan.task.output
    spatial = {"pixel": plan.crop, "cell": (), "link": plan.crop}[output.per]
    expected, got = (batch, output.channels, *spatial), tuple(outputs.shape)
    if got == expected:
        return
    names = ["B", "C", *(plan.recipe.data.axes if output.per == "pixel" else "N")]
    task, network = plan.chosen_task.name, plan.network.name
    if len(got) != len(expected):
        raise RecipeError(
            f"expected for the task {task}, which answers per {output.per}, outputs of shape {list(expected)}, "
            f"got {list(got)} from the network {network}",
            field="model.network.name",
            hint=f"use a network that answers per {output.per}",
        )
    axis = next(place for place, (one, other) in enumerate(zip(got, expected, strict=True)) if one != other)
    field = "model.network.arguments.outputs" if axis == 1 else "model.network.arguments"
    raise RecipeError(
        f"expected {expected[axis]} outputs along axis {names[axis]} for the task {task}, got {got[axis]} from the "
        f"network {network} (shape {list(got)})",
        field=field,
        hint=f"remove {field}, so that it follows from the task, or set it to {expected[axis]}",
    )
