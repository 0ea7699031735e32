"""Trunks from the transformers library, whose weights were trained on millions of other pictures.

A model rebuilt from a bundle needs no hub: its arguments hold the whole configuration, and its weights are the bundle's
own. From a hub or a folder come safetensors only, and no code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from cytoray_analysis.errors import BundleError, MissingFileError
from cytoray_analysis.networks.classifier import Classifier, PooledHead

_RGB = 3
# What of a configuration names code, or the library's own version.
_CODE = frozenset(
    (
        "auto_map",
        "custom_pipelines",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "_experts_implementation_internal",
        "quantization_config",
        "transformers_version",
    )
)
_PROCESSOR = "preprocessor_config.json"


class PretrainedTrunk(Classifier):
    """Any vision model of transformers that ends in feature maps or tokens, with a new linear head.

    It is made for planes of three colours. A grey window is repeated over the three. With any other number of channels
    the first convolution takes that many: see :func:`~cytoray_analysis.networks.transfer.adapt_entrance`. The planes of
    a volume go through one by one, and their features are averaged.

    Parameters
    ----------
    dimensions
        2 for windows (B, C, Y, X), 3 for (B, C, Z, Y, X).
    inputs, outputs
        Channels of the image, and classes.
    window
        Side of the windows in pixels.
    config
        The model's configuration, as its ``config.json``; :meth:`arguments_from` reads it.
    mean, std
        What is subtracted from the scaled intensities of each channel, and what the rest is divided by; one value
        counts for all channels.
    side
        Windows are resized to this side, in pixels; None leaves them as they are, which models with fixed positions
        refuse.
    dropout
        Share of the pooled features that a training step does not see.

    Raises
    ------
    ValueError
        The configuration is of no known model, or the model does not take windows of this side.
    """

    trunk = ("backbone",)
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        dimensions: int = 2,
        inputs: int,
        outputs: int,
        window: int = 64,
        config: Mapping[str, Any],
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        side: int | None = None,
        dropout: float = 0.2,
    ) -> None:
        from transformers import AutoConfig, AutoModel

        super().__init__()
        self.dimensions, self.inputs, self.window, self.side = dimensions, inputs, window, side
        known = without_code(config)
        chosen = AutoConfig.for_model(**(known | {"num_channels": self.channels}))
        self.registers = int(getattr(chosen, "num_register_tokens", 0))
        build: Callable[[Any], nn.Module] = partial(AutoModel.from_config, trust_remote_code=False)
        with torch.device("meta"):
            trace = self._trace(build(chosen))
        self.backbone: nn.Module = build(chosen)
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(name in trace.needed)
        self.entrance = f"backbone.{trace.entrance}"
        self.largest = trace.largest
        self.register_buffer("mean", _column(mean, self.channels))
        self.register_buffer("std", _column(std, self.channels))
        self.head: PooledHead = PooledHead(trace.features, outputs, dropout, norm=nn.LayerNorm(trace.features))

    @property
    def channels(self) -> int:
        """Input channels: three, also for a grey window."""
        return _RGB if self.inputs == 1 else self.inputs

    @staticmethod
    def arguments_from(source: str | Path) -> dict[str, Any]:
        """Read what the constructor needs to know of a model: ``config``, ``mean``, ``std`` and ``side``.

        Parameters
        ----------
        source
            A model hub's name, or a folder that transformers wrote.

        Raises
        ------
        MissingFileError
            Neither the hub nor the disk has it.
        BundleError
            It is of a kind that transformers does not know without running its code.
        """
        from transformers import AutoConfig

        try:
            config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        except OSError as error:
            raise _missing(source, error) from error
        except ValueError as error:
            raise BundleError(f"expected a supported model, got {source}: {error}", field="model.start") from error
        size = getattr(config, "image_size", None)
        arguments: dict[str, Any] = {
            "config": json.loads(config.to_json_string(use_diff=True)),
            "side": size if isinstance(size, int) else None,
        }
        processor = _read_processor(source)
        if processor.get("do_normalize", True) and "image_mean" in processor and "image_std" in processor:
            arguments |= {"mean": list(processor["image_mean"]), "std": list(processor["image_std"])}
        return arguments

    def bytes_per_pixel(self, item: int) -> int:
        """Peak memory of inference per input pixel, in bytes, for features of `item` bytes.

        Four times the largest of all feature maps, and the image.
        """
        return self.inputs * (4 + item) + 4 * item * math.ceil(self.largest / self.window**2)

    def features(self, window: Tensor) -> Tensor:
        """Map windows (B, inputs, spatial…) to feature maps (B, K, coarser spatial…), of a volume one per plane."""
        planes = window if self.dimensions == 2 else window.transpose(1, 2).flatten(0, 1)
        planes = planes.expand(-1, self.channels, -1, -1) if self.inputs == 1 else planes
        maps = self._maps(self.backbone, (planes - self.mean) / self.std)
        if self.dimensions == 2:
            return maps
        return maps.reshape(len(window), -1, *maps.shape[1:]).transpose(1, 2)

    def _maps(self, backbone: nn.Module, planes: Tensor) -> Tensor:
        """Map planes (B, channels, Y, X) to feature maps (B, K, y, x); tokens are laid out as their patches are."""
        if self.side is not None:
            planes = functional.interpolate(planes, size=(self.side, self.side), mode="bilinear", align_corners=False)
        state: Tensor = backbone(pixel_values=planes).last_hidden_state
        if state.ndim == 4:
            return state
        # Tokens that stand for no patch (class, registers) come first.
        grid = math.isqrt(state.shape[1] - self.registers)
        patches = state[:, state.shape[1] - grid**2 :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], grid, grid)

    def _trace(self, backbone: nn.Module) -> _Trace:
        """Run a backbone that has shapes and no memory, and see what its feature maps depend on."""
        largest = [0]

        def record(module: nn.Module, given: Any, answer: Any) -> None:
            if isinstance(answer, Tensor):
                largest[0] = max(largest[0], answer[0].numel())

        for module in backbone.modules():
            module.register_forward_hook(record)
        planes = torch.zeros((2, self.channels, self.window, self.window), device="meta")
        maps = self._maps(backbone, planes)
        maps.sum().backward()  # type: ignore[no-untyped-call]
        named = dict(backbone.named_parameters())
        entrance = next(name for name, weight in named.items() if weight.ndim == 4 and weight.shape[1] == self.channels)
        needed = frozenset(name for name, parameter in named.items() if parameter.grad is not None)
        return _Trace(maps.shape[1], entrance, needed, largest[0])


@dataclass(frozen=True)
class _Trace:
    """What a run of a backbone shows.

    Attributes
    ----------
    features
        Channels of its feature maps.
    entrance
        Its first convolution's weight.
    needed
        Parameters that its feature maps depend on; a pooler and a mask token are not among them.
    largest
        Elements of the largest output of any layer, for one window.
    """

    features: int
    entrance: str
    needed: frozenset[str]
    largest: int


def without_code(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without what would fetch or run code: files of the hub, kernels, quantisers."""
    return {
        name: without_code(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in _CODE
    }


def hub_weights(source: str | Path) -> dict[str, Tensor]:
    """Return the weights of a model of transformers, as :class:`PretrainedTrunk` calls them.

    Parameters
    ----------
    source
        A model hub's name, or a folder that transformers wrote; safetensors only.

    Raises
    ------
    MissingFileError
        Neither the hub nor the disk has it, or not as safetensors.
    BundleError
        The weights are damaged, or of a kind that transformers does not know without running its code.
    """
    from transformers import AutoModel

    try:
        model = AutoModel.from_pretrained(source, use_safetensors=True, trust_remote_code=False)
    except OSError as error:
        raise _missing(source, error) from error
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"expected a supported model, got {source}: {error}", field="model.start") from error
    return {f"backbone.{name}": tensor for name, tensor in model.state_dict().items()}


def _missing(source: str | Path, error: Exception) -> MissingFileError:
    return MissingFileError(
        f"expected a model with safetensors weights, found none at {str(source)!r}: {str(error).splitlines()[0]}",
        field="model.start",
        hint="use a folder with config.json and model.safetensors, or a hub name if the hub is reachable",
    )


def _read_processor(source: str | Path) -> dict[str, Any]:
    """Return the image preprocessing of a model; nothing if unspecified."""
    from transformers.utils.hub import cached_file

    path = cached_file(
        source,
        _PROCESSOR,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return {}
    content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return content


def _column(values: Sequence[float], channels: int) -> Tensor:
    """Return one value per channel, (channels, 1, 1); their mean for all where their number differs."""
    own = torch.tensor(values, dtype=torch.float32)
    return (own if len(own) == channels else own.mean().expand(channels).clone()).view(channels, 1, 1)
