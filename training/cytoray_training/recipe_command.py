"""``cytoray recipe``: a recipe written from a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cytoray_training.commands import Start

Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this file and not to the terminal.")]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Write recipes.\n\nExample: cytoray recipe init cells --start nuclei",
)


@app.callback()
def _group() -> None:
    """Keep ``init`` a command of its own, although there is no other."""


@app.command("init")
def init(
    data: Annotated[str, typer.Argument(help="Folder of the data set, or its URI.")],
    start: Start = None,
    out: Out = None,
) -> None:
    """Write a recipe for a data set: task, network, channels and schedule follow from the data.

    Example: cytoray recipe init cells --out cells.yaml
    """
    import yaml

    from cytoray_analysis.errors import RequestError
    from cytoray_services.settings import load_settings
    from cytoray_training.plan.drafting import draft_recipe
    from cytoray_training.recipe import parse_recipe

    if out is not None and out.exists():
        raise RequestError(f"expected --out to be a new file, {out} exists", field="--out", hint="choose another name")
    content = draft_recipe(data, load_settings(), start=start)
    parse_recipe(content)
    text = yaml.safe_dump(content, sort_keys=False)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"{out}: train with it: cytoray train {out}")
