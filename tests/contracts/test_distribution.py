"""What is built and installed: one distribution, four packages, every version pinned."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Set
from importlib.metadata import Distribution, distributions, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = {"cytoray_analysis", "cytoray_services", "cytoray_training", "cytoray_serving", "cytoray"}
# The vendor formats are never part of a set-up (one reader carries the GPL), so they are not pinned.
NOT_SET_UP = {"formats"}
# Of mypy, and of the validation of bills of materials; not of anything that runs.
ONLY_OF_DEVELOPERS = {"pathspec", "fqdn"}
# A builder that DeepSpeed calls, a driver that MLflow finds, a parser that Starlette looks for, files of a page.
USED_WITHOUT_AN_IMPORT = {"fastapi-swagger", "ninja", "psycopg", "python-multipart"}


def project() -> dict[str, Any]:
    described: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return described


def pins() -> dict[str, Version]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    parts = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in parts}


def requirements(but: Set[str] = NOT_SET_UP) -> list[Requirement]:
    extras = project()["optional-dependencies"]
    lines = list(project()["dependencies"])
    for extra in extras.keys() - but:
        lines += extras[extra]
    return [Requirement(line) for line in lines]


@pytest.mark.slow
def test_licences_that_ask_for_more_than_a_notice_are_reported() -> None:
    readme = (REPOSITORY / "README.md").read_text().partition("## Licence")[2]
    developers = {canonicalize_name(item.name) for item in requirements(but=set()) if item in dev_requirements()}
    untold = []
    for distribution in distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        copyleft = any(re.search(r"GPL|(?i:general public)|MPL|EUPL|CeCILL", one) for one in licences(distribution))
        if copyleft and name in pins() and name not in developers | ONLY_OF_DEVELOPERS and f"`{name}`" not in readme:
            untold.append(name)
    assert untold == []


def licences(distribution: Distribution) -> list[str]:
    """Return what a distribution states of its licence, or else how the text of it begins."""
    described = distribution.metadata
    stated = [one for field in ("License-Expression", "License") for one in described.get_all(field, [])]
    stated += [one for one in described.get_all("Classifier", []) if one.startswith("License ::")]
    words = [one[:200] for one in stated if one and one != "UNKNOWN"]
    if not words:
        texts = [
            file
            for file in distribution.files or []
            if re.match(r"[^/]*\.dist-info/.*(?i:licen[cs]e|copying)", str(file))
        ]
        words = [file.read_text()[:400] for file in texts]
    name = described["Name"]
    assert words, f"{name} states no licence; read its sources, and tell it in the README"
    return words


def dev_requirements() -> list[Requirement]:
    return [Requirement(line) for line in project()["optional-dependencies"]["dev"]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Build the wheel from a copy of the sources and return the names in it."""
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed, so no wheel can be built without a network")
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    for room in ("analysis", "services", "training", "serving"):
        shutil.copytree(REPOSITORY / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
    (built,) = (folder / "dist").glob("*.whl")
    return zipfile.ZipFile(built).namelist()


@pytest.mark.slow
def test_the_wheel_holds_all_packages_and_nothing_else(wheel: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES


def test_the_wheel_carries_types_and_licence(wheel: list[str]) -> None:
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel)
    assert any(name.endswith("/licenses/LICENSE") for name in wheel)


def test_the_wheel_carries_the_page(wheel: list[str]) -> None:
    assert {"cytoray_serving/page/index.html", "cytoray_serving/page/licences.txt"} <= set(wheel)
    assert any(name.startswith("cytoray_serving/page/assets/") for name in wheel)


def test_constraints_are_names_and_versions_and_nothing_else() -> None:
    for line in (REPOSITORY / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.!]*", line), line


def test_every_dependency_is_pinned_to_a_version_that_the_project_allows() -> None:
    for requirement in requirements():
        pinned = pins().get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(pinned, prereleases=True), f"{requirement} against {pinned}"


@pytest.mark.slow
def test_what_is_imported_and_what_is_declared_agree() -> None:
    declared = {canonicalize_name(item.name) for item in requirements(but=NOT_SET_UP | {"dev"})}
    owners = packages_distributions()
    imported = set()
    undeclared = {}
    for path in (path for package in PACKAGES for path in REPOSITORY.glob(f"*/{package}/**/*.py")):
        for name in imported_names(path) - set(sys.stdlib_module_names) - PACKAGES:
            distributions = {canonicalize_name(owner) for owner in owners.get(name, [name])}
            imported |= distributions
            if not distributions & declared:
                undeclared[name] = str(path.relative_to(REPOSITORY))
    assert undeclared == {}
    assert declared - imported == USED_WITHOUT_AN_IMPORT


def imported_names(path: Path) -> set[str]:
    """Return the top-level names that a file imports, at its top or inside a function."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    parts = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in plain | parts}


def test_the_base_install_has_no_reader_under_the_gpl() -> None:
    assert not {"bioio-lif", "readlif"} & {canonicalize_name(item.name) for item in requirements()}


def test_every_extra_of_the_design_exists() -> None:
    extras = {"train", "serve", "cluster", "exchange", "postgresql", "s3", "formats", "dev"}
    assert set(project()["optional-dependencies"]) == extras
