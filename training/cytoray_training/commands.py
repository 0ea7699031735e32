"""``cytoray train``: from a recipe to a registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cytoray_services.commands.output import JsonOption, print_json


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, such as training.epochs=10."),
    ] = None,
    on: Annotated[str, typer.Option(metavar="local|ADDRESS", help="The Ray cluster to train on.")] = "local",
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, even if this training was interrupted.")] = False,
    json: JsonOption = False,
) -> None:
    """Train a model and register it as candidate. An interrupted training goes on when called again."""
    from cytoray_services.settings import load_settings
    from cytoray_training.recipe import load_recipe
    from cytoray_training.train import run_training

    settings = load_settings()
    outcome = run_training(load_recipe(recipe, overrides or ()), settings, on=on, fresh=fresh)
    if json:
        print_json(outcome)
        return
    scores = "  ".join(f"{name} {value:.3f}" for name, value in outcome["metrics"].items())
    typer.echo(f"{outcome['model']} version {outcome['version']} (candidate), {outcome['seconds']:.0f} s\n{scores}")
    typer.echo(f"bundle: {outcome['bundle']}\nrun: {outcome['run_id']}")
