"""The process in which :mod:`cytoray_analysis.images.uploads` reads an image of a stranger: with bounded memory."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis.errors import CytorayError
from cytoray_analysis.images.archive import unpack
from cytoray_analysis.images.damage import reading
from cytoray_analysis.images.limits import Limits
from cytoray_analysis.images.reader import read_apart
from cytoray_analysis.selection import Selection

# What the libraries take before they read anything, and how many copies of the pixels they may make.
_MEMORY_LEAST = 3 * 2**30
_COPIES = 4


def _bound_memory(limits: Limits) -> None:
    import resource

    if limits.decoded_bytes is not None:
        most = _MEMORY_LEAST + _COPIES * limits.decoded_bytes
        # The inherited limit also applies: only root may raise it.
        given = [one for one in resource.getrlimit(resource.RLIMIT_AS) if one != resource.RLIM_INFINITY]
        most = min([most, *given])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read(folder: Path, label: str, limits: Limits, header: bool, selection: Selection, labels: bool) -> dict[str, Any]:
    (source,) = folder.glob("upload*")
    if source.suffix == ".zip":
        with reading(label):
            source = unpack(source, folder / "unpacked", limits, label)
    image = read_apart(source, limits, label, selection, labels)
    facts: dict[str, Any] = {
        "axes": image.axes,
        "shape": image.shape,
        "dtype": image.dtype.str,
        "channels": image.channels,
    }
    facts |= {"guessed_axes": image.guessed_axes, "equal_samples": image.equal_samples, "numbers": image.numbers}
    facts |= {"warnings": [[one.code, one.sentence] for one in image.warnings]}
    if not header:
        np.save(folder / "pixels.npy", image.read())
    return facts | {"pixel_size": None if image.pixel_size is None else dict(image.pixel_size)}


def _main(task: str) -> None:
    """Do what the parent process asks for, and print the answer as the last line."""
    given = json.loads(task)
    limits = Limits(**given["limits"])
    _bound_memory(limits)
    try:
        folder = Path(given["folder"])
        selection = Selection(**given["selection"])
        answer = _read(folder, given["label"], limits, given["header"], selection, given["labels"])
    except CytorayError as error:
        answer = error.describe()
    sys.stdout.write("\n" + json.dumps(answer))


if __name__ == "__main__":
    _main(sys.argv[1])
