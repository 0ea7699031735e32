"""``cytoray models``: the versions in the registry, and which of them is served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cytoray_analysis.errors import RequestError
from cytoray_analysis.plural import counted
from cytoray_services.commands.exchange import export_model, import_model
from cytoray_services.commands.lineage import show_lineage
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.commands.promote import promote, rollback
from cytoray_services.commands.rollout import canary, print_rollouts, rollout_facts, shadow
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from cytoray_services.registry import AliasMove, ModelVersion, RegisteredModel, Registry

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="List, show, promote and roll back models; run canaries and shadows.\n\nExample: cytoray models list",
)

MODEL = typer.Argument(metavar="MODEL", help="NAME, NAME@ALIAS or NAME/VERSION.")


app.command("promote")(promote)
app.command("rollback")(rollback)
app.command("canary")(canary)
app.command("shadow")(shadow)
app.command("export")(export_model)
app.command("import")(import_model)


@app.command("list")
def list_models(
    data: Annotated[
        str | None, typer.Option(metavar="FOLDER|HASH", help="Only versions that used this data set, or a part of it.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List all models, newest version first.

    Example: cytoray models list --data cells
    """
    if data is not None:
        _list_by_data(data, json)
        return
    registry = _registry()
    models = registry.list()
    if json:
        print_json({"models": [_model_facts(model) for model in models]})
    elif models:
        _print_models(models)
    else:
        typer.echo(f"No models in {registry.address} yet. Train one: cytoray train RECIPE")


@app.command("show")
def show(
    model: Annotated[str | None, MODEL] = None,
    digest: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="Instead of MODEL: the digest in an answer.")
    ] = None,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="Show the data, recipe, code and weights that it was made from.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the lineage to this file.")] = None,
    json: JsonOption = False,
) -> None:
    """Show one version: aliases, scores, run, digest, source, and the history and rollouts of its model.

    Example: cytoray models show nuclei@champion
    """
    if (model is None) == (digest is None):
        raise RequestError("expected either MODEL or --digest", field="model", hint="see: cytoray models list")
    from cytoray_services.rollouts.rollout import read_routing

    registry = _registry()
    if digest is not None:
        from cytoray_services.promotion.lineage import find_answering

        version = find_answering(registry, digest)
    else:
        version = registry.resolve(model or "")
    if lineage or picture is not None:
        show_lineage(registry, version, picture, json)
        return
    history = registry.history(version.name)
    routing = read_routing(registry, version.name)
    if json:
        print_json({**version.describe(), "history": history, **rollout_facts(routing)})
    else:
        _print_version(version, history)
        print_rollouts(routing)


def _registry() -> Registry:
    from cytoray_services.registry import Registry

    return Registry.open(load_settings())


def _list_by_data(data: str, json: bool) -> None:
    from cytoray_services.datasets import open_dataset
    from cytoray_services.promotion.lineage import versions_that_saw

    is_data = "://" in data or Path(data).is_dir()
    found = versions_that_saw(_registry(), open_dataset(data, drawing_test=False) if is_data else data)
    if json:
        print_json(
            {
                "data": data,
                "versions": [{**one.version.describe(), "whole": one.whole, "images": one.images} for one in found],
            }
        )
        return
    for one in found:
        images = ", ".join(f"{counted(count, 'image')} for {split}" for split, count in one.images.items())
        typer.echo(f"{one.version.reference}  {'all of it' if one.whole else 'a part'}{images and ': '}{images}")
    if not found:
        typer.echo("No registered version used it, as far as recorded.")


def _model_facts(model: RegisteredModel) -> dict[str, Any]:
    return {
        "model": model.name,
        "aliases": model.aliases,
        "versions": [version.describe() for version in model.versions],
    }


def _print_models(models: tuple[RegisteredModel, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("model", "aliases", "registered", "scores", "digest", box=None, pad_edge=False)
    for model in models:
        for version in model.versions:
            words = (
                version.reference,
                ", ".join(version.aliases),
                f"{version.created.astimezone():%Y-%m-%d %H:%M}",
                _shown_metrics(version.metrics, at_most=3),
                version.digest[:12],
            )
            table.add_row(*map(Text, words))
    Console().print(table, markup=False)


def _print_version(version: ModelVersion, history: tuple[AliasMove, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column()
    facts.add_column(overflow="fold")
    rows = {
        "model": version.reference,
        "aliases": ", ".join(version.aliases) or "none",
        "registered": f"{version.created.astimezone():%Y-%m-%d %H:%M:%S}",
        "scores": _shown_metrics(version.metrics) or "none recorded",
        "run": version.run_id or "none",
        "digest": version.digest,
        "source": version.source,
    } | {key: value for key, value in sorted(version.tags.items()) if key != "digest"}
    for key, value in rows.items():
        facts.add_row(Text(key, "bold"), Text(value))
    moves = Table("when", "who", "alias", "from", "to", "how", "why", box=None, pad_edge=False)
    for move in history:
        how = f"{move.action}, forced" if move.forced else move.action
        words = (move.who, move.alias, move.before or "–", move.after, how, move.reason)
        moves.add_row(Text(f"{move.when.astimezone():%Y-%m-%d %H:%M:%S}"), *map(Text, words))
    console = Console()
    console.print(facts)
    if history:
        console.print()
        console.print(moves)


def _shown_metrics(metrics: dict[str, float], *, at_most: int | None = None) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in list(metrics.items())[:at_most])
