"""The version of this code."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

CHANGED = "+changes"  # suffix of code with uncommitted changes


def code_version() -> str:
    """Return the git revision of this code, with ``+changes`` if files differ from it; else the package's version.

    Without git, as in a container, ``CYTORAY_REVISION`` names the revision.
    """
    if shutil.which("git") is None:  # as in a container, whose build may set the revision
        return os.environ.get("CYTORAY_REVISION") or f"cytoray {version('cytoray')}"
    here = Path(__file__).parent
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    if revision.returncode != 0:
        return f"cytoray {version('cytoray')}"
    changes = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=here, capture_output=True, text=True, check=False
    )
    return revision.stdout.strip() + (CHANGED if changes.stdout.strip() else "")
