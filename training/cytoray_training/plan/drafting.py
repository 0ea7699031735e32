"""A recipe written from a data set, and from the model to start with if there is one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cytoray_analysis.bundle import BundleSpec
from cytoray_analysis.errors import RecipeError
from cytoray_analysis.kinds import task_kind
from cytoray_services.datasets import open_dataset, read_labelled, task_arguments
from cytoray_services.registry import load_bundle
from cytoray_services.settings import Settings
from cytoray_training.recipe.schema import CHANNELS, REGISTRY

_TASKS = {"labels": "segmentation", "image": "label_free", "class": "classification", "lineage": "tracking"}
_NETWORKS: dict[str, dict[str, Any]] = {
    "segmentation": {"name": "unet", "arguments": {"widths": [32, 64, 128, 256]}},
    "label_free": {"name": "unet", "arguments": {"widths": [32, 64, 128]}},
    "classification": {"name": "cnn"},
    "tracking": {"name": "pair"},
}
# Of a network, these follow from the data; all others shape the weights.
_FROM_DATA = frozenset({"inputs", "outputs", "dimensions", "window", "finish"})
_FROM_SCRATCH = {"epochs": 40, "crops_per_epoch": 512, "batch_size": 16, "learning_rate": 2e-3, "validate_every": 5}
_FROM_START = {"epochs": 12, "crops_per_epoch": 256, "batch_size": 16, "learning_rate": 1e-3, "validate_every": 3}
_CROPS = {"classification": 64, "tracking": 512}
_CROP, _CROP_OF_VOLUME = 256, [16, 64, 64]
_RATE = 0.3  # of all weights that are taken over, relative to new ones


def draft_recipe(data: Path | str, settings: Settings, *, start: str | None = None) -> dict[str, Any]:
    """Write a recipe for a data set, as nested mappings.

    Parameters
    ----------
    data
        Folder of the data set, or its URI.
    start
        The model to start with: a name in the registry, or a bundle folder. Task, network, channels and scaling are
        those of this model.

    Raises
    ------
    DatasetError, MissingFileError
        The data set cannot be opened, or its first image cannot be read.
    ModelNotFoundError, BundleError
        There is no such model.
    RecipeError
        The model answers another question than the data.
    """
    dataset = open_dataset(data)
    name = re.sub(r"[^a-z0-9]+", "-", Path(str(data)).name.lower()).strip("-") or "model"
    if start is not None:
        spec = load_bundle(start, settings)[0].spec
        if task_kind(spec.task.name).truth != dataset.truth_kind:
            raise RecipeError(
                f"expected data for the task {spec.task.name} of {start}, got truth of the kind {dataset.truth_kind!r}",
                field="--start",
                hint="choose a model for this kind of data: cytoray models list",
            )
        return _started(str(data), name, start, spec)
    task = _TASKS.get(dataset.truth_kind)
    if task is None:
        raise RecipeError(
            f"expected truth of one of the kinds {', '.join(_TASKS)}, got {dataset.truth_kind!r}",
            field="data",
            hint="write a recipe for this kind by hand: see training/recipes",
        )
    image = read_labelled(dataset, dataset.images[0], task_arguments(dataset)).image
    axes = "ZYX" if "Z" in image.axes and task != "tracking" else "YX"
    colour = len(image.channels) == len(CHANNELS["rgb"]) and axes == "YX"
    crop = _CROP_OF_VOLUME if axes == "ZYX" and task not in _CROPS else _CROPS.get(task, _CROP)
    return {
        "model": {"name": name, "task": {"name": task}, "network": _NETWORKS[task]},
        "data": {"root": str(data), "axes": axes, "channels": "rgb" if colour else _channels(image.channels)},
        "training": {**_FROM_SCRATCH, "crop_size": crop, "engine": "torch"},
        "scale": {"workers": 1},
    }


def _started(data: str, name: str, start: str, spec: BundleSpec) -> dict[str, Any]:
    source = str(Path(start).expanduser().absolute()) if Path(start).expanduser().is_dir() else f"{REGISTRY}{start}"
    read = spec.input
    size = read.pixel_size and read.pixel_size["Y"]
    crop = list(read.window) if read.window else _CROP if read.spatial_axes == "YX" else _CROP_OF_VOLUME
    network = {key: value for key, value in spec.network.arguments.items() if key not in _FROM_DATA}
    # What the data decide, such as the names of classes, is decided again.
    task = {key: value for key, value in spec.task.arguments.items() if key not in ("dimensions", "classes")}
    return {
        "model": {
            "name": name,
            "task": _present({"name": spec.task.name, "arguments": task}),
            "network": _present({"name": spec.network.name, "arguments": network}),
            "start": {"from": source, "rate": _RATE},
        },
        "data": {
            "root": data,
            "axes": read.spatial_axes,
            "channels": "rgb" if read.channels == CHANNELS["rgb"] else _channels(read.channels),
            "grey_as_rgb": read.grey_as_rgb,
            "scaling": read.scaling.model_dump(mode="json", exclude_defaults=True),
            **({"pixel_size": size} if size else {}),
            **({"planes": read.planes} if read.planes else {}),
        },
        "training": {**_FROM_START, "crop_size": crop[0] if isinstance(crop, list) and len(set(crop)) == 1 else crop},
        "scale": {"workers": 1},
    }


def _channels(names: tuple[str, ...]) -> str | list[str]:
    return "grey" if len(names) <= 1 else list(names)


def _present(choice: Mapping[str, Any]) -> dict[str, Any]:
    """Return a choice without empty arguments."""
    return {key: value for key, value in choice.items() if value}
