"""Who may import whom, and what an import may do: the rules of the rooms."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("analysis", "services", "training", "serving")
PACKAGES = tuple(f"cytoray_{room}" for room in ROOMS)

# Each heavy library and the modules or packages that may name it.
DOORS = {
    "bioio": {"cytoray_analysis.images.reader", "cytoray_analysis.images.writer"},
    "mlflow": {"cytoray_services.registry"},
    "ray.train": {"cytoray_training.launch", "cytoray_training.elastic"},
    "ray.job_submission": {"cytoray_services.jobs.ray_place"},
    "ray.util.metrics": {"cytoray_training.progress_metrics"},
    "ray.tune": {"cytoray_training.search"},
    "ray.serve": {"cytoray_serving"},
    "ray.data": {"cytoray_serving"},
    "deepspeed": {"cytoray_training.deepspeed_engine"},
    "kubernetes": {"cytoray_services.jobs.kubernetes"},
    "boto3": {"cytoray_services.datasets.remote", "cytoray_serving.buckets"},
}

COMMANDS = sorted(entry_points(group="cytoray.commands"), key=lambda command: command.name)

HEAVY = {"ray", "mlflow", "torch", "deepspeed", "bioio", "skimage", "scipy", "numba", "matplotlib", "fastapi"}


def sources() -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the file of every module of the four packages."""
    for room in ROOMS:
        for path in sorted((REPOSITORY / room / f"cytoray_{room}").rglob("*.py")):
            parts = path.relative_to(REPOSITORY / room).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


def imported_names(path: Path) -> Iterator[str]:
    """Yield every dotted name that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def run_python(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_contracts_of_the_project_file_are_kept() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", DOORS)
def test_each_heavy_library_has_one_door(library: str) -> None:
    intruders = {
        module
        for module, path in sources()
        if any(within(name, library) or name.startswith(f"{library}_") for name in imported_names(path))
        and not any(within(module, door) for door in DOORS[library])
    }
    assert not intruders


def test_ray_is_started_in_one_place() -> None:
    callers = {module for module, path in sources() if "ray.init(" in path.read_text().replace("``ray.init", "")}
    assert callers == {"cytoray_services.jobs.ray_start"}


def test_importing_the_packages_writes_nothing_and_loads_no_platform(tmp_path: Path) -> None:
    program = f"import json, sys, {', '.join(PACKAGES)}; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in json.loads(run_python(program, tmp_path))}
    assert not loaded & HEAVY
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entry_point", COMMANDS, ids=[command.name for command in COMMANDS])
def test_every_registered_command_can_be_imported(entry_point: EntryPoint) -> None:
    assert entry_point.module.partition(".")[0] in PACKAGES
    assert callable(entry_point.load())


def test_the_help_loads_no_heavy_library_and_writes_nothing(tmp_path: Path) -> None:
    program = """
import json, sys
from cytoray_services.commands.root import main
try:
    main(["--help"])
except SystemExit:
    print("loaded", json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    loaded = run_python(program, tmp_path).rpartition("loaded ")[2]
    assert not set(json.loads(loaded)) & HEAVY
    assert list(tmp_path.iterdir()) == []
