"""The packages of this installation as a zip that is sent with a training job.

Models that come with the package are left out: a ConfigMap holds one megabyte.
"""

from __future__ import annotations

import io
import zipfile
from importlib.util import find_spec
from pathlib import Path

_PACKAGES = ("cytoray_analysis", "cytoray_services", "cytoray_training")
_LEFT_OUT = {"__pycache__", "shipped"}
_SAME_DATE = (2020, 1, 1, 0, 0, 0)  # the same code gives the same zip


def pack_code() -> bytes:
    """Return a zip of the installed packages of Cytoray."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in _PACKAGES:
            spec = find_spec(name)
            for folder in spec.submodule_search_locations or [] if spec else []:
                root = Path(folder)
                for path in sorted(root.rglob("*")):
                    if path.is_file() and not _LEFT_OUT & set(path.relative_to(root).parts):
                        entry = zipfile.ZipInfo(f"{name}/{path.relative_to(root).as_posix()}", _SAME_DATE)
                        archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, 9)
    return packed.getvalue()
