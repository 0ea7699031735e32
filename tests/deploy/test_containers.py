"""What the images are built from agrees with what is pinned, and with what the chart runs in them."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import charts

REPOSITORY = charts.REPOSITORY
FOLDER = REPOSITORY / "deploy" / "containers"
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
BASE_COMMANDS = {"bash", "mkdir", "wget"}  # of the base and of the packages that are installed into it


def instructions() -> list[tuple[str, str]]:
    """Return the words and arguments of the container file, comments and line breaks taken out."""
    lines = [line for line in (FOLDER / "Containerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def arguments() -> dict[str, str]:
    pairs = (rest.partition("=") for word, rest in instructions() if word == "ARG")
    return {name: value for name, _, value in pairs if value}


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(index for index, (word, _) in enumerate(found) if word == "FROM") :]


def pins(name: str) -> dict[str, Requirement]:
    lines = (REPOSITORY / name).read_text().splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(one.name): one for one in found}


def copied() -> list[str]:
    """Return what is copied from the checkout."""
    words = [shlex.split(rest) for word, rest in instructions() if word == "COPY"]
    return [source for parts in words if not parts[0].startswith("--from") for source in parts[:-1]]


def containers(node: Any) -> Iterator[dict[str, Any]]:
    """Yield everything in a manifest that looks like a container."""
    if isinstance(node, dict):
        if "image" in node and "name" in node:
            yield node
        for value in node.values():
            yield from containers(value)
    elif isinstance(node, list):
        for one in node:
            yield from containers(one)


def test_every_stage_starts_from_one_base_with_a_version() -> None:
    bases = {rest.split()[0] for word, rest in instructions() if word == "FROM"}
    assert bases == {"${BASE}", "dependencies"}
    name, _, tag = arguments()["BASE"].partition(":")
    assert name == "python"
    assert tag.startswith(f"{PROJECT['tool']['mypy']['python_version']}-slim")
    assert "latest" not in (FOLDER / "Containerfile").read_text()


def test_the_image_has_the_extras_of_users_and_all_of_them_are_pinned() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    chosen = arguments()["EXTRAS"].split(",")
    assert set(chosen) == set(extras) - {"dev", "formats"}  # formats carries the GPL
    needs = [*PROJECT["project"]["dependencies"], *(need for extra in chosen for need in extras[extra])]
    pinned = pins("constraints.txt")
    assert {
        Requirement(need).name for need in needs if canonicalize_name(Requirement(need).name) not in pinned
    } == set()


def test_what_pytorch_for_cuda_brings_is_pinned_and_only_that() -> None:
    cuda = pins("deploy/containers/cuda-constraints.txt")
    assert all(len(one.specifier) == 1 and str(one.specifier).startswith("==") for one in cuda.values())
    assert cuda.keys() & pins("constraints.txt").keys() == set()
    assert all(re.match(r"cuda-|nvidia-|triton$", name) for name in cuda)


def test_pip_is_the_one_of_the_checkout() -> None:
    found = {
        version
        for path in (FOLDER / "Containerfile", REPOSITORY / "Makefile")
        for version in re.findall(r"\bpip==(\S+)", path.read_text())
    }
    assert len(found) == 1


def test_pytorch_is_pinned_once() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    assert len([line for line in lines if line.startswith("torch==")]) == 1


def test_the_last_stage_runs_as_an_unprivileged_user_and_has_no_compiler() -> None:
    stage = last_stage()
    assert [rest for word, rest in stage if word == "USER"] == ["10001:10001"]
    (installed,) = re.findall(
        r"--no-install-recommends ([^&]+)", " ".join(rest for word, rest in stage if word == "RUN")
    )
    assert set(installed.split()) <= BASE_COMMANDS
    assert not any(word == "ENTRYPOINT" for word, _ in stage)


def test_the_image_holds_the_packages_of_the_wheel() -> None:
    packages = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert packages <= set(copied())


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    kept = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied()) == kept
    assert [source for source in copied() if not (REPOSITORY / source).exists()] == []


@pytest.mark.parametrize("flavour", ["cpu", "cuda"])
def test_the_script_gives_the_image_the_name_that_the_chart_asks_for(flavour: str) -> None:
    command = ["env", "BUILDER=echo", str(FOLDER / "build.sh"), flavour, "--no-cache"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    tag = told[told.index("--tag") + 1]
    assert tag == f"cytoray:{PROJECT['project']['version']}-{flavour}"
    assert tag == charts.values(charts.CHART / "values.yaml")["image"][flavour]
    assert f"FLAVOUR={flavour}" in told
    assert told[-2:] == ["--no-cache", "."]


def test_the_script_knows_two_flavours() -> None:
    done = subprocess.run([str(FOLDER / "build.sh"), "rocm"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cpu|cuda" in done.stderr


@pytest.mark.parametrize("name", [path.stem for path in charts.VALUE_FILES])
def test_what_the_chart_runs_is_in_the_image(name: str) -> None:
    # What this checkout's own environment installs as commands, from the same pins.
    commands = {one.name for one in entry_points(group="console_scripts")} | BASE_COMMANDS | {"python"}
    manifests = charts.render(name)
    ours = [one for one in containers(manifests) if "/cytoray:" in f"/{one['image']}"]
    assert ours
    assert {one["command"][0] for one in ours if one.get("command")} <= commands


def test_pods_and_image_agree_on_user_folders_and_ray() -> None:
    environment = " ".join(rest for word, rest in last_stage() if word == "ENV")
    variables = dict(pair.split("=", 1) for pair in shlex.split(environment))
    manifests = charts.render("production")
    ours = [one for one in containers(manifests) if "/cytoray:" in f"/{one['image']}"]
    for container in ours:
        given = {one["name"]: one.get("value") for one in container.get("env", [])}
        for shared in ("HOME", "CYTORAY_HOME"):
            assert given.get(shared, variables[shared]) == variables[shared]
    (service,) = [one for one in manifests if one["kind"] == "RayService"]
    ray = str(pins("constraints.txt")["ray"].specifier)
    assert f"=={service['spec']['rayClusterConfig']['rayVersion']}" == ray
