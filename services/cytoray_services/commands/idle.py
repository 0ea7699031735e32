"""Options that would be of no effect beside others are refused: who gave them expects something of them."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from cytoray_analysis.errors import RequestError


def refuse_idle(context: typer.Context, names: Sequence[str], where: str, *, hint: str = "leave them out") -> None:
    """Refuse options that were given on the command line, not by variables, and would be of no effect.

    Parameters
    ----------
    context
        Of the command.
    names
        Its parameters that are of no use here.
    where
        Beside or without what, such as ``"with a recipe"``.
    hint
        What to do.

    Raises
    ------
    RequestError
        At least one was given; all are named.
    """
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    idle = []
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            idle.append(flags[name])
    if idle:
        raise RequestError(
            f"{', '.join(idle)} {'is' if len(idle) == 1 else 'are'} of no use {where}", field=idle[0], hint=hint
        )
