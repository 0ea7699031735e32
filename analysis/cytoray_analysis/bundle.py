"""The bundle: a folder with a trained model and everything needed to use it.

======================  ===========================================================================
``bundle.yaml``         the specification, :class:`BundleSpec`
``weights.safetensors`` the weights of the network, float32
``test_input.npy``      one network input, scaled, (C, spatial…) float32
``test_output.npy``     the network's output for it, (K, spatial…) float32
``README.md``           the model card
======================  ===========================================================================

Loading runs no code from a bundle: names choose among the networks and tasks of this package, weights are safetensors,
arrays are plain NumPy files, and a folder with any other file is refused. PyTorch is loaded for networks only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cytoray_analysis.errors import BundleError, ModelNotFoundError
from cytoray_analysis.files import follow_umask, take_back, whole_path
from cytoray_analysis.images.intensity import IntensityScaling, IntensityStatistics
from cytoray_analysis.plain_yaml import load_yaml

if TYPE_CHECKING:
    from torch import Tensor, nn

SPEC, WEIGHTS, TEST_INPUT, TEST_OUTPUT, CARD = (
    "bundle.yaml",
    "weights.safetensors",
    "test_input.npy",
    "test_output.npy",
    "README.md",
)
FILES = frozenset({SPEC, WEIGHTS, TEST_INPUT, TEST_OUTPUT, CARD})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskChoice(_Frozen):
    """A task by name, with its arguments."""

    name: str = "segmentation"
    arguments: dict[str, Any] = Field(default_factory=dict)


class NetworkChoice(_Frozen):
    """A network by name, with its arguments."""

    name: str = "unet"
    arguments: dict[str, Any] = Field(default_factory=dict)


class ModelInput(_Frozen):
    """The input of the network.

    Attributes
    ----------
    axes
        Channel axis and spatial axes, such as ``"CYX"``; ``"TYX"`` or ``"TZYX"`` for movies.
    channels
        Names of the channels, in order.
    planes
        Planes of a z-stack that are channels of a 2D network (2.5D); None without a stack.
    window
        Side length in pixels of the window around a cell, per spatial axis; None for whole images.
    grey_as_rgb
        Whether an image of one channel is repeated over all channels.
    pixel_size
        Micrometres per spatial axis that images of known pixel size are resampled to; None: no resampling.
    scaling, statistics
        Method of intensity scaling, and its statistics of the training data.
    diameter
        Usual width of an object in the training data, in pixels of the network; None where it was not measured.
    """

    axes: str = "CYX"
    channels: tuple[str, ...] = ("grey",)
    planes: int | None = None
    window: tuple[int, ...] | None = None
    grey_as_rgb: bool = False
    pixel_size: dict[str, float] | None = None
    scaling: IntensityScaling = IntensityScaling()
    statistics: IntensityStatistics | None = None
    diameter: float | None = None

    @property
    def inputs(self) -> int:
        """Channels that enter the network."""
        return len(self.channels) * (self.planes or 1)

    @property
    def movies(self) -> bool:
        """Whether the input is a movie."""
        return "T" in self.axes

    @property
    def spatial_axes(self) -> str:
        """The axes without channels and time."""
        return self.axes.replace("C", "").replace("T", "")


class BundleSpec(_Frozen):
    """The content of ``bundle.yaml``.

    Attributes
    ----------
    decode
        Fitted parameters of the task's decoding.
    provenance
        Origin of the model: recipe, data hashes, code version, scores.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    task: TaskChoice
    input: ModelInput
    network: NetworkChoice
    decode: dict[str, float] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A validated bundle on disk.

    Attributes
    ----------
    folder
        Its folder.
    spec
        Its specification.
    digest
        SHA-256 over specification and weights: the model's identity.
    """

    folder: Path
    spec: BundleSpec
    digest: str

    @classmethod
    def load(cls, folder: str | Path) -> Bundle:
        """Open a bundle folder.

        Raises
        ------
        ModelNotFoundError
            The folder does not exist.
        BundleError
            A file is missing, damaged, or not allowed in a bundle.
        """
        folder = Path(folder)
        take_back(folder)
        if not folder.is_dir():
            raise ModelNotFoundError(
                f"expected a bundle folder, found none at {folder}", hint="name the folder that contains bundle.yaml"
            )
        _refuse_foreign_files(folder)
        _refuse_missing_files(folder)
        spec = _read_spec(folder / SPEC)
        return cls(folder=folder, spec=spec, digest=_digest(folder))

    def network(self) -> nn.Module:
        """Build the network with its weights, in evaluation mode, float32 on the CPU.

        Raises
        ------
        BundleError
            The weights are damaged or do not fit the network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            weights = load_file(self.folder / WEIGHTS)
        except (SafetensorError, OSError, ValueError) as error:
            raise BundleError(
                f"{self.folder / WEIGHTS} is not a safetensors file: {error}",
                hint="weights are safetensors only; train or import the model again",
            ) from error
        return _network(self.spec, weights, f"the weights in {self.folder}")

    def self_test(self, network: nn.Module | None = None, *, tolerance: float = 1e-2) -> float:
        """Run the stored test input and return the largest deviation from the stored output, over its range.

        Raises
        ------
        BundleError
            The deviation is beyond `tolerance`, or the stored arrays are damaged.
        """
        network = network if network is not None else self.network()
        expected = _load_array(self.folder / TEST_OUTPUT)
        answer = _forward(network, _load_array(self.folder / TEST_INPUT))
        if answer.shape != expected.shape:
            raise BundleError(f"self-test of {self.folder}: expected shape {expected.shape}, got {answer.shape}")
        spread = max(float(np.ptp(expected)), 1e-6)
        deviation = float(np.abs(answer - expected).max()) / spread
        if not deviation <= tolerance:
            raise BundleError(
                f"self-test of {self.folder}: the network deviates by {deviation:.3g} of the output's range, "
                f"at most {tolerance:.3g} is allowed",
                hint="the weights do not belong to this bundle, or this device computes them differently",
            )
        return deviation


@dataclass(frozen=True, eq=False)
class ModelInMemory:
    """A model in training, without a bundle on disk.

    Attributes
    ----------
    weights
        State of the network. They are copied when the network is built.
    digest
        Not a real digest: models in training have none.
    """

    spec: BundleSpec
    weights: Mapping[str, Tensor]
    digest: str = ""

    def network(self) -> nn.Module:
        """Build the network; see :meth:`Bundle.network`."""
        return _network(self.spec, self.weights, "the weights")


Model = Bundle | ModelInMemory
"""The model of a predictor: it has ``spec``, ``digest`` and ``network()``."""


def write_bundle(
    folder: str | Path,
    spec: BundleSpec,
    weights: Mapping[str, Tensor],
    *,
    test_input: NDArray[np.float32],
    card: str,
) -> Bundle:
    """Write a bundle folder atomically.

    Parameters
    ----------
    folder
        Destination; an existing bundle is replaced atomically.
    weights
        State of the network.
    test_input
        A scaled network input, (C, spatial…) float32, sides a multiple of the network's stride.
    card
        The model card, Markdown.

    Raises
    ------
    BundleError
        The weights do not fit the network that `spec` describes.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    with whole_path(folder) as draft:
        draft.mkdir()
        (draft / SPEC).write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
        save_file(tensors, draft / WEIGHTS)
        (draft / CARD).write_text(card, encoding="utf-8")
        np.save(draft / TEST_INPUT, test_input.astype(np.float32), allow_pickle=False)
        network = _network(spec, tensors, "the weights")
        np.save(draft / TEST_OUTPUT, _forward(network, test_input.astype(np.float32)), allow_pickle=False)
        follow_umask(draft)  # safetensors creates files readable only by the owner
        if folder.exists():
            _refuse_foreign_files(folder)
    return Bundle.load(folder)


def _network(spec: BundleSpec, weights: Mapping[str, Tensor], what: str) -> nn.Module:
    from cytoray_analysis.networks import build_network

    network = build_network(spec.network.name, spec.network.arguments)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(
            f"{what} do not fit the network {spec.network.name!r}: {error}", field="network.arguments"
        ) from error
    return network.eval()


def _refuse_foreign_files(folder: Path) -> None:
    present = {entry.name: entry for entry in os.scandir(folder)}
    foreign = sorted(set(present) - FILES)
    if foreign:
        raise BundleError(
            f"{folder} contains files that are not allowed in a bundle: {', '.join(foreign)}",
            hint=f"a bundle contains only {', '.join(sorted(FILES))}; pickled weights are never loaded",
        )
    for name, entry in present.items():
        if not entry.is_file(follow_symlinks=False):
            raise BundleError(
                f"expected a regular file, got {folder / name}", hint="replace links and folders by regular files"
            )


def _refuse_missing_files(folder: Path) -> None:
    missing = sorted(name for name in FILES if not (folder / name).exists())
    if missing:
        raise BundleError(f"{folder} lacks {', '.join(missing)}", hint="copy the whole bundle folder")


def _read_spec(path: Path) -> BundleSpec:
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"expected plain YAML in {path}: {error}", field=SPEC) from error
    try:
        return BundleSpec.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(
            f"{path}: {'.'.join(str(part) for part in first['loc']) or 'document'}: {first['msg']}",
            field=".".join(str(part) for part in first["loc"]) or None,
            hint="the bundle was written by another version of Cytoray, or edited by hand",
        ) from error


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (SPEC, WEIGHTS):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _load_array(path: Path) -> NDArray[np.float32]:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BundleError(f"expected a plain NumPy array in {path}: {error}") from error
    return np.asarray(array, dtype=np.float32)


def _forward(network: nn.Module, array: NDArray[np.float32]) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        answer: NDArray[np.float32] = network(torch.from_numpy(array)[None])[0].float().numpy()
    return answer
