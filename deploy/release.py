"""Build the files of a release: sdist, wheel, chart, a bill of materials (SBOM) and hashes.

    python deploy/release.py FOLDER

Needs a checkout without changes, and no network; two runs on one commit and one environment give the same bytes. The
bill describes the environment that runs this script, which must contain exactly the versions of constraints.txt.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parents[1]
_TOOLS = runpy.run_path(str(REPOSITORY / "deploy" / "helm_and_kubectl.py"))
CHART = Path("helm") / "cytoray"
HASHES = "SHA256SUMS"
# Read from the licence texts of distributions whose metadata name no licence.
LICENCES = {
    "antlr4-python3-runtime": "BSD-3-Clause",
    "bioimageio-spec": "MIT",
    "huey": "MIT",
    "py-ctcmetrics": "BSD-3-Clause",
    "setuptools": "MIT",
}


class ReleaseError(Exception):
    """The release failed; the message gives the reason and the remedy."""


def main() -> None:
    """Build a release of the checkout that contains this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="output folder; absent or empty")
    out = parser.parse_args().folder.absolute()
    try:
        release(out)
    except ReleaseError as error:
        sys.exit(f"no release: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"no release: {' '.join(map(str, error.cmd))} ended with {error.returncode}\n{error.stderr or ''}")


def release(out: Path) -> None:
    """Write all files of a release into a folder.

    Raises
    ------
    ReleaseError
        The checkout has changes, the folder contains files, or the environment is not the pinned one.
    """
    if changes := _git("status", "--porcelain"):
        raise ReleaseError(f"expected a checkout without changes, got\n{changes}\ncommit or revert them")
    if out.exists() and any(out.iterdir()):
        raise ReleaseError(f"expected {out} to be absent or empty; name another folder or empty it")
    commit, epoch = _git("rev-parse", "HEAD"), int(_git("log", "-1", "--format=%ct"))
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", epoch))
    out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch)}
    with tempfile.TemporaryDirectory(prefix="cytoray-release-") as name:
        sources = Path(name)
        print(f"release 1/4: sdist and wheel of {commit[:12]} (seconds)", flush=True)
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(sources, filter="data")
        build = [sys.executable, "-m", "hatchling", "build", "--directory", str(out), "-t", "sdist", "-t", "wheel"]
        subprocess.run(build, cwd=sources, env=environment, check=True, capture_output=True, text=True)
        print("release 2/4: chart (seconds)", flush=True)
        write_chart(sources, out, epoch)
        print("release 3/4: bill of materials (half a minute)", flush=True)
        write_bill(sources, out, environment)
    print(f"release 4/4: {HASHES}", flush=True)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(out.iterdir())]
    (out / HASHES).write_text("".join(lines))
    print("".join(lines) + "images: deploy/containers/build.sh cpu, and cuda, from this commit; see deploy/README.md")


def write_chart(sources: Path, out: Path, epoch: int) -> None:
    """Package the chart as ``helm package`` does, at the time of the commit, with the downloaded charts."""
    fetched = REPOSITORY / CHART / "charts"
    if not any(fetched.glob("*.tgz")):
        print(f"    without KubeRay's operator; to include it: helm dependency update {CHART}", flush=True)
    shutil.copytree(fetched, sources / CHART / "charts", dirs_exist_ok=True)
    package = [_TOOLS["tool"]("helm"), "package", str(sources / CHART), "--destination", str(out)]
    done = subprocess.run(package, check=True, capture_output=True, text=True)
    made = Path(done.stdout.rpartition(": ")[2].strip())
    with tarfile.open(made) as packed:
        files = {one.name: (one, packed.extractfile(one)) for one in packed.getmembers() if one.isfile()}
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as again:
            for name in sorted(files):
                entry, content = files[name]
                entry.mtime, entry.pax_headers = epoch, {}
                again.addfile(entry, content)
    made.write_bytes(gzip.compress(plain.getvalue(), mtime=epoch))


def write_bill(sources: Path, out: Path, environment: Mapping[str, str]) -> None:
    """Write the bill of materials of this environment: CycloneDX, as JSON."""
    described = tomllib.loads((sources / "pyproject.toml").read_text())["project"]
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", "pyproject.toml"]
    command += ["--output-reproducible", "--no-validate", "--output-format", "JSON", "-o", "-", sys.executable]
    done = subprocess.run(command, cwd=sources, env=environment, check=True, capture_output=True, text=True)
    bill = json.loads(done.stdout)
    _require_pinned(bill, (sources / "constraints.txt").read_text())
    _complete_licences(bill)
    name = f"{described['name']}-{described['version']}.cdx.json"
    (out / name).write_text(json.dumps(bill, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _require_pinned(bill: Mapping[str, Any], constraints: str) -> None:
    found = {(canonicalize_name(one["name"]), Version(one["version"]).public) for one in bill["components"]}
    lines = [Requirement(line) for line in constraints.splitlines() if line and not line.startswith("#")]
    pins = {(canonicalize_name(one.name), Version(str(one.specifier).removeprefix("==")).public) for one in lines}
    if missing := sorted(pins - found):
        names = ", ".join(f"{name} {version}" for name, version in missing[:10])
        raise ReleaseError(f"pinned versions of constraints.txt are not installed: {names}; run make setup")


def _complete_licences(bill: Mapping[str, Any]) -> None:
    """Add the licences that metadata do not give as an SPDX identifier."""
    declared = {
        canonicalize_name(one.metadata["Name"]): one.metadata.get_all("License", [""])[0] for one in distributions()
    }
    for component in bill["components"]:
        name = canonicalize_name(component["name"])
        if component.get("licenses"):
            continue
        if name in LICENCES:
            component["licenses"] = [{"license": {"id": LICENCES[name], "acknowledgement": "concluded"}}]
        elif words := declared.get(name):
            component["licenses"] = [{"license": {"name": words, "acknowledgement": "declared"}}]
        else:
            raise ReleaseError(f"the metadata of {name} name no licence; read its text and add it to LICENCES")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
