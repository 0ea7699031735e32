"""The bundle: a folder that holds a trained model and everything that is needed to use it.

======================  ===========================================================================
``bundle.yaml``         the specification, :class:`BundleSpec`
``weights.safetensors`` the weights of the network, float32
``test_input.npy``      one network input, scaled, (C, spatial…) float32
``test_output.npy``     what the network answers to it, (K, spatial…) float32
``README.md``           the model card
======================  ===========================================================================

Loading runs no code that a bundle carries: names choose among the networks and tasks of this package, weights
are safetensors, arrays are plain NumPy files, and a folder that holds any other file is refused.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cytoray_analysis.errors import BundleError, ModelNotFoundError
from cytoray_analysis.files import draft_folder, follow_umask
from cytoray_analysis.images.intensity import IntensityScaling, IntensityStatistics
from cytoray_analysis.networks import build_network
from cytoray_analysis.plain_yaml import load_yaml

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
    """What the network takes.

    Attributes
    ----------
    axes
        Channel axis and spatial axes, such as ``"CYX"``; ``"TYX"`` or ``"TZYX"`` for movies.
    channels
        Names of the channels, in order.
    planes
        Planes of a z-stack that enter side by side as channels of a flat network (2.5D); None takes no stack.
    window
        Side in pixels along each spatial axis of what the network sees of one cell; None where it sees images.
    grey_as_rgb
        Whether an image of one channel is repeated over all channels.
    pixel_size
        Micrometres per spatial axis that images are resampled to when they know their own; None leaves them.
    scaling, statistics
        How intensities are scaled, and what was fitted for it on the training data.
    """

    axes: str = "CYX"
    channels: tuple[str, ...] = ("grey",)
    planes: int | None = None
    window: tuple[int, ...] | None = None
    grey_as_rgb: bool = False
    pixel_size: dict[str, float] | None = None
    scaling: IntensityScaling = IntensityScaling()
    statistics: IntensityStatistics | None = None

    @property
    def inputs(self) -> int:
        """Channels that enter the network."""
        return len(self.channels) * (self.planes or 1)

    @property
    def spatial_axes(self) -> str:
        """The axes without channels and time."""
        return self.axes.replace("C", "").replace("T", "")


class BundleSpec(_Frozen):
    """What ``bundle.yaml`` holds.

    Attributes
    ----------
    decode
        Fitted parameters of the task's decoding.
    provenance
        Where the model comes from: recipe, data hashes, code version, scores.
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
    """A bundle on disk, checked.

    Attributes
    ----------
    folder
        Where it lies.
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
            There is no such folder.
        BundleError
            A file is missing, damaged, or has no place in a bundle.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ModelNotFoundError(f"no bundle folder at {folder}", hint="give the folder that holds bundle.yaml")
        _refuse_foreign_files(folder)
        spec = _read_spec(folder / SPEC)
        return cls(folder=folder, spec=spec, digest=_digest(folder))

    def network(self) -> nn.Module:
        """Build the network with its weights, in evaluation mode, float32 on the CPU.

        Raises
        ------
        BundleError
            The weights are damaged or do not fit the network.
        """
        network = build_network(self.spec.network.name, self.spec.network.arguments)
        try:
            weights = load_file(self.folder / WEIGHTS)
        except (SafetensorError, OSError, ValueError) as error:
            raise BundleError(
                f"{self.folder / WEIGHTS} is not a safetensors file: {error}",
                hint="weights are safetensors only; train or import the model again",
            ) from error
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise BundleError(
                f"the weights in {self.folder} do not fit its network {self.spec.network.name!r}: {error}",
                field="network.arguments",
            ) from error
        return network.eval()

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


def write_bundle(
    folder: str | Path,
    spec: BundleSpec,
    weights: Mapping[str, Tensor],
    *,
    test_input: NDArray[np.float32],
    card: str,
) -> Bundle:
    """Write a bundle folder in one step: it appears whole or not at all.

    Parameters
    ----------
    folder
        Where to put it; an existing bundle there is replaced.
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
    folder = Path(folder)
    draft = draft_folder(folder)
    try:
        (draft / SPEC).write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
        save_file(tensors, draft / WEIGHTS)
        (draft / CARD).write_text(card, encoding="utf-8")
        np.save(draft / TEST_INPUT, test_input.astype(np.float32), allow_pickle=False)
        network = Bundle(folder=draft, spec=spec, digest="").network()
        np.save(draft / TEST_OUTPUT, _forward(network, test_input.astype(np.float32)), allow_pickle=False)
        follow_umask(draft)  # safetensors writes for the owner alone
        if folder.exists():
            _refuse_foreign_files(folder)
            shutil.rmtree(folder)
        draft.replace(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Bundle.load(folder)


def _refuse_foreign_files(folder: Path) -> None:
    present = {entry.name: entry for entry in os.scandir(folder)}
    foreign = sorted(set(present) - FILES)
    if foreign:
        raise BundleError(
            f"{folder} holds files that have no place in a bundle: {', '.join(foreign)}",
            hint=f"a bundle holds {', '.join(sorted(FILES))} and nothing else; pickled weights are never loaded",
        )
    for name, entry in present.items():
        if not entry.is_file(follow_symlinks=False):
            raise BundleError(f"{folder / name} is not a plain file", hint="links and folders are refused")
    missing = sorted(FILES - set(present))
    if missing:
        raise BundleError(f"{folder} lacks {', '.join(missing)}", hint="copy the whole bundle folder")


def _read_spec(path: Path) -> BundleSpec:
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not plain YAML: {error}", field=SPEC) from error
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
        raise BundleError(f"{path} is not a plain NumPy array: {error}") from error
    return np.asarray(array, dtype=np.float32)


def _forward(network: nn.Module, array: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        answer: NDArray[np.float32] = network(torch.from_numpy(array)[None])[0].float().numpy()
    return answer
