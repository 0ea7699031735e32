"""Who may import whom, and what an import may do: the rules of the rooms."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = ("analysis", "services", "training", "serving")
PACKAGES = (*(f"cytoray_{room}" for room in ROOMS), "cytoray")

# Each heavy library and the modules or packages that may name it.
DOORS = {
    "bioio": {"cytoray_analysis.images.vendor_images", "cytoray_analysis.images.writer"},
    "mlflow": {"cytoray_services.registry"},
    "ray.train": {"cytoray_training.run.launch", "cytoray_training.run.elastic"},
    "ray.job_submission": {"cytoray_services.jobs.ray.backend"},
    "ray.util.metrics": {"cytoray_training.run.progress_metrics"},
    "ray.tune": {"cytoray_training.search"},
    "ray.serve": {"cytoray_serving"},
    "ray.data": {"cytoray_serving"},
    "deepspeed": {"cytoray_training.engines.deepspeed_engine"},
    "kubernetes": {"cytoray_services.jobs.kubernetes"},
    "s3fs": {"cytoray_services.storage.s3_client"},
    "boto3": set(),
    "botocore": {"cytoray_services.storage.s3_client"},
    "fsspec": {"cytoray_services.storage"},
    "httpcore": {"cytoray_services.storage.downloads"},
}

COMMANDS = sorted(entry_points(group="cytoray.commands"), key=lambda command: command.name)

# What processes that only pass questions on may load: the client of scripts, and gateways and controller of a service.
LIGHT = (
    "cytoray.client",
    "cytoray_serving.client",
    "cytoray_serving.service.deployments",
    "cytoray_serving.service.controller",
)
OF_SCIENCE = {"torch", "numba", "scipy", "skimage", "sklearn", "matplotlib", "transformers", "deepspeed"}
LIGHT_MEGABYTES = 150  # 55 to 70 when this was written; 400 with PyTorch

HEAVY = {"ray", "mlflow", "torch", "deepspeed", "bioio", "skimage", "scipy", "numba", "matplotlib", "fastapi"}


def sources() -> Iterator[tuple[str, Path]]:
    """Yield the dotted name and the file of every module of all packages."""
    for room in ROOMS:
        for path in sorted((REPOSITORY / room).rglob("*.py")):
            parts = path.relative_to(REPOSITORY / room).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


@cache
def imported_names(path: Path) -> frozenset[str]:
    """Return every dotted name that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def imported_modules(path: Path, known: Collection[str]) -> set[str]:
    """Return those of the modules that a file imports, wherever it does: for types alone and in functions as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {name if name in known else node.module for name in names}
    return found & set(known)


def circles(imports: Mapping[str, Collection[str]]) -> set[frozenset[str]]:
    """Return the groups of modules each of which imports, directly or through others, all others of its group."""
    reached: dict[str, set[str]] = {}
    for module in imports:
        reached[module], pending = set(), [*imports[module]]
        while pending:
            one = pending.pop()
            if one not in reached[module]:
                reached[module].add(one)
                pending.extend(imports[one])
    return {
        frozenset({one for one in reached[module] if module in reached[one]})
        for module in imports
        if module in reached[module]
    }


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


@pytest.mark.slow
@pytest.mark.parametrize("library", DOORS)
def test_each_heavy_library_has_one_door(library: str) -> None:
    intruders = {
        module
        for module, path in sources()
        if any(within(name, library) or name.startswith(f"{library}_") for name in imported_names(path))
        and not any(within(module, door) for door in DOORS[library])
    }
    assert not intruders


@pytest.mark.slow
def test_no_files_import_each_other_in_a_circle() -> None:
    files = dict(sources())
    imports = {module: imported_modules(path, files) for module, path in files.items()}
    found = circles(imports)
    lines = [
        "\n  ".join(f"{one} imports {', '.join(sorted(imports[one] & group))}" for one in sorted(group))
        for group in found
    ]
    assert not lines, "move what they share into a file that imports none of them:\n  " + "\n\n  ".join(lines)


@pytest.mark.parametrize("place", ["{}", "def work():\n    {}", "if TYPE_CHECKING:\n    {}"])
def test_a_circle_is_found_wherever_the_import_stands(place: str, tmp_path: Path) -> None:
    known = ("rooms", "rooms.a", "rooms.b", "rooms.c")
    lines = {"rooms.a": "from rooms import b", "rooms.b": "import rooms.c", "rooms.c": "from rooms.a import thing"}
    imports: dict[str, set[str]] = {"rooms": set()}
    for module, line in lines.items():
        path = tmp_path / f"{module}.py"
        path.write_text(place.format(line))
        imports[module] = imported_modules(path, known)
    assert circles(imports) == {frozenset({"rooms.a", "rooms.b", "rooms.c"})}


def test_ray_is_started_in_one_place() -> None:
    callers = {module for module, path in sources() if "ray.init(" in path.read_text().replace("``ray.init", "")}
    assert callers == {"cytoray_services.jobs.ray.start"}


def test_importing_the_packages_writes_nothing_and_loads_no_platform(tmp_path: Path) -> None:
    program = f"import json, sys, {', '.join(PACKAGES)}; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in json.loads(run_python(program, tmp_path))}
    assert not loaded & HEAVY
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("module", LIGHT)
def test_what_passes_questions_on_loads_no_science(module: str, tmp_path: Path) -> None:
    program = f"""
import json, sys
import psutil
import {module}
megabytes = psutil.Process().memory_info().rss / 2**20
print(json.dumps([megabytes, sorted({{name.partition(".")[0] for name in sys.modules}})]))
"""
    megabytes, loaded = json.loads(run_python(program, tmp_path))
    assert not set(loaded) & OF_SCIENCE
    assert megabytes < LIGHT_MEGABYTES


@pytest.mark.parametrize("entry_point", COMMANDS, ids=[command.name for command in COMMANDS])
def test_every_registered_command_can_be_imported(entry_point: EntryPoint) -> None:
    assert entry_point.module.partition(".")[0] in PACKAGES
    assert callable(entry_point.load())


@pytest.mark.slow
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
