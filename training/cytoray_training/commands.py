"""``cytoray train``, ``tune`` and ``learning-curve``: from a recipe to a registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cytoray_services.commands.output import JsonOption, print_json

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Override a field, such as training.epochs=10."),
]
Start = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Start from this model, such as nuclei: fewer labels and less time are needed."),
]
Cluster = Annotated[str, typer.Option(metavar="local|ADDRESS", help="The Ray cluster that runs the training.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start from the beginning, even if an interrupted run exists.")]


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file; with --start, a data set folder.")],
    overrides: Overrides = None,
    start: Start = None,
    on: Cluster = "local",
    fresh: Fresh = False,
    json: JsonOption = False,
) -> None:
    """Train a model and register it as candidate. Run it again after an interruption, and it continues.

    Example: cytoray train recipe.yaml --set data.root=cells --set training.epochs=10

    Example: cytoray train --start nuclei cells
    """
    from cytoray_services.settings import load_settings
    from cytoray_services.statistics.intervals import Interval, shown
    from cytoray_training.plan.drafting import draft_recipe
    from cytoray_training.recipe import load_recipe, parse_recipe
    from cytoray_training.recipe.overrides import apply_overrides
    from cytoray_training.train import run_training

    settings = load_settings()
    if start is None:
        chosen = load_recipe(recipe, overrides or ())
    else:
        chosen = parse_recipe(apply_overrides(draft_recipe(recipe, settings, start=start), overrides or ()))
    outcome = run_training(chosen, settings, on=on, fresh=fresh)
    if json:
        print_json(outcome)
        return
    ends = {name: Interval(**one) for name, one in outcome.get("intervals", {}).items()}
    scores = "\n".join(
        f"  {name:18} {shown(value, ends.get(name), alone=bool(ends))}" for name, value in outcome["metrics"].items()
    )
    standing = f"version {outcome['version']} (candidate)" if outcome["version"] else "not registered yet"
    typer.echo(f"{outcome['model']} {standing}, {outcome['seconds']:.0f} s\n{scores}")
    typer.echo(f"  {outcome['metrics_are']}")
    typer.echo(f"bundle: {outcome['bundle']}\nrun: {outcome['run_id'] or 'stored next to the bundle'}")


def tune(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file with a section tune.")],
    overrides: Overrides = None,
    on: Cluster = "local",
    fresh: Fresh = False,
    json: JsonOption = False,
) -> None:
    """Search for better settings and register the best model as candidate. Run it again, and it continues.

    Example: cytoray tune recipe.yaml --set tune.trials=12
    """
    from cytoray_services.settings import load_settings
    from cytoray_services.statistics.intervals import Interval, shown
    from cytoray_training.recipe import load_recipe
    from cytoray_training.search.search import run_search

    outcome = run_search(load_recipe(recipe, overrides or ()), load_settings(), on=on, fresh=fresh)
    if json:
        print_json(outcome)
        return
    best, trials = outcome["best"], outcome["trials"]
    stopped = sum(trial["state"] == "stopped" for trial in trials)
    scores = "  ".join(f"{name} {value:.3f}" for name, value in outcome["metrics"].items())
    typer.echo(f"{outcome['model']} version {outcome['version']} (candidate), {outcome['seconds']:.0f} s")
    typer.echo(f"{scores}\n  {outcome['metrics_are']}")
    if outcome["test"]:
        known = {name: dict(one) for name, one in outcome["test"].items()}
        values = {name: one.pop("score") for name, one in known.items()}
        ends = {name: Interval(**one) for name, one in known.items() if one}
        tested = "  ".join(f"{name} {shown(value, ends.get(name), alone=True)}" for name, value in values.items())
        typer.echo(f"{tested}\n  of the split test, which chose nothing")
    typer.echo(outcome["comparison"]["says"])
    typer.echo(f"best of {len(trials)} trials, {stopped} stopped early: {best['name']}")
    typer.echo("\n".join(f"  {path}: {value}" for path, value in best["values"].items()) or "  the unchanged recipe")
    typer.echo(f"report: {outcome['report']}\nbundle: {outcome['bundle']}\nrun: {outcome['run_id']}")


def learning_curve(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    overrides: Overrides = None,
    shares: Annotated[
        str, typer.Option(metavar="SHARES", help="Shares of the labels to train with, separated by commas.")
    ] = "0.05,0.1,0.25,0.5,1",
    on: Cluster = "local",
    fresh: Fresh = False,
    json: JsonOption = False,
) -> None:
    """Train with growing shares of the labels, and report whether more labels would help.

    Run it again after an interruption, and it continues.

    Example: cytoray learning-curve recipe.yaml
    """
    from cytoray_analysis.errors import RequestError
    from cytoray_services.settings import load_settings
    from cytoray_training.recipe import load_recipe
    from cytoray_training.search.learning_curve import run_curve

    try:
        chosen = [float(word) for word in shares.split(",")]
    except ValueError as error:
        raise RequestError(f"expected numbers separated by commas, got {shares!r}", field="--shares") from error
    outcome = run_curve(load_recipe(recipe, overrides or ()), load_settings(), shares=chosen, on=on, fresh=fresh)
    if json:
        print_json(outcome)
        return
    for point in outcome["points"]:
        typer.echo(f"{point['labels']:8d} labels  {outcome['metric']} {point['metrics'][outcome['metric']]:.3f}")
    typer.echo(f"more labels? {outcome['verdict']}\nreport: {outcome['report']}\nrun: {outcome['run_id']}")
