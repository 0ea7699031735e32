"""Untrusted images that need a separate process: vendors' formats, zipped OME-Zarr, codecs without a size limit.

Their readers are large libraries, some in C++, that were not written for hostile files. They run in a process of
their own with bounded memory and time; whatever happens to it is an error about the image. Starting it takes a second
or two, until the reader's libraries are loaded. What runs there is :mod:`cytoray_analysis.images.upload_process`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis import errors
from cytoray_analysis.answer_warnings import AnswerWarning
from cytoray_analysis.errors import CytorayError, ImageTooLargeError, UnreadableImageError
from cytoray_analysis.images.archive import ZIP_STARTS, declared_in
from cytoray_analysis.images.damage import reading
from cytoray_analysis.images.image import Image, image_from_array
from cytoray_analysis.images.limits import Declared, Limits
from cytoray_analysis.images.tiff_directories import TIFF_STARTS
from cytoray_analysis.images.vendor_formats import format_of, reader_module
from cytoray_analysis.selection import EVERYTHING, Selection

_SECONDS = 60.0
_BYTES_PER_SECOND = 2**20


def needs_file(data: bytes, name: str) -> bool:
    """Whether the bytes are of a format that is read through a file."""
    return data.startswith(ZIP_STARTS) or format_of(data[:128], name) is not None


def read_upload(
    data: bytes, label: str, limits: Limits, selection: Selection = EVERYTHING, labels: bool = False
) -> Image:
    """Read the bytes of a vendor's file, a zipped OME-Zarr or a TIFF file of a codec that is not bounded.

    The file that they need is gone afterwards. Only the selection is decoded, so missing parts outside it do not
    matter.

    Raises
    ------
    CytorayError
        As :func:`cytoray_analysis.images.read_image` raises them.
    """
    if data.startswith(ZIP_STARTS):
        with reading(label):
            declared_in(data, limits, label)
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        facts = _read_apart(data, Path(folder), label, limits, header=False, selection=selection, labels=labels)
        pixels = np.load(Path(folder) / "pixels.npy")
    image = image_from_array(
        pixels,
        facts["axes"],
        channels=facts["channels"],
        pixel_size=facts["pixel_size"],
        source=label,
        warnings=[AnswerWarning(*one) for one in facts["warnings"]],
    )
    numbers = tuple(facts["numbers"])
    return replace(image, guessed_axes=facts["guessed_axes"], equal_samples=facts["equal_samples"], numbers=numbers)


def declared_in_upload(data: bytes, label: str, limits: Limits) -> Declared:
    """Return what the header of such bytes declares; of vendors' formats this takes seconds."""
    if data.startswith(ZIP_STARTS):
        with reading(label):
            return declared_in(data, limits, label)
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        facts = _read_apart(data, Path(folder), label, limits, header=True)
    return Declared(facts["axes"], tuple(facts["shape"]), np.dtype(facts["dtype"]))


def _read_apart(
    data: bytes,
    folder: Path,
    label: str,
    limits: Limits,
    *,
    header: bool,
    selection: Selection = EVERYTHING,
    labels: bool = False,
) -> dict[str, Any]:
    simple = ".zip" if data.startswith(ZIP_STARTS) else ".tif" if data.startswith(TIFF_STARTS) else None
    found = None if simple else format_of(data[:128], label)
    if found is not None and find_spec(found.module) is None:
        reader_module(found, label)
    (folder / f"upload{simple or (found.suffixes[0] if found else '')}").write_bytes(data)
    asked = {"folder": str(folder), "label": label, "limits": asdict(limits), "header": header}
    task = json.dumps(asked | {"selection": selection.model_dump(mode="json"), "labels": labels})
    one_thread = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLOSC_NTHREADS", "NUMEXPR_NUM_THREADS"), "1"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cytoray_analysis.images.upload_process", task],
            capture_output=True,
            check=False,
            timeout=_SECONDS + len(data) / _BYTES_PER_SECOND,
            env=os.environ | one_thread,
        )
    except subprocess.TimeoutExpired as error:
        raise UnreadableImageError(f"{label} took too long to read", hint="save it as OME-TIFF or OME-Zarr") from error
    answer = done.stdout.rpartition(b"\n")[2]
    if done.returncode or not answer:
        raise _crash(label, done)
    facts: dict[str, Any] = json.loads(answer)
    if "error" in facts:
        kind = getattr(errors, facts["error"], CytorayError)
        message = facts["message"].replace(f"{folder}/", "")  # the file's own place means nothing to anybody
        raise kind(message, field=facts.get("field"), hint=facts.get("hint"))
    return facts


def _crash(label: str, done: subprocess.CompletedProcess[bytes]) -> CytorayError:
    if done.returncode == -signal.SIGKILL or b"MemoryError" in done.stderr or b"bad_alloc" in done.stderr:
        return ImageTooLargeError(f"{label} does not fit into memory", hint="crop it, or save it as OME-Zarr")
    reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
    return UnreadableImageError(
        f"{label} could not be decoded: its reader ended with {done.returncode} {reason}".rstrip(),
        hint="the file is damaged, truncated or of another format than its name; save or copy it again",
    )
