"""Refuse options that have no effect together with the other options."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from cytoray_analysis.errors import RequestError


def refuse_idle(context: typer.Context, names: Sequence[str], where: str, *, hint: str = "leave them out") -> None:
    """Refuse options on the command line that have no effect; environment variables are not checked.

    Parameters
    ----------
    context
        The context of the command.
    names
        Parameters without effect here.
    where
        The reason, such as ``"with a recipe"``.
    hint
        What to do.

    Raises
    ------
    RequestError
        At least one was given; the message names all.
    """
    flags = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    given = []
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            given.append(flags[name])
    if given:
        raise RequestError(
            f"{', '.join(given)} {'has' if len(given) == 1 else 'have'} no effect {where}", field=given[0], hint=hint
        )
