"""Formats of microscope vendors, and the bioio reader of each."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cytoray_analysis.errors import UnreadableImageError


@dataclass(frozen=True)
class Format:
    """A format with its own bioio reader.

    Parameters
    ----------
    name
        What people call it.
    module
        The reader's module.
    suffixes
        Of file names; the first is what a file without a name is called.
    start, offset
        The bytes that files have at an offset; None if only the name identifies the format.
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
            f"expected an image in a supported format, got the {found.name} file {label}, for which no reader is "
            "installed",
            hint=f"ask the operator to install {found.package}{extra}, or save the image as OME-TIFF",
        )
    return import_module(found.module)
