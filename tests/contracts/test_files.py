"""How the files of the project look: short, named for what they are, true everywhere."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MOST_LINES = 500
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "tools", "stuff"}
# Put together here so that this file passes its own test.
MACHINE_PATHS = [f"/{folder}/" for folder in ("work", "root")]
REGISTRY_HOSTS = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))]


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Return every file of the project that is kept, or would be: git's list, new files included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("this is no git checkout, so which files belong to the project is unknown")
    paths = [REPOSITORY / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        return ""


def test_no_python_file_is_longer_than_a_reader_can_bear(files: list[Path]) -> None:
    lengths = {path.name: len(text_of(path).splitlines()) for path in files if path.suffix == ".py"}
    assert {name: length for name, length in lengths.items() if length >= MOST_LINES} == {}


def test_every_module_is_named_for_what_it_is(files: list[Path]) -> None:
    assert [path for path in files if path.suffix == ".py" and path.stem in NAMES_THAT_SAY_NOTHING] == []


@pytest.mark.parametrize("words", MACHINE_PATHS + REGISTRY_HOSTS)
def test_no_file_names_a_machine_or_a_registry(files: list[Path], words: str) -> None:
    assert [path for path in files if words in text_of(path)] == []


def test_test_files_have_names_of_their_own_and_no_packages(files: list[Path]) -> None:
    tests = [path for path in files if path.is_relative_to(REPOSITORY / "tests") and path.suffix == ".py"]
    names = Counter(path.name for path in tests if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []
    assert [path for path in tests if path.name == "__init__.py"] == []


def test_the_readme_has_a_newcomer_test_as_the_gate_does() -> None:
    gate = (REPOSITORY / ".ci" / "run").read_text()
    commands = set(re.findall(r"^make \S+$", gate, flags=re.MULTILINE))
    assert commands == {"make lint", "make test", "make test-long"}
    readme = (REPOSITORY / "README.md").read_text()
    assert commands <= set(re.findall(r"^make [a-z-]+", readme, flags=re.MULTILINE))


def test_every_make_target_that_the_documents_name_exists(files: list[Path]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    named = {
        target
        for path in files
        if path.suffix == ".md"
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text_of(path), flags=re.MULTILINE)
    }
    assert named <= targets


def test_every_file_that_a_document_links_to_exists(files: list[Path]) -> None:
    broken = [
        f"{path.relative_to(REPOSITORY)} -> {link}"
        for path in files
        if path.suffix == ".md"
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text_of(path))
        if not (path.parent / link).exists()
    ]
    assert broken == []


def test_decisions_are_numbered_without_gaps(files: list[Path]) -> None:
    decisions = sorted(path.name for path in files if path.parent == REPOSITORY / "docs" / "decisions")
    numbers = [int(name[:4]) for name in decisions if re.match(r"\d{4}-[a-z0-9-]+\.md$", name)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers
