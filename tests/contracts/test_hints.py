"""What messages tell people to do exists: every command and every option that a sentence names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from cytoray_services.commands.root import app

REPOSITORY = Path(__file__).resolve().parents[2]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
COMMAND = re.compile(r"(?<![/\w])cytoray ((?:[a-z][a-z-]*\b ?){1,2})")
# Sentences about other programs, whose options are theirs.
OTHERS = (
    "ulimit",
    "pip install",
    "mlflow",
    "ray start",
    "kubectl",
    "helm ",
    "torchrun",
    "curl",
    "make setup",
    "--shm-size",
    "--context",
    "--data-binary",
)
# Words that follow the name of the program in a sentence, and are no command.
NO_COMMANDS = {
    "is",
    "of",
    "was",
    "knows",
    "cannot",
    "version",
    "needs",
    "itself",
    "and",
    "registered",
    "wants",
    "has",
    "package",
}


def sources() -> Iterator[tuple[str, Path]]:
    """Yield the path below the repository, and the file, of every module of all packages."""
    for room in ("analysis", "services", "training", "serving"):
        for path in sorted((REPOSITORY / room / f"cytoray_{room}").rglob("*.py")):
            yield str(path.relative_to(REPOSITORY)), path


@cache
def commands() -> dict[str, Any]:
    """Return every command by its words, such as ``models show``."""
    found: dict[str, Any] = {}

    def add(words: tuple[str, ...], command: Any) -> None:
        found[" ".join(words)] = command
        if isinstance(command, typer.core.TyperGroup):
            context = typer.Context(command)
            for name in command.list_commands(context):
                add((*words, name), command.get_command(context, name))

    root = typer.main.get_command(app)
    context = typer.Context(root)
    for name in root.list_commands(context):  # type: ignore[attr-defined]
        add((name,), root.get_command(context, name))  # type: ignore[attr-defined]
    return found


def options_of(command: Any) -> set[str]:
    own = {word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts)}
    return own | {"--help", "--version"}


@cache
def every_option() -> set[str]:
    return set().union(*(options_of(command) for command in commands().values()))


@cache
def sentences(path: Path) -> tuple[tuple[int, str], ...]:
    """Return what a file may say to people: every text with a blank in it, that is no docstring."""
    tree, found = ast.parse(path.read_text()), []
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts:
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "VALUE" for part in node.values)
        else:
            continue
        if " " in text.strip() and not any(other in text for other in OTHERS):
            found.append((node.lineno, text))
    return tuple(found)


def wrong_in(text: str) -> list[str]:
    """Return the commands and options that a sentence names and that do not exist."""
    wrong, named = [], []
    for found in COMMAND.finditer(text):
        words = found[1].split()
        if words[0] in NO_COMMANDS:
            continue
        if words[0] not in commands():
            wrong.append(f"cytoray {words[0]}")
        elif isinstance(commands()[words[0]], typer.core.TyperGroup):
            if len(words) == 2 and " ".join(words) not in commands():
                wrong.append(f"cytoray {' '.join(words)}")
            named.append(" ".join(words))
        else:
            named.append(words[0])
    everything = every_option()
    for option in OPTION.findall(text):
        known = set().union(*(options_of(commands()[name]) for name in named if name in commands())) or everything
        if option not in everything:
            wrong.append(option)
        elif option not in known and re.search(rf"cytoray [^,;:]*{option}\b", text) and "VALUE" not in text:
            wrong.append(f"{named[0]} {option}")
    return wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("see: cytoray models show NAME", []),
        ("start again with cytoray train RECIPE --fresh", []),
        ("start again with cytoray train RECIPE --again", ["--again"]),
        ("make one with cytoray models shew NAME", ["cytoray models shew"]),
        ("use cytoray models list --fresh", ["models list --fresh"]),
        ("leave --url out", []),
        ("leave --colour out", ["--colour"]),
    ],
)
def test_a_remedy_that_does_not_exist_is_seen(text: str, wrong: list[str]) -> None:
    assert wrong_in(text) == wrong


@pytest.mark.slow
def test_every_command_and_option_that_a_message_names_exists() -> None:
    found = {
        f"{module}:{line}": wrong
        for module, path in sources()
        for line, text in sentences(path)
        if (wrong := wrong_in(text))
    }
    assert not found


@pytest.mark.slow
def test_no_message_names_a_class_of_ours() -> None:
    """A remedy is for people, who do not know what our classes are called."""
    classes = {
        node.name
        for _, path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and re.search(r"[a-z][A-Z]", node.name)
    }
    named = {
        f"{module}:{line}": word
        for module, path in sources()
        for line, text in sentences(path)
        for word in re.findall(r"\b[A-Z][a-z]+[A-Z]\w*\b|\brules of\b", text)
        if word == "rules of" or (word in classes and not word.endswith("Error"))  # which answers name
    }
    assert not named
