"""Images of strangers that need a process of their own: vendors' formats, zipped OME-Zarr, codecs without a bound.

Their readers are large libraries, some in C++, that were not written for hostile files. They run in a process of
their own with bounded memory and time; whatever happens to it is an error about the image. Starting it takes a second
or two, until the reader's libraries are loaded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cytoray_analysis import errors
from cytoray_analysis.answer_warnings import AnswerWarning
from cytoray_analysis.errors import CytorayError, ImageTooLargeError, UnreadableImageError
from cytoray_analysis.images.archive import ZIP_STARTS, declared_in, unpack
from cytoray_analysis.images.damage import reading
from cytoray_analysis.images.image import Image, image_from_array
from cytoray_analysis.images.limits import Declared, Limits
from cytoray_analysis.images.tiff_directories import TIFF_STARTS
from cytoray_analysis.selection import EVERYTHING, Selection

_SECONDS = 60.0
_BYTES_PER_SECOND = 2**20
# What the libraries take before they read anything, and how many copies of the pixels they may make.
_MEMORY_LEAST = 3 * 2**30
_COPIES = 4


@dataclass(frozen=True)
class Format:
    """A format that a bioio reader of its own reads.

    Parameters
    ----------
    name
        What people call it.
    module
        The reader's module.
    suffixes
        Of file names; the first is what a file without a name is called.
    start, offset
        The bytes that files have at an offset; None where the name alone tells.
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    start: bytes | None = None
    offset: int = 0

    @property
    def package(self) -> str:
        """What to install."""
        return self.module.replace("_", "-")

    def starts(self, start: bytes) -> bool:
        """Whether a file with these first bytes has the format."""
        return self.start is not None and start[self.offset :].startswith(self.start)


FORMATS = (
    Format("CZI", "bioio_czi", (".czi",), b"ZISRAWFILE"),
    Format("ND2", "bioio_nd2", (".nd2",), b"\xda\xce\xbe\x0a"),
    Format("LIF", "bioio_lif", (".lif",), b"\x2a", 8),
    Format("DeltaVision", "bioio_dv", (".dv", ".r3d"), b"\xa0\xc0", 96),
    Format("Slidebook", "bioio_sldy", (".sldy",)),
)


# What the extra "formats" installs.
_EXTRA = frozenset({"CZI", "ND2", "LIF"})


def format_of(start: bytes, name: str) -> Format | None:
    """Return the vendor's format of a file, by its first bytes, else by its name.

    Parameters
    ----------
    start
        At least the first 100 bytes.
    """
    # LIF starts with the number 112, and one byte of it would be a weak sign.
    by_bytes = [one for one in FORMATS if one.starts(start) and (one.name != "LIF" or start[:4] == b"\x70\0\0\0")]
    by_name = [one for one in FORMATS if Path(name).suffix.lower() in one.suffixes]
    return next(iter(by_bytes + by_name), None)


def needs_file(data: bytes, name: str) -> bool:
    """Whether the bytes are of a format that is read through a file."""
    return data.startswith(ZIP_STARTS) or format_of(data[:128], name) is not None


def reader_module(found: Format, label: str) -> Any:
    """Import the reader of a format.

    Raises
    ------
    UnreadableImageError
        It is not installed.
    """
    if find_spec(found.module) is None:
        extra = ", or everything with pip install 'cytoray[formats]'" if found.name in _EXTRA else ""
        raise UnreadableImageError(
            f"{label} is a {found.name} file, and no installed reader knows this format",
            hint=f"The operator installs {found.package}{extra}; or save the image as OME-TIFF.",
        )
    return import_module(found.module)


def read_upload(
    data: bytes, label: str, limits: Limits, selection: Selection = EVERYTHING, labels: bool = False
) -> Image:
    """Read the bytes of a vendor's file, a zipped OME-Zarr or a TIFF file of a codec that is not bounded.

    The file that they need is gone afterwards. Only what is selected is decoded, so that a part that is not there does
    not matter where it is not asked for.

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
            [sys.executable, "-m", "cytoray_analysis.images.uploads", task],
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
        hint="the file is damaged, truncated or of another format than it seems; save or copy it again",
    )


def _bound_memory(limits: Limits) -> None:
    import resource

    if limits.decoded_bytes is not None:
        most = _MEMORY_LEAST + _COPIES * limits.decoded_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _read(folder: Path, label: str, limits: Limits, header: bool, selection: Selection, labels: bool) -> dict[str, Any]:
    from cytoray_analysis.images.reader import read_apart

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
