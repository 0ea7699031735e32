"""Layouts of OME-Zarr: both versions, shards, other orders of bytes and axes, collections and plates, and archives."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from conformance.layout import GREY, HYPER, STACK, TWO, Layout
from conformance.ome import NAMES, YX_SIZE
from cytoray_analysis.selection import Selection

FLAT = HYPER[:, :, 0]  # T, C
_KINDS = {"T": "time", "C": "channel"}


def group_at(path: Path, version: int) -> Any:
    """Create a group of NGFF 0.4 or 0.5."""
    return zarr.open_group(path, mode="w", zarr_format=2 if version == 4 else 3)


def image_in(
    group: Any,
    array: NDArray[Any],
    axes: str,
    version: int,
    *,
    names: tuple[str, ...] = (),
    levels: int = 2,
    **options: Any,
) -> None:
    """Write an image and its reduced copies into a group."""
    chunks = tuple(1 if axis in "TZ" else 2 if axis == "C" else 16 for axis in axes)
    datasets = []
    for level in range(levels):
        factor = 2**level
        pixels = array[..., ::factor, ::factor]
        settings = {"dtype": array.dtype, "chunks": chunks, **options}
        stored = group.create_array(str(level), shape=pixels.shape, **settings)
        stored[...] = pixels
        scale = [0.25 * factor if axis == "Y" else 0.5 * factor if axis == "X" else 1.0 for axis in axes]
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    described: list[dict[str, Any]] = [
        {"name": axis.lower(), "type": _KINDS[axis]}
        if axis in _KINDS
        else {"name": axis.lower(), "type": "space", **({} if axis == "Z" else {"unit": "micrometer"})}
        for axis in axes
    ]
    image: dict[str, Any] = {"axes": described, "datasets": datasets, "name": "image"}
    omero = {"omero": {"channels": [{"label": name} for name in names]}} if names else {}
    if version == 4:
        group.attrs.update({"multiscales": [{**image, "version": "0.4"}], **omero})
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image], **omero}


def store(array: NDArray[Any], axes: str, version: int, **options: Any) -> Callable[[Path], Path]:
    """Return what writes a store of one image."""

    def write(folder: Path) -> Path:
        path = folder / "image.ome.zarr"
        image_in(group_at(path, version), array, axes, version, **options)
        return path

    return write


def zipped(source: Path, target: Path) -> Path:
    """Pack an OME-Zarr folder."""
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(source.rglob("*")):
            if file.is_file():
                archive.write(file, f"{source.name}/{file.relative_to(source).as_posix()}")
    return target


def _of_macos(version: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = zipped(store(FLAT, "TCYX", version, names=NAMES)(folder), folder / "zipped.zip")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("__MACOSX/._image.ome.zarr", b"\0\5\x16\7")
            archive.writestr("image.ome.zarr/.DS_Store", b"\0\0\0\1Bud1")
        return path

    return write


def _sparse() -> NDArray[np.uint16]:
    """Return a picture that is blank but in its middle, so that its outer chunks are not stored."""
    array = np.zeros((96, 112), np.uint16)
    array[28:68, 28:84] = GREY
    array[28:68, [28, 83]] = array[[28, 67], 28:84] = 0
    return array


def _attributes(version: int, **what: Any) -> dict[str, Any]:
    return what if version == 4 else {"ome": {"version": "0.5", **what}}


def _collection(version: int, *, listed: bool) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "image.zarr"
        root = group_at(path, version)
        root.attrs.update(_attributes(version, **{"bioformats2raw.layout": 3}))
        image_in(root.create_group("0"), TWO, "CYX", version, names=NAMES)
        image_in(root.create_group("1"), STACK, "ZYX", version)
        if listed:
            root.create_group("OME").attrs.update(_attributes(version, series=["0", "1"]))
        return path

    return write


def _plate(version: int) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "plate.zarr"
        root = group_at(path, version)
        wells = [{"path": f"A/{column}", "rowIndex": 0, "columnIndex": column - 1} for column in (1, 2)]
        names = {"rows": [{"name": "A"}], "columns": [{"name": "1"}, {"name": "2"}], "wells": wells}
        root.attrs.update(_attributes(version, plate=names))
        for column in (1, 2):
            well = root.create_group(f"A/{column}")
            well.attrs.update(_attributes(version, well={"images": [{"path": "0"}, {"path": "1"}]}))
            for field in range(2):
                image_in(well.create_group(str(field)), TWO + 100 * column + field, "CYX", version, names=NAMES)
        return path

    return write


_FACTS: dict[str, Any] = {"channels": NAMES, "pixel_size": YX_SIZE}
_PLAIN: dict[str, Any] = {"pixel_size": YX_SIZE}
STORES: dict[str, Layout] = {}
for _version in (4, 5):
    _ngff = f"OME-Zarr 0.{_version}"
    STORES |= {
        _ngff: Layout(store(FLAT, "TCYX", _version, names=NAMES), FLAT, "TCYX", **_FACTS),
        f"{_ngff} of a stack": Layout(store(STACK, "ZYX", _version), STACK, "ZYX", **_PLAIN),
        f"{_ngff} with axes in another order": Layout(
            store(np.moveaxis(HYPER[0], 0, 1), "ZCYX", _version, names=NAMES), HYPER[0], "CZYX", **_FACTS
        ),
        f"{_ngff} of axes of length one": Layout(
            store(GREY[None, None, None], "TCZYX", _version), GREY, "YX", **_PLAIN
        ),
        f"{_ngff} big endian": Layout(store(TWO.astype(">u2"), "CYX", _version, names=NAMES), TWO, "CYX", **_FACTS),
        f"{_ngff} whose blank chunks are not stored": Layout(
            store(_sparse(), "YX", _version), _sparse(), "YX", **_PLAIN
        ),
        f"{_ngff} of bioformats2raw, one image chosen": Layout(
            _collection(_version, listed=True), TWO, "CYX", selection=Selection(series="0"), **_FACTS
        ),
        f"{_ngff} of bioformats2raw without a list, one chosen": Layout(
            _collection(_version, listed=False), STACK, "ZYX", selection=Selection(series="1"), **_PLAIN
        ),
        f"{_ngff} of a plate, a field chosen": Layout(
            _plate(_version), TWO + 201, "CYX", selection=Selection(series="A/2/1"), **_FACTS
        ),
        f"zip of {_ngff} as macOS writes it": Layout(_of_macos(_version), FLAT, "TCYX", **_FACTS),
    }
STORES |= {
    "OME-Zarr 0.4 in Fortran order": Layout(store(TWO, "CYX", 4, names=NAMES, order="F"), TWO, "CYX", **_FACTS),
    "OME-Zarr 0.5 of shards": Layout(
        store(TWO, "CYX", 5, names=NAMES, chunks=(1, 16, 16), shards=(2, 32, 32)), TWO, "CYX", **_FACTS
    ),
}
