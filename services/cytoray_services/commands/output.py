"""The output of a command: one JSON object or a few lines of text.

With ``--json`` anywhere on the command line, standard output contains one JSON object only. Everything that libraries
and worker processes print goes to standard error.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Annotated, Any, TextIO

import typer
from pydantic_core import to_json

from cytoray_analysis.errors import CytorayError

JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on standard output, and everything else on standard error."),
]

_answers: ContextVar[TextIO | None] = ContextVar("answers", default=None)


def print_json(value: object) -> None:
    """Print the answer of a command as one line of JSON on standard output.

    Parameters
    ----------
    value
        Mappings, sequences, dataclasses, pydantic models, paths, dates, numpy numbers and arrays. NaN and
        infinities become null, because JSON has none.
    """
    text = to_json(value, inf_nan_mode="null", fallback=_plain_number).decode()
    stream = _answers.get() or sys.stdout
    stream.write(text + "\n")
    stream.flush()


def print_error(error: CytorayError, *, as_json: bool) -> None:
    """Print an error as text on standard error and, with ``as_json``, as JSON on standard output."""
    if as_json:
        print_json(error.describe())
    lines = [f"error: {error.message}"]
    if error.field is not None:
        lines.append(f"   at: {error.field}")
    if error.hint is not None:
        lines.append(f" hint: {error.hint}")
    print("\n".join(lines), file=sys.stderr)


@contextlib.contextmanager
def standard_output_for_answers() -> Iterator[None]:
    """Reserve standard output for `print_json`; redirect all other output to standard error.

    Both the Python stream and its file descriptor, if it has one, are redirected, because worker processes and native
    libraries write to the descriptor.
    """
    stream = sys.stdout
    stream.flush()
    with contextlib.ExitStack() as cleanup:
        try:
            descriptor = stream.fileno()
        except io.UnsupportedOperation:  # a stream in memory has no descriptor to protect
            answers = stream
        else:
            copy = os.dup(descriptor)
            cleanup.callback(os.close, copy)
            cleanup.callback(os.dup2, copy, descriptor)
            answers = cleanup.enter_context(os.fdopen(copy, "w", encoding="utf-8", closefd=False))
            os.dup2(sys.stderr.fileno(), descriptor)
        token = _answers.set(answers)
        cleanup.callback(_answers.reset, token)
        cleanup.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def _plain_number(value: Any) -> object:
    if callable(getattr(value, "tolist", None)):  # numpy scalars and arrays
        return value.tolist()
    raise TypeError(f"expected a value that JSON can represent, got {type(value).__name__}")
