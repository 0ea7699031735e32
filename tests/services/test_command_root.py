"""The root finds commands by entry point, answers in one voice, and sets the exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import typer

from cytoray_services.commands import root
from cytoray_services.commands.root import main

PLUGIN = '''
"""Commands of a package that this test installs."""

import os
import sqlite3
import subprocess
import sys
import time

import numpy
import typer
from cytoray_analysis.errors import MissingFileError, PlatformError
from cytoray_services.commands.root import JsonOption, print_json
from pydantic import BaseModel


class Options(BaseModel):
    epochs: int


def greet(name: str, times: int = 1, json: JsonOption = False) -> None:
    """Greet somebody.

    Parameters
    ----------
    name
        Whom to greet.
    """
    print("a library speaks")
    os.write(1, b"a native library speaks\\n")
    subprocess.run(["echo", "a worker speaks"], check=True)
    print_json({"name": name, "score": float("nan"), "count": numpy.int64(times), "row": numpy.arange(2)})


def fail(kind: str, json: JsonOption = False) -> None:
    """Fail in one of several ways."""
    if kind == "caller":
        raise MissingFileError("expected a file, got nothing", field="input", hint="name another file")
    if kind == "platform":
        raise PlatformError("the server is away")
    if kind == "value":
        Options(epochs="many")
    if kind == "module":
        import a_module_that_nobody_has
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "exit":
        raise typer.Exit(1)
    if kind == "disk":
        raise OSError(28, "No space left on device", "/data/out/a.tif")
    if kind == "database":
        raise sqlite3.DatabaseError("file is not a database")
    if kind == "memory":
        raise MemoryError
    if kind == "wait":
        print("waiting", file=sys.stderr, flush=True)
        time.sleep(60)
    if kind == "talk":
        for number in range(100_000):
            print("line", number)
        return
    raise ZeroDivisionError("a fault of ours")


group = typer.Typer(no_args_is_help=True, help="A group of commands.")
group.command("greet")(greet)
group.command("fail")(fail)
'''

METADATA = """Metadata-Version: 2.1
Name: plugin
Version: 1.0
Provides-Extra: large
Requires-Dist: numpy
Requires-Dist: a-distribution-that-nobody-has>=2; extra == "large"
"""

ENTRY_POINTS = """
[cytoray.commands]
plugin-greet = plugin_commands:greet
plugin-fail = plugin_commands:fail
plugin-group = plugin_commands:group
plugin-large = plugin_commands:greet [large]
plugin-lost = a_package_that_nobody_has.commands:go
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package with commands of its own, for this process and its children."""
    metadata = tmp_path / "plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(METADATA)
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "plugin_commands.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def status_of(*words: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    code = exit_.value.code
    assert isinstance(code, int)
    return code


def answer(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the one JSON object on standard output; anything else there fails the test."""
    parsed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return parsed


def run_as_a_process(*words: str) -> subprocess.CompletedProcess[str]:
    program = "from cytoray_services.commands.root import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False, timeout=60
    )


def test_a_command_of_another_package_is_found_and_run(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("plugin-greet", "Ada", "--times", "3", "--json") == 0
    assert answer(capsys) == {"name": "Ada", "score": None, "count": 3, "row": [0, 1]}


@pytest.mark.slow
def test_with_json_nothing_but_the_answer_reaches_standard_output(plugin: Path) -> None:
    done = run_as_a_process("plugin-greet", "Ada", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["name"] == "Ada"
    for speaker in ("a library", "a native library", "a worker"):
        assert f"{speaker} speaks" in done.stderr


@pytest.mark.slow
def test_without_json_standard_output_is_left_alone(plugin: Path) -> None:
    assert "a worker speaks" in run_as_a_process("plugin-greet", "Ada").stdout


@pytest.mark.slow
def test_help_lists_every_command_with_its_first_line_and_no_docstring_sections(
    plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of("--help") == 0
    listed = capsys.readouterr().out
    for words in ("plugin-greet", "Greet somebody", "plugin-group", "A group of commands", "doctor"):
        assert words in listed
    assert status_of("plugin-greet", "--help") == 0
    assert "Parameters" not in capsys.readouterr().out


@pytest.mark.slow
def test_each_help_has_an_example_and_shows_no_python_types(capsys: pytest.CaptureFixture[str]) -> None:
    for words in all_commands():
        assert status_of(*words, "--help") == 0
        listed = capsys.readouterr().out
        assert "Example: cytoray" in listed, words
        assert not re.search(r"<[a-z\[]+|\{[A-Za-z]+\}", listed), words


def all_commands() -> Iterator[tuple[str, ...]]:
    """Yield the words of each command and group."""
    rest: list[tuple[tuple[str, ...], Any]] = [((), typer.main.get_command(root.app))]
    while rest:
        words, command = rest.pop()
        yield words
        names = command.list_commands(typer.Context(command)) if isinstance(command, typer.core.TyperGroup) else ()
        rest += [((*words, name), command.get_command(typer.Context(command), name)) for name in names]


def test_help_lists_the_commands_in_the_order_of_use(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--help") == 0
    listed = capsys.readouterr().out
    places = [
        listed.index(f"\u2502 {name} ") for name in ("doctor", "data", "evaluate", "models", "tokens", "plugin-fail")
    ]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("line", "expected"),
    [("cytoray mod", "models"), ("cytoray models pro", "promote"), ("cytoray evaluate --spl", "--split")],
)
def test_the_shell_completes_commands_and_options(
    line: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_CYTORAY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    assert status_of() == 0
    assert capsys.readouterr().out.split() == [expected]


def test_no_words_at_all_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of() == 0
    assert "doctor" in capsys.readouterr().out


def test_commands_in_groups_are_found(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("plugin-group", "greet", "Ada", "--json") == 0
    assert answer(capsys)["name"] == "Ada"


@pytest.mark.parametrize(
    ("kind", "status"),
    [("caller", 2), ("platform", 1), ("value", 2), ("module", 1), ("interrupt", 130), ("exit", 1)],
)
def test_the_exit_status_says_whose_mistake_it_was(plugin: Path, kind: str, status: int) -> None:
    assert status_of("plugin-fail", kind) == status


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("disk", ["/data/out/a.tif", "the disk is full", "free space"]),
        ("database", ["database of the registry is damaged", "not a database"]),
        ("memory", ["not enough memory"]),
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_what_the_machine_refuses_is_a_sentence(plugin: Path, kind: str, words: list[str], as_json: bool) -> None:
    done = run_as_a_process("plugin-fail", kind, *(["--json"] if as_json else []))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    if as_json:
        assert json.loads(done.stdout)["error"] == "PlatformError"


@pytest.mark.slow
def test_a_fault_of_ours_keeps_its_traceback(plugin: Path) -> None:
    done = run_as_a_process("plugin-fail", "bug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "a fault of ours" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "by"), [(signal.SIGTERM, 143, "by SIGTERM"), (signal.SIGINT, 130, "by the user")]
)
def test_a_signal_ends_a_command_in_one_line(plugin: Path, number: int, status: int, by: str) -> None:
    program = "from cytoray_services.commands.root import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "plugin-fail", "wait", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert err.splitlines() == [f"error: stopped {by}"]
    assert json.loads(out)["message"] == f"stopped {by}"


@pytest.mark.slow
def test_a_reader_who_leaves_ends_a_command_quietly(plugin: Path) -> None:
    program = "from cytoray_services.commands.root import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "plugin-fail", "talk"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_an_error_is_one_object_with_everything_that_helps(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status_of("plugin-fail", "caller", "--json")
    assert answer(capsys) == {
        "error": "MissingFileError",
        "message": "expected a file, got nothing",
        "field": "input",
        "hint": "name another file",
    }


def test_an_error_for_people_goes_to_standard_error_only(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status_of("plugin-fail", "caller")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "expected a file, got nothing" in printed.err
    assert "name another file" in printed.err


def test_a_value_that_pydantic_refuses_names_the_field(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status_of("plugin-fail", "value", "--json")
    described = answer(capsys)
    assert described["field"] == "epochs"
    assert "'many'" in described["message"]


@pytest.mark.parametrize(
    "words",
    [
        ("plugin-greet", "--json"),
        ("plugin-greet", "Ada", "--times", "often", "--json"),
        ("plugin-greet", "Ada", "--no-such-option", "--json"),
        ("plugin-group", "no-such-command", "--json"),
        ("--no-such-option", "--json"),
        ("no-such-command", "--json"),
    ],
)
def test_a_wrong_line_is_the_callers_mistake_and_one_object(
    plugin: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert status_of(*words) == 2
    assert {"error", "message", "hint"} <= answer(capsys).keys()


def test_a_misspelled_command_gets_its_neighbour(capsys: pytest.CaptureFixture[str]) -> None:
    status_of("docter", "--json")
    assert "doctor" in answer(capsys)["hint"]


@pytest.mark.slow
def test_a_package_that_is_missing_is_named_and_not_a_traceback(
    plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of("plugin-lost", "--with", "anything", "--json") == 1
    assert "a_package_that_nobody_has" in answer(capsys)["message"]
    assert status_of("plugin-fail", "module", "--json") == 1
    assert "a_module_that_nobody_has" in answer(capsys)["message"]
    assert status_of("--help") == 0
    assert "plugin-lost" in capsys.readouterr().out


@pytest.mark.slow
def test_a_command_without_its_extra_says_which_to_install(plugin: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("plugin-large", "--any", "words", "--json") == 1
    described = answer(capsys)
    assert "a-distribution-that-nobody-has" in described["message"]
    assert "numpy" not in described["message"]
    assert "pip install 'plugin[large]'" in described["hint"]
    assert status_of("--help") == 0
    listed = capsys.readouterr().out
    assert "plugin-large" in listed
    assert "Not available" in listed


def test_the_commands_that_need_an_extra_say_so_in_their_entry_points() -> None:
    extras = {command.name: command.extras for command in entry_points(group="cytoray.commands")}
    assert extras["train"] == ["train"]
    assert extras["serve"] == ["serve"]
    assert extras["predict"] == []


@pytest.mark.slow
def test_a_fault_of_ours_shows_its_traceback_and_still_an_object(plugin: Path) -> None:
    done = run_as_a_process("plugin-fail", "fault", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout) == {"error": "ZeroDivisionError", "message": "a fault of ours"}
    assert "Traceback" in done.stderr


@pytest.mark.slow
def test_a_missing_module_of_our_own_is_a_fault_and_shows_its_traceback(plugin: Path) -> None:
    (plugin / "plugin-1.0.dist-info" / "entry_points.txt").write_text(
        "[cytoray.commands]\nplugin-fault = cytoray_services.no_such_module:go\n"
    )
    done = run_as_a_process("plugin-fault")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert status_of("--version") == 0
    assert capsys.readouterr().out.strip() == version("cytoray")
