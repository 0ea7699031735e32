"""The BioImage Model Zoo description of a bundle (model description 0.5).

The format is that of https://bioimage.io, as defined by the library ``bioimageio.spec``. :func:`unsaid` lists what it
cannot describe, for the documentation of the package.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.bundle import BundleSpec, ModelInput
from cytoray_analysis.errors import RequestError
from cytoray_analysis.networks import DenseNetwork
from cytoray_analysis.tasks import get_task
from cytoray_analysis.tiles import per_axis

if TYPE_CHECKING:
    from bioimageio.spec.model import v0_5

_LARGEST_TEST = 2**21  # pixels of a test input
EPSILON = 1e-6  # the format adds this to a range before a division


@dataclass(frozen=True)
class Credits:
    """Authors, licence and citations of a model.

    Attributes
    ----------
    authors
        Names.
    licence
        An identifier of https://spdx.org/licenses, such as ``CC-BY-4.0``.
    cite
        DOIs.
    """

    authors: tuple[str, ...]
    licence: str
    cite: tuple[str, ...] = ()


def credits_of(
    spec: BundleSpec, *, authors: Sequence[str] = (), licence: str | None = None, cite: Sequence[str] = ()
) -> Credits:
    """Return the given credits, or those in the provenance of the bundle.

    Raises
    ------
    RequestError
        There is no author or no licence.
    """
    known = spec.provenance
    named = tuple(authors) or _texts(known.get("authors"))
    terms = licence or known.get("licence")
    if not named or not terms:
        missing = "an author" if not named else "a licence"
        raise RequestError(
            f"a BioImage Model Zoo package needs authors and a licence; the model card of {spec.name!r} has no "
            + missing.removeprefix("an ").removeprefix("a "),
            field="--author" if not named else "--licence",
            hint="such as: --author 'Ada Lovelace' --licence CC-BY-4.0 --cite 10.1038/s41592-018-0261-2",
        )
    return Credits(named, str(terms), tuple(cite) or _texts(known.get("cite")))


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(map(str, value))


def input_tensor(spec: BundleSpec, network: DenseNetwork, test_tensor: Any) -> v0_5.InputTensorDescr:
    """Describe the input of the network: axes, sizes, pixel size and intensity scaling."""
    from bioimageio.spec.model import v0_5

    given = spec.input
    axes: list[Any] = [v0_5.BatchAxis(), v0_5.ChannelAxis(channel_names=[*map(_label, input_channels(given))])]
    strides = per_axis(network.stride, len(given.spatial_axes))
    for position, (axis, stride) in enumerate(zip(given.spatial_axes, strides, strict=True)):
        if given.window is not None:
            size: Any = given.window[position]
        else:
            size = v0_5.ParameterizedSize(min=2 * stated_halo(given, network)[position] + stride, step=stride)
        axes.append(v0_5.SpaceInputAxis(id=v0_5.AxisId(axis.lower()), size=size, **_length(given, axis)))
    return v0_5.InputTensorDescr(
        id=v0_5.TensorId("input"),
        description="An image in its original units.",
        axes=axes,
        test_tensor=test_tensor,
        data=v0_5.IntervalOrRatioDataDescr(type="float32"),
        preprocessing=preprocessing(given),
    )


def output_tensor(spec: BundleSpec, network: DenseNetwork, test_tensor: Any) -> v0_5.OutputTensorDescr:
    """Describe the output of the network, before decoding."""
    from bioimageio.spec.model import v0_5

    given = spec.input
    axes: list[Any] = [v0_5.BatchAxis(), v0_5.ChannelAxis(channel_names=[*map(_label, output_channels(spec))])]
    if get_task(spec.task.name, spec.task.arguments).output.per == "pixel":
        for position, axis in enumerate(given.spatial_axes):
            name = v0_5.AxisId(axis.lower())
            size = v0_5.SizeReference(tensor_id=v0_5.TensorId("input"), axis_id=name)
            halo = stated_halo(given, network)[position]
            kind: Any = v0_5.SpaceOutputAxisWithHalo if halo else v0_5.SpaceOutputAxis
            axes.append(kind(id=name, size=size, **({"halo": halo} if halo else {}), **_length(given, axis)))
    return v0_5.OutputTensorDescr(
        id=v0_5.TensorId("output"),
        description="The output of the network, before decoding: see the documentation.",
        axes=axes,
        test_tensor=test_tensor,
        data=v0_5.IntervalOrRatioDataDescr(type="float32"),
        postprocessing=postprocessing(spec),
    )


def stated_halo(given: ModelInput, network: DenseNetwork) -> tuple[int, ...]:
    """Return the halo in the description, in pixels along each spatial axis; zeros if it has none.

    The format requires that the smallest input and the test input are larger than twice the halo. For deep networks
    over volumes the test would need gigabytes.
    """
    dimensions = len(given.spatial_axes)
    halo, stride = per_axis(network.halo, dimensions), per_axis(network.stride, dimensions)
    smallest = math.prod(2 * width + step for width, step in zip(halo, stride, strict=True))
    return halo if given.window is None and smallest <= _LARGEST_TEST else (0,) * dimensions


def input_channels(given: ModelInput) -> tuple[str, ...]:
    """Return the names of the input channels; for a stack in a 2D network, each plane of each channel."""
    if given.planes is None:
        return given.channels
    return tuple(f"{channel} z{plane}" for channel in given.channels for plane in range(given.planes))


def output_channels(spec: BundleSpec) -> tuple[str, ...]:
    """Return the names of the output channels: classes or target channels, if the task has them."""
    output = get_task(spec.task.name, spec.task.arguments).output
    return output.alone.names or tuple(f"output {index}" for index in range(output.channels))


def preprocessing(given: ModelInput) -> list[Any]:
    """Return the intensity scaling as one step of the format.

    Raises
    ------
    RequestError
        The bundle scales by its training set, but has no statistics of it; or by a method that the format lacks.
    """
    from bioimageio.spec.model import v0_5

    if given.scaling.method == "otsu":
        raise RequestError("expected a method of scaling that the format has: percentile or zscore, got otsu")
    scaling, known = given.scaling, given.statistics
    axes = tuple(v0_5.AxisId(axis.lower()) for axis in given.spatial_axes)
    if scaling.scope == "image":
        if scaling.method == "zscore":
            step = v0_5.ZeroMeanUnitVarianceKwargs(axes=axes, eps=EPSILON)
            return [v0_5.ZeroMeanUnitVarianceDescr(kwargs=step)]
        return [
            v0_5.ScaleRangeDescr(
                kwargs=v0_5.ScaleRangeKwargs(
                    axes=axes, min_percentile=scaling.low, max_percentile=scaling.high, eps=EPSILON
                )
            )
        ]
    if known is None:
        raise RequestError("the bundle scales intensities by its training set, but has no statistics of it")
    offset = known.mean if scaling.method == "zscore" else known.low
    high = known.std if scaling.method == "zscore" else np.subtract(known.high, known.low)
    gain = [1.0 / max(float(width), EPSILON) for width in high]
    return _linear(gain, [-float(low) * factor for low, factor in zip(offset, gain, strict=True)])


def postprocessing(spec: BundleSpec) -> list[Any]:
    """Return the decoding that the format supports: units of label-free prediction, probabilities of classes."""
    from bioimageio.spec.model import v0_5

    alone = get_task(spec.task.name, spec.task.arguments).output.alone
    if alone.softmax:
        return [v0_5.SoftmaxDescr(kwargs=v0_5.SoftmaxKwargs(axis=v0_5.AxisId("channel")))]
    return _linear(*map(list, alone.linear)) if alone.linear else []


def apply(steps: Sequence[Any], pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply the steps that this module writes, as defined by the format.

    Parameters
    ----------
    pixels
        (C, spatial…) or (C,) float32.
    """
    spatial = tuple(range(1, pixels.ndim))
    column = (-1,) + (1,) * len(spatial)
    for step in steps:
        if step.id == "scale_range":
            low = np.percentile(pixels, step.kwargs.min_percentile, axis=spatial, keepdims=True)
            high = np.percentile(pixels, step.kwargs.max_percentile, axis=spatial, keepdims=True)
            pixels = (pixels - low) / (high - low + step.kwargs.eps)
        elif step.id == "zero_mean_unit_variance":
            mean = pixels.mean(axis=spatial, keepdims=True)
            pixels = (pixels - mean) / (pixels.std(axis=spatial, keepdims=True) + step.kwargs.eps)
        elif step.id == "scale_linear":
            gain, offset = (np.reshape(value, column) for value in (step.kwargs.gain, step.kwargs.offset))
            pixels = pixels * gain + offset
        elif step.id == "softmax":
            powers = np.exp(pixels - pixels.max(axis=0, keepdims=True))
            pixels = powers / powers.sum(axis=0, keepdims=True)
        elif step.id != "ensure_dtype":
            raise ValueError(f"expected a step that this module writes, got {step.id}")
    return pixels.astype(np.float32)


def unsaid(spec: BundleSpec, network: DenseNetwork) -> list[str]:
    """List what users of the package must know and the format cannot describe."""
    given, note = spec.input, get_task(spec.task.name, spec.task.arguments).output.alone.note
    lines = [] if note is None else [note(spec.decode, given.window or ())]
    if given.pixel_size:
        lines.append("Images of another pixel size must be resampled first, to the pixel size of the axes.")
    if given.scaling.scope == "image":
        lines.append("An image of camera noise only becomes 0 everywhere by the scaling: an empty field stays dark.")
    if given.grey_as_rgb:
        lines.append("An image of one channel is repeated over all channels.")
    if given.planes is not None:
        lines.append(
            f"The channels are the {given.planes} planes of a stack, which the caller stacks along the channel axis."
        )
    if given.window is None and not any(stated_halo(given, network)):
        width = " × ".join(map(str, per_axis(network.halo, len(given.spatial_axes))))
        lines.append(f"Tiles of a large image must overlap by a halo of {width} pixels on each side.")
    lines.append("Sides that are not multiples of the step are padded by reflection, and the answer is cropped.")
    return lines


def _linear(gain: list[float], offset: list[float]) -> list[Any]:
    from bioimageio.spec.model import v0_5

    if all(factor == 1 for factor in gain) and not any(offset):
        return []  # the format rejects a step without effect
    kwargs = v0_5.ScaleLinearAlongAxisKwargs(axis=v0_5.AxisId("channel"), gain=gain, offset=offset)
    return [v0_5.ScaleLinearDescr(kwargs=kwargs)]


def _length(given: ModelInput, axis: str) -> dict[str, Any]:
    if not given.pixel_size or axis not in given.pixel_size:
        return {}
    return {"unit": "micrometer", "scale": given.pixel_size[axis]}


def _label(name: str) -> str:
    return name or "unnamed"
