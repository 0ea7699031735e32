"""Import of a BioImage Model Zoo package from others, as a bundle for :class:`Predictor`.

The network becomes an ONNX graph in the bundle (:mod:`cytoray_analysis.networks.onnx_network`). ONNX weights are only
data. TorchScript and Python source are programs (the security policy of PyTorch says to treat models as such): they run
once, at import and with explicit consent, for the conversion to ONNX. The bundle never contains them.

Unsupported packages are rejected: several inputs or outputs, fixed sizes, unknown steps before or after the network,
and weights whose output for the test input of the package is not its test output.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import BundleError, RequestError
from cytoray_analysis.images.intensity import IntensityScaling, IntensityStatistics, intensity_map, scale_intensities
from cytoray_analysis.networks import build_network
from cytoray_services.exchange.zoo.foreign_weights import Consent, graph_of_package, local_file

# The default of ``bioimageio.core``: relative and absolute, for test outputs.
TOLERANCE = 1e-3
_MOST_DEVIATING = 1e-4  # share of values that may exceed it: 100 in a million, the default of the format
_PROBABILITY_MAPS = ("sigmoid", "softmax")


@dataclass(frozen=True)
class Layout:
    """Axes of the input and output of a package.

    Attributes
    ----------
    axes
        Such as ``CYX``.
    inputs, outputs
        Names of the channels.
    smallest, stride
        Smallest side and step of the sides of an input, in pixels.
    halo
        The margin to crop from each side of an output; None if not specified.
    pixel_size
        Micrometres per axis; None if not specified.
    """

    axes: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    smallest: tuple[int, ...]
    stride: tuple[int, ...]
    halo: tuple[int, ...] | None
    pixel_size: dict[str, float] | None


def bundle_of_package(description: Path, target: Path, consent: Consent | None) -> tuple[Bundle, dict[str, str]]:
    """Convert an unpacked package to a bundle.

    Parameters
    ----------
    description
        Its ``bioimageio.yaml``, next to all other files.
    target
        Folder of the bundle.
    consent
        Consent to run its code, or None.

    Returns
    -------
    tuple
        The bundle, and tags for the record of its version.

    Raises
    ------
    RequestError, BundleError
        It is not supported, or damaged.
    """
    package = _load(description)
    folder = description.parent
    layout = _layout(package)
    scaling, statistics = _scaling(package.inputs[0], len(layout.inputs))
    activation = _activation(package.outputs[0])
    test_input = _test_tensor(package.inputs[0], folder)
    test_output = _test_tensor(package.outputs[0], folder)
    # As pixels without positions: a test may consist of noise.
    offset, scale = intensity_map(test_input[0].reshape(test_input.shape[1], -1), scaling, statistics)
    scaled = scale_intensities(test_input[0], offset, scale)
    graph, source, tags = graph_of_package(package, folder, torch.from_numpy(scaled)[None], consent)
    arguments = {
        "inputs": len(layout.inputs),
        "outputs": len(layout.outputs),
        "size": len(graph),
        "stride": list(layout.stride),
        "halo": None if layout.halo is None else list(layout.halo),
        "smallest": list(layout.smallest),
        "activation": activation,
    }
    weights = {"graph": torch.frombuffer(bytearray(graph), dtype=torch.uint8)}
    network = build_network("onnx", arguments)
    network.load_state_dict(weights)
    _check_answer(network, scaled, test_output[0])
    spec = BundleSpec(
        name=_slug(str(package.name)),
        task=TaskChoice(
            name="label_free",
            arguments={
                "dimensions": len(layout.axes) - 1,
                "channels": list(layout.outputs),
                "offset": [0.0] * len(layout.outputs),
                "scale": [1.0] * len(layout.outputs),
            },
        ),
        input=ModelInput(
            axes=layout.axes,
            channels=layout.inputs,
            pixel_size=layout.pixel_size,
            scaling=scaling,
            statistics=statistics,
        ),
        network=NetworkChoice(name="onnx", arguments=arguments),
        provenance=_provenance(package, description, source),
    )
    return write_bundle(target, spec, weights, test_input=scaled, card=_card(package, spec)), tags


def _load(description: Path) -> Any:
    from bioimageio.spec import InvalidDescr, ValidationContext, load_model_description

    # Without checks of files, which would follow addresses in the description.
    with ValidationContext(perform_io_checks=False, log_warnings=False, progressbar=False):
        try:
            package = load_model_description(description, format_version="latest", perform_io_checks=False)
        except (ValueError, TypeError, KeyError) as error:
            raise BundleError(f"bioimageio.spec rejects {description.name}: {error}", field=description.name) from error
    if isinstance(package, InvalidDescr):  # type: ignore[unreachable] # mypy thinks that no class can be both
        raise BundleError(f"bioimageio.spec rejects {description.name}: {package.get_reason()}")
    if len(package.inputs) != 1 or len(package.outputs) != 1:
        raise RequestError(
            f"expected a model with one input and one output, got {len(package.inputs)} and {len(package.outputs)}",
            field="inputs",
            hint="such a model is not supported; run it with bioimageio.core",
        )
    return package


def _layout(package: Any) -> Layout:
    given, answered = package.inputs[0], package.outputs[0]
    kinds = [axis.type for axis in given.axes]
    spatial = [axis for axis in given.axes if axis.type == "space"]
    if kinds != ["batch", "channel", *["space"] * len(spatial)] or len(spatial) not in (2, 3):
        raise RequestError(
            f"expected axes batch, channel, and two or three spatial axes, got {', '.join(kinds)}", field="inputs.axes"
        )
    names = [str(axis.id).upper() for axis in spatial]
    if names not in (["Y", "X"], ["Z", "Y", "X"]):
        raise RequestError(f"expected axes y x or z y x, got {' '.join(names).lower()}", field="inputs.axes")
    result = [axis for axis in answered.axes if axis.type == "space"]
    if [axis.type for axis in answered.axes] != kinds or [str(axis.id).upper() for axis in result] != names:
        raise RequestError(
            f"expected an output with the axes of the input, got {', '.join(str(axis.id) for axis in answered.axes)}",
            field="outputs.axes",
            hint="only models with an output for every pixel are supported",
        )
    stride, smallest = [], []
    for name, axis, out in zip(names, spatial, result, strict=True):
        step, least = getattr(axis.size, "step", None), getattr(axis.size, "min", None)
        if step is None or least is None or least % step:
            raise RequestError(
                f"expected sides of any multiple of a step along {name}, got {axis.size!r}",
                field="inputs.axes",
                hint="a network with fixed or odd sizes is not supported",
            )
        if getattr(out.size, "offset", None) != 0 or out.scale != axis.scale:
            raise RequestError(
                f"expected an output of the input's size along {name}, got {out.size!r}", field="outputs"
            )
        stride.append(int(step))
        smallest.append(int(least))
    halo = [int(axis.halo) for axis in result if getattr(axis, "halo", None) is not None]
    known = len(halo) == len(stride)
    wide = [math.ceil(width / step) * step for width, step in zip(halo, stride, strict=True)] if known else None
    in_micrometres = all(axis.unit == "micrometer" for axis in spatial)
    return Layout(
        axes="C" + "".join(names),
        inputs=tuple(map(str, given.axes[1].channel_names)),
        outputs=_unique(answered.axes[1].channel_names),
        smallest=tuple(smallest),
        stride=tuple(stride),
        halo=tuple(wide) if wide else None,
        pixel_size={name: float(axis.scale) for name, axis in zip(names, spatial, strict=True)}
        if in_micrometres
        else None,
    )


def _scaling(tensor: Any, channels: int) -> tuple[IntensityScaling, IntensityStatistics | None]:
    steps = [step for step in tensor.preprocessing if step.id != "ensure_dtype"]
    fixed = IntensityScaling(method="zscore", scope="dataset")
    if not steps:
        return fixed, IntensityStatistics.identity(channels)
    step, kwargs = steps[0], steps[0].kwargs
    names = [str(axis.id) for axis in tensor.axes if axis.type == "space"]
    asked = getattr(kwargs, "axes", None)
    reduced = {str(axis) for axis in asked} if asked is not None else {"batch", "channel", *names}
    # Over the batch: here every image is a batch. Over channels: the same with one channel.
    per_channel = reduced - {"batch"} - ({"channel"} if channels == 1 else set()) == set(names)
    if len(steps) == 1 and step.id == "scale_range" and per_channel and kwargs.reference_tensor in (None, tensor.id):
        return IntensityScaling(low=kwargs.min_percentile, high=kwargs.max_percentile), None
    if len(steps) == 1 and step.id == "zero_mean_unit_variance" and per_channel:
        return IntensityScaling(method="zscore"), None
    along = str(getattr(kwargs, "axis", "channel") or "channel") == "channel"
    if len(steps) == 1 and step.id == "fixed_zero_mean_unit_variance" and along:
        return fixed, _fixed(_each(kwargs.mean, channels), _each(kwargs.std, channels))
    if len(steps) == 1 and step.id == "scale_linear" and along:
        gain, offset = _each(kwargs.gain, channels), _each(kwargs.offset, channels)
        if all(factor > 0 for factor in gain):
            return fixed, _fixed(
                [-low / factor for low, factor in zip(offset, gain, strict=True)], [1 / f for f in gain]
            )
    raise RequestError(
        f"expected no step before the network, or one that scales each channel, got {', '.join(s.id for s in steps)}",
        field="inputs.preprocessing",
        hint="scale_range, zero_mean_unit_variance, fixed_zero_mean_unit_variance and scale_linear are supported",
    )


def _fixed(mean: list[float], std: list[float]) -> IntensityStatistics:
    rest = (0.0,) * len(mean)
    return IntensityStatistics(low=rest, high=(1.0,) * len(mean), mean=tuple(mean), std=tuple(std), smallest_range=rest)


def _each(value: Any, channels: int) -> list[float]:
    return [float(value)] * channels if isinstance(value, int | float) else [float(one) for one in value]


def _activation(tensor: Any) -> str:
    steps = [step for step in tensor.postprocessing if step.id != "ensure_dtype"]
    if not steps:
        return "none"
    if len(steps) == 1 and steps[0].id in _PROBABILITY_MAPS:
        return str(steps[0].id)
    raise RequestError(
        f"expected no step after the network, or one of {', '.join(_PROBABILITY_MAPS)}, "
        f"got {', '.join(step.id for step in steps)}",
        field="outputs.postprocessing",
        hint="such outputs are not supported; run the package with bioimageio.core",
    )


def _test_tensor(tensor: Any, folder: Path) -> NDArray[np.float32]:
    if tensor.test_tensor is None:
        raise RequestError(
            f"expected a test tensor for {tensor.id} to verify the weights, the package has none",
            field=f"{tensor.id}.test_tensor",
        )
    path = local_file(tensor.test_tensor, folder)
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"{path.name} is not a plain NumPy array: {error}", field=path.name) from error
    if array.ndim != len(tensor.axes):
        raise BundleError(f"expected {path.name} to have {len(tensor.axes)} axes, got {array.ndim}", field=path.name)
    return np.asarray(array, dtype=np.float32)


def _check_answer(network: torch.nn.Module, scaled: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    with torch.inference_mode():
        answer = network(torch.from_numpy(scaled)[None])[0].numpy()
    cut = [(have - want) // 2 for have, want in zip(answer.shape[1:], expected.shape[1:], strict=True)]
    if any(cut):  # the package stores its test output without the halo
        answer = answer[
            (slice(None), *(slice(width, width + n) for width, n in zip(cut, expected.shape[1:], strict=True)))
        ]
    if answer.shape != expected.shape:
        raise BundleError(
            f"expected a test output of {expected.shape}, got {answer.shape}", field="outputs.test_tensor"
        )
    beyond = float(np.mean(~np.isclose(answer, expected, rtol=TOLERANCE, atol=TOLERANCE)))
    if beyond > _MOST_DEVIATING:
        raise BundleError(
            f"expected the test output of the package, got {beyond:.1%} of its values with a deviation of more "
            f"than {TOLERANCE:g}, allowed: at most {_MOST_DEVIATING:.2%}",
            field="outputs.test_tensor",
            hint="the package is damaged, or scales its input in an unsupported way",
        )


def _provenance(package: Any, description: Path, source: str) -> dict[str, Any]:
    facts = {
        "source": "BioImage Model Zoo package",
        "package": str(package.id or package.name),
        "package_version": str(package.version) if package.version is not None else None,
        "package_description": hashlib.sha256(description.read_bytes()).hexdigest(),
        "weights": source,
        "authors": [str(author.name) for author in package.authors],
        "licence": str(package.license) if package.license is not None else None,
        "cite": [str(entry.doi or entry.url) for entry in package.cite],
        "imported": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {key: value for key, value in facts.items() if value}


def _card(package: Any, spec: BundleSpec) -> str:
    facts: Mapping[str, Any] = spec.provenance
    lines = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    return f"""# {spec.name}

Imported from a BioImage Model Zoo package: {package.name}.

{package.description}

## Provenance

{lines}

## Limits of use

- Cytoray has not evaluated this model. It only checked that the weights give the test output of the package.
- The answer is the output of the package as an image, one channel each, without objects.
- It runs through ONNX Runtime on the CPU.
"""


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:64] or "imported"


def _unique(names: Any) -> tuple[str, ...]:
    """Return the names of channels, numbered if two are equal."""
    texts = [str(name) for name in names]
    return tuple(text if texts.count(text) == 1 else f"{text} {place}" for place, text in enumerate(texts))
