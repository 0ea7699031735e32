"""The root of the command line: it finds the commands, prints their errors and sets the exit status.

Every layer registers its commands under the entry point group ``cytoray.commands``, so that no layer imports
upward. A command is a plain function or a Typer application; its module is imported only when it is needed. The entry
point names the extra that a command needs: ``train = "package.module:function [train]"``.

A command returns nothing and raises :class:`~cytoray_analysis.errors.CytorayError`. The root sets the exit status:

====== =================================================================================================
status meaning
====== =================================================================================================
0      done
2      invalid input (``InputError``, a wrong option, a value that pydantic rejects)
130    stopped by SIGINT, which Ctrl-C sends
143    stopped by SIGTERM, which SLURM and Kubernetes send
1      any other error; silent if the reader of standard output, such as ``head``, has closed it
====== =================================================================================================
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from cytoray_analysis.errors import CytorayError, PlatformError, RequestError
from cytoray_services.commands.machine_faults import machine_fault
from cytoray_services.commands.output import JsonOption, print_error, print_json, standard_output_for_answers
from cytoray_services.commands.requirements import installed_version, requirements_of
from cytoray_services.stopping import StoppedError, stopped_by_signals

__all__ = ["JsonOption", "app", "main", "print_json"]

GROUP = "cytoray.commands"
# The order of use, from data to a service; commands of other packages follow.
ORDER = (
    "doctor",
    "data",
    "recipe",
    "train",
    "diagnose",
    "tune",
    "learning-curve",
    "evaluate",
    "models",
    "predict",
    "serve",
    "tokens",
    "jobs",
    "cache",
)

_HELP = ["-h", "--help"]
_VALUES = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "path": "PATH", "file": "FILE", "directory": "FOLDER"}
INTERRUPTED = 130  # as Typer reports Ctrl-C
UNREAD = 1  # as Typer reports a closed standard output


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Parameters
    ----------
    arguments
        The arguments after ``cytoray``; by default those of the process.

    Raises
    ------
    SystemExit
        Always, with the exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    as_json = "--json" in words
    with stopped_by_signals(), standard_output_for_answers() if as_json else contextlib.nullcontext():
        try:
            status = _run(words, as_json)
            sys.stdout.flush()
        except StoppedError as stopped:
            status = _stop(stopped, as_json)
        except BrokenPipeError:
            status = _unread()
    sys.exit(status)


class CommandGroup(TyperGroup):
    """The commands of all installed layers, each imported at first use.

    The list marks a command whose extra is not installed; calling it prints what to install.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all registered commands: those of a workflow in its order, then the others."""
        return sorted(_registered(), key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and return one command, or None if there is no such command."""
        registered = _registered()
        if cmd_name not in self.commands and cmd_name in registered:
            self.commands[cmd_name] = _load(registered[cmd_name])
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command of the command line; suggest similar names for an unknown one."""
        name, registered = args[0], _registered()
        if name in registered:
            return super().resolve_command(ctx, args)
        neighbours = get_close_matches(name, registered)
        raise RequestError(
            f"expected one of the commands {', '.join(sorted(registered))}, got {name!r}",
            field="command",
            hint=f"did you mean {' or '.join(neighbours)}?" if neighbours else "see: cytoray --help",
        )


app = typer.Typer(
    cls=CommandGroup,
    context_settings={"help_option_names": _HELP},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("cytoray"))
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Cytoray: train models on labelled microscopy images, and serve them.

    Example: cytoray predict nuclei@champion cells.tif --out answers
    """


def _run(words: list[str], as_json: bool) -> int:
    try:
        command = typer.main.get_command(app)
        _show_plain_types(command)
        status = command.main(args=words, prog_name="cytoray", standalone_mode=False)
    except CytorayError as error:
        return _refuse(error, as_json)
    except ValidationError as error:
        return _refuse(_refused_value(error), as_json)
    except typer.TyperException as error:
        return _refuse(_usage_error(error), as_json)
    except ModuleNotFoundError as error:
        missing = _missing_module(error, words[0])
        if missing is None:
            raise
        return _refuse(missing, as_json)
    except typer.Abort:
        status = INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        fault = machine_fault(error)
        if fault is not None:
            return _refuse(fault, as_json)
        # Our own fault: the traceback goes to standard error, and a program still gets its JSON object.
        if as_json:
            print_json({"error": type(error).__name__, "message": str(error)})
        raise
    if status == INTERRUPTED:
        return _stop(StoppedError(signal.SIGINT), as_json)
    return status if isinstance(status, int) else 0


def _refuse(error: CytorayError, as_json: bool) -> int:
    print_error(error, as_json=as_json)
    return error.exit_status


def _stop(stopped: StoppedError, as_json: bool) -> int:
    print_error(CytorayError(stopped.message, hint=stopped.hint), as_json=as_json)
    return stopped.exit_status


def _unread() -> int:
    """End without a message after the reader of standard output, such as ``head``, has closed it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    # The rest of the buffer cannot be written either; Python would report that again at exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return UNREAD


def _registered() -> dict[str, EntryPoint]:
    return {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}


def _load(entry_point: EntryPoint) -> Any:
    missing = _missing_extra(entry_point)
    try:
        target = entry_point.load() if missing is None else _unavailable(entry_point.name, missing)
    except ModuleNotFoundError as error:
        missing = _missing_module(error, entry_point.name)
        if missing is None:
            raise
        target = _unavailable(entry_point.name, missing)
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(add_completion=False)
        target.command(entry_point.name)(function)
    command = typer.main.get_command(target)
    command.name = entry_point.name
    # The help omits the sections of a numpy docstring, because options have help texts of their own.
    command.help = (command.help or "").partition("\nParameters\n---")[0].rstrip()
    _show_plain_types(command)
    return command


def _show_plain_types(command: Any) -> None:
    """Show what a value is instead of its Python type, in the help of a command and its subcommands.

    Flags take no value, so they show none; an argument shows its name: ``MODEL`` instead of ``{MODEL}  <str>``.
    """
    context = typer.Context(command, help_option_names=_HELP)
    for parameter in command.get_params(context):
        if getattr(parameter, "is_bool_flag", False):
            parameter.metavar = ""
        elif parameter.param_type_name == "argument":
            name = parameter.metavar = (parameter.metavar or parameter.name).upper()
            usage = name if parameter.required else f"[{name}]"
            usage += "" if parameter.nargs == 1 else "..."
            parameter.display_type = lambda _: None
            parameter.get_usage_pieces = lambda _, usage=usage: [usage]
        elif parameter.metavar is None:
            shown = parameter.display_type(context).strip("<>").removeprefix("list[").removesuffix("]")
            parameter.metavar = _VALUES.get(shown.removesuffix(" range"), shown)
    for inner in getattr(command, "commands", {}).values():
        _show_plain_types(inner)


def _unavailable(name: str, missing: PlatformError) -> typer.Typer:
    command = typer.Typer(add_completion=False)

    @command.command(name, help=f"Not available: {missing.message}.", context_settings={"ignore_unknown_options": True})
    def unavailable(words: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
        raise missing

    return command


def _missing_extra(entry_point: EntryPoint) -> PlatformError | None:
    distribution = entry_point.dist.name if entry_point.dist else "cytoray"
    for extra in entry_point.extras:
        lacking = [need.name for need in requirements_of(distribution, extra) if installed_version(need) is None]
        if lacking:
            return PlatformError(
                f"the command {entry_point.name!r} needs {', '.join(lacking)}, not installed here",
                hint=f"install it with: pip install '{distribution}[{extra}]'",
            )
    return None


def _missing_module(error: ModuleNotFoundError, command: str) -> PlatformError | None:
    """Return what to install; None for a missing module of our own, which is a bug."""
    module = (error.name or "").partition(".")[0]
    if not module or module.startswith("cytoray_"):
        return None
    return PlatformError(
        f"the command {command!r} needs the module {module!r}, which is not installed",
        hint="list what is missing with: cytoray doctor",
    )


def _usage_error(error: typer.TyperException) -> RequestError:
    parameter = getattr(error, "param", None)
    context = getattr(error, "ctx", None)
    return RequestError(
        error.format_message() or "expected a command",
        field=getattr(parameter, "name", None) or getattr(error, "option_name", None),
        hint=f"see: {context.command_path} --help" if context is not None else None,
    )


def _refused_value(error: ValidationError) -> RequestError:
    first = error.errors(include_url=False)[0]
    others = error.error_count() - 1
    return RequestError(
        f"{first['msg']}, got {first['input']!r}" + (f"; {others} more" if others else ""),
        field=".".join(str(part) for part in first["loc"]) or None,
        hint="correct the value; see --help",
    )
