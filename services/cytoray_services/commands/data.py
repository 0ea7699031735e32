"""``cytoray data``: make, check and hash data sets."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cytoray_analysis.errors import RequestError
from cytoray_services.commands import make_data
from cytoray_services.commands.columns import ColumnOption, parse_columns
from cytoray_services.commands.output import JsonOption, print_json

if TYPE_CHECKING:
    from cytoray_services.datasets import Dataset, Finding

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Make, check and hash data sets.\n\nExample: cytoray data check cells",
)
app.add_typer(make_data.app, name="make")

_AXES = ("YX", "ZYX")


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(help="A data set: a folder or s3://bucket/prefix.")],
    column: ColumnOption = None,
    truth: Annotated[
        str | None, typer.Option(help="Expected truth: labels, image, class or lineage.", show_default="the kind found")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Axes of the model's input: YX or ZYX.")] = None,
    channels: Annotated[int | None, typer.Option(help="Number of input channels of the model.")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(help="Required split; repeatable.", show_default="train and val, if several images"),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Run the checks of a training run with this recipe."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="With --recipe: override a field.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Find problems that would damage a training run. The exit status is 2 if there is an error.

    Example: cytoray data check cells --recipe recipe.yaml
    """
    from cytoray_services.datasets import Finding
    from cytoray_services.datasets.check import check_dataset, open_for_check, usual_splits
    from cytoray_services.kinds import data_kinds

    _check_choice("truth", truth, tuple(data_kinds()))
    _check_choice("axes", axes, _AXES)
    if recipe is not None:
        options = {"column": column, "truth": truth, "axes": axes, "channels": channels, "require": require}
        read, findings = _check_with_recipe(dataset, recipe, overrides or (), options)
        summary = {} if read is None else _summarise(read)
        _report(dataset, summary, findings, json)
        return
    if overrides:
        raise RequestError(
            "expected --set together with --recipe, got --set alone", field="set", hint="add --recipe FILE"
        )
    opened = open_for_check(dataset, columns=parse_columns(column), truth=truth)
    if isinstance(opened, Finding):
        findings, summary = [opened], {}
    else:
        splits = tuple(require or usual_splits(opened))
        findings = check_dataset(opened, axes=axes, channels=channels, required_splits=splits)
        summary = _summarise(opened)
    _report(dataset, summary, findings, json)


def _check_with_recipe(
    dataset: str, recipe: Path, overrides: Sequence[str], options: Mapping[str, Any]
) -> tuple[Dataset | None, list[Finding]]:
    """Run the data checks of a training run with this recipe."""
    from importlib.metadata import entry_points

    from cytoray_analysis.errors import PlatformError

    for name, value in options.items():
        if value:
            raise RequestError(
                f"expected no --{name} together with --recipe, got {value}",
                field=name,
                hint="the recipe sets it; override it with --set FIELD=VALUE",
            )
    found = [one for one in entry_points(group="cytoray.checks") if one.name == "recipe"]
    if not found:
        raise PlatformError("cytoray_training is not installed here", hint="pip install 'cytoray[train]'")
    place = f"data.root={dumps(dataset)}"
    checked = found[0].load()(recipe, [place, *overrides])
    return checked.dataset, list(checked.findings)


def _report(dataset: str, summary: dict[str, Any], findings: list[Finding], json: bool) -> None:
    count = Counter(finding.severity for finding in findings)
    if json:
        print_json(
            {
                "dataset": dataset,
                **summary,
                "errors": count["error"],
                "warnings": count["warning"],
                "notes": count["note"],
                "findings": findings,
            }
        )
    else:
        _print_summary(summary)
        _print_findings(dataset, findings)
    if count["error"]:
        raise typer.Exit(RequestError.exit_status)


@app.command("hash")
def print_hash(
    dataset: Annotated[str, typer.Argument(help="A data set: a folder or s3://bucket/prefix.")],
    column: ColumnOption = None,
    json: JsonOption = False,
) -> None:
    """Print the content hash that the registry records with every model trained on the data set.

    Example: cytoray data hash cells
    """
    from cytoray_services.datasets import hash_dataset, open_dataset

    opened = open_dataset(dataset, columns=parse_columns(column), drawing_test=False)
    digest = hash_dataset(opened)
    if json:
        print_json({"dataset": dataset, "hash": digest, "items": len(opened)})
    else:
        typer.echo(digest)


def _check_choice(field: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise RequestError(f"expected {' or '.join(choices)}, got {value!r}", field=field)


def _summarise(dataset: Dataset) -> dict[str, Any]:
    """Count items per split and per class, if there are classes; the imbalance is that of the whole set."""
    from cytoray_services.datasets.check import count_classes, imbalance

    summary: dict[str, Any] = {
        "truth": dataset.truth_kind,
        "items": len(dataset),
        "splits": dict(Counter(item.split for item in dataset.items)),
    }
    counts = count_classes(dataset)
    if any(counts.values()):
        total: Counter[str] = Counter()
        for count in counts.values():
            total.update(count)
        summary |= {"classes": counts, "imbalance": round(imbalance(total), 1)}
    return summary


def _print_summary(summary: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    counts: Mapping[str, Mapping[str, int]] = summary.get("classes", {})
    if not counts:
        return
    table = Table("class", *counts, title="examples per class")
    for name in dict.fromkeys(name for count in counts.values() for name in count):
        table.add_row(escape(name), *(str(count.get(name, 0)) for count in counts.values()))
    _console().print(table)


def _print_findings(dataset: str, findings: list[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = _console()
    if not findings:
        console.print(f"{dataset}: no problems found", highlight=False, markup=False)
        return
    table = Table("", "file", "problem", "remedy", title=escape(dataset), show_lines=True)
    colours = {"error": "red", "warning": "yellow", "note": "blue"}
    for finding in findings:
        texts = (escape(text) for text in (finding.file, finding.problem, finding.remedy))
        table.add_row(f"[{colours[finding.severity]}]{finding.severity}", *texts)
    console.print(table)


def _console() -> Any:
    from rich.console import Console

    console = Console(file=sys.stdout)
    return console if console.is_terminal else Console(file=sys.stdout, width=160)
