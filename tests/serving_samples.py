"""Small real bundles of every kind, and requests that are wrong in every way that a caller can think of."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.networks import build_network
from cytoray_analysis.tracking.candidates import FEATURES
from cytoray_serving.predict.answer_record import RECORD


@dataclass(frozen=True)
class WrongRequest:
    """A request that must be refused, and how."""

    status: int
    error: str
    body: bytes
    content_type: str = "image/tiff"
    model: str = "nuclei"
    accept: str = "*/*"


def tiff_bytes(array: NDArray[np.generic], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return a texture: noise in which neighbours are alike, as they are in pictures; white noise shows nothing."""
    values = np.random.default_rng(seed).random(shape)
    smooth = gaussian_filter(values, (0,) * (len(shape) - 2) + (1.5, 1.5))
    low, high = smooth.min(), smooth.max()
    return np.asarray((smooth - low) / (high - low) * 255).astype(np.uint8)


def huge_header(compression: int) -> bytes:
    """Make a TIFF of 1 KB whose header declares 60,000 × 60,000 pixels; compression 1 is none, 8 is deflate."""
    tags = [
        (256, 4, 60_000),
        (257, 4, 60_000),
        (258, 3, 8),
        (259, 3, compression),
        (262, 3, 1),
        (273, 4, 512),
        (277, 3, 1),
    ]
    tags += [(278, 4, 60_000), (279, 4, 512)]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + directory + struct.pack("<I", 0)
    return head.ljust(1024, b"\0")


def png_header(width: int, height: int) -> bytes:
    """Make a PNG that declares a size and holds no pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


MAIN = "from cytoray_services.commands.root import main; main()"
GOOD = tiff_bytes(noise(64, 96))
NOT_A_NUMBER = np.full((64, 64), np.nan, dtype=np.float32)
LARGEST_BODY = 8 * 2**20

WRONG_REQUESTS = {
    "text named .tif": WrongRequest(422, "UnreadableImageError", b"these are no pixels\n" * 50),
    "truncated tiff": WrongRequest(422, "UnreadableImageError", tiff_bytes(noise(256, 256))[:20_000]),
    "truncated compressed tiff": WrongRequest(
        422, "UnreadableImageError", tiff_bytes(noise(256, 256), compression="zlib")[:20_000]
    ),
    "nan pixels": WrongRequest(422, "ImageError", tiff_bytes(NOT_A_NUMBER)),
    "0 x 0 pixels": WrongRequest(422, "", png_header(0, 0), "image/png"),
    "one axis too many": WrongRequest(
        422, "AxesError", tiff_bytes(noise(5, 64, 64), metadata={"axes": "ZYX"}, ome=True)
    ),
    "wrong channel count": WrongRequest(
        422, "AxesError", tiff_bytes(noise(2, 64, 64), metadata={"axes": "CYX"}, ome=True)
    ),
    "60,000 x 60,000 in 1 KB": WrongRequest(422, "UnreadableImageError", huge_header(1)),
    "60,000 x 60,000 deflated to 1 KB": WrongRequest(422, "UnreadableImageError", huge_header(8)),
    "60,000 x 60,000 png": WrongRequest(413, "ImageTooLargeError", png_header(60_000, 60_000), "image/png"),
    "body over the limit": WrongRequest(413, "ImageTooLargeError", tiff_bytes(noise(2900, 2900))),
    "unknown model": WrongRequest(404, "ModelNotFoundError", GOOD, model="nucleoli"),
    "unknown alias": WrongRequest(404, "ModelNotFoundError", GOOD, model="nuclei@blue"),
    "empty body": WrongRequest(400, "RequestError", b""),
    "json body": WrongRequest(400, "RequestError", b"{}", "application/json"),
    "form without a file": WrongRequest(
        400,
        "RequestError",
        b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--b--\r\n",
        "multipart/form-data; boundary=b",
    ),
    "malformed form": WrongRequest(400, "RequestError", b"--x", "multipart/form-data"),
    "unknown answer": WrongRequest(406, "NotAcceptableError", GOOD, accept="video/mp4"),
    "malformed accept": WrongRequest(406, "NotAcceptableError", GOOD, accept="image"),
}


CELL_CLASSES = ["lymphocyte", "monocyte", "neutrophil"]


def write_small_bundle(folder: Path, *, seed: int = 0, name: str = "nuclei", dimensions: int = 2) -> Path:
    """Write a segmentation bundle with a small untrained network; each seed gives another model."""
    network = {"inputs": 1, "outputs": 1 + dimensions, "widths": [8, 16]}
    if dimensions == 3:
        network |= {"dimensions": 3, "widths": [4, 8]}
    spec = BundleSpec(
        name=name,
        task=TaskChoice(arguments={} if dimensions == 2 else {"dimensions": 3}),
        input=ModelInput(axes="CYX" if dimensions == 2 else "CZYX"),
        network=NetworkChoice(arguments=network),
        # So that it finds objects in a texture, although they are in pieces.
        decode={"votes": 6.0, "smallest": 2.0} if dimensions == 2 else {"smallest": 2.0},
        provenance={"seed": seed},
    )
    return _write(folder, spec, (1, *(32,) * dimensions) if dimensions == 2 else (1, 8, 16, 16), seed)


def write_stain_bundle(folder: Path, *, planes: int | None = None) -> Path:
    """Write a label-free bundle that predicts one stain and how far off it may be, from an image or from a stack."""
    spec = BundleSpec(
        name="stain",
        task=TaskChoice(
            name="label_free",
            arguments={"channels": ["DAPI"], "offset": [100.0], "scale": [0.05], "uncertainty": True},
        ),
        input=ModelInput(planes=planes),
        network=NetworkChoice(arguments={"inputs": planes or 1, "outputs": 2, "widths": [8, 16]}),
    )
    return _write(folder, spec, (planes or 1, 32, 32))


def write_cell_bundle(folder: Path, *, pixel_size: dict[str, float] | None = None) -> Path:
    """Write a bundle that classifies cells in windows of 16 pixels."""
    spec = BundleSpec(
        name="cells",
        task=TaskChoice(name="classification", arguments={"classes": CELL_CLASSES}),
        input=ModelInput(window=(16, 16), pixel_size=pixel_size),
        network=NetworkChoice(name="cnn", arguments={"inputs": 1, "outputs": 3, "widths": [4, 8]}),
    )
    return _write(folder, spec, (1, 16, 16))


def write_linker_bundle(folder: Path) -> Path:
    """Write a tracking bundle."""
    spec = BundleSpec(
        name="linker",
        task=TaskChoice(name="tracking"),
        input=ModelInput(axes="TYX"),
        network=NetworkChoice(name="pair", arguments={"inputs": FEATURES, "outputs": 2, "widths": [8]}),
    )
    return _write(folder, spec, (FEATURES, 4))


def _write(folder: Path, spec: BundleSpec, shape: tuple[int, ...], seed: int = 0) -> Path:
    torch.manual_seed(seed)
    weights = build_network(spec.network.name, spec.network.arguments).state_dict()
    sample = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    write_bundle(folder, spec, weights, test_input=sample, card="# A model for tests\n")
    return folder


def moving_squares(frames: int = 5) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Make a movie (T, Y, X) of two squares that move to the right, and its masks, numbered anew in each frame."""
    movie, masks = np.full((frames, 40, 60), 20, np.uint8), np.zeros((frames, 40, 60), np.uint16)
    for frame in range(frames):
        for place, (row, column) in enumerate(((5, 5), (24, 20))):
            square = (frame, slice(row, row + 9), slice(column + 2 * frame, column + 2 * frame + 9))
            masks[square] = 1 + (place + frame) % 2
            movie[square] = 120 + 60 * place
    return movie, masks


def answers_in(folder: Path) -> list[str]:
    """Return the names of the answers in a folder, without the record of them."""
    return sorted(path.name for path in folder.iterdir() if path.name != RECORD)
