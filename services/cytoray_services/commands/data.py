"""``cytoray data``: make, check and hash data sets."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cytoray_analysis.errors import RequestError
from cytoray_services.commands.columns import ColumnOption, parse_columns
from cytoray_services.commands.output import JsonOption, print_json

if TYPE_CHECKING:
    from cytoray_services.datasets import Finding

app = typer.Typer(no_args_is_help=True, help="Make, check and hash data sets.")


@app.command()
def make(
    task: Annotated[str, typer.Argument(help="What the data set is for: segmentation.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it.")],
    images: Annotated[int, typer.Option(help="How many images.")] = 48,
    size: Annotated[str, typer.Option(metavar="N or YxX", help="Size in pixels, such as 256 or 520x696.")] = "256",
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 0,
    bits: Annotated[int, typer.Option(help="8, or 16 as from a 12-bit camera.")] = 8,
    transmitted: Annotated[float, typer.Option(help="Share of images with dark nuclei on a bright field.")] = 0.0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that holds something.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a synthetic data set with exact truth."""
    from cytoray_services.datasets import hash_dataset, make_segmentation

    if task != "segmentation":
        raise RequestError(f"expected the task segmentation, got {task!r}", field="task")
    if bits not in (8, 16):
        raise RequestError(f"expected 8 or 16 bits, got {bits}", field="bits")
    dataset = make_segmentation(
        folder,
        images=images,
        size=_parse_size(size),
        seed=seed,
        dtype="uint8" if bits == 8 else "uint16",
        transmitted=transmitted,
        overwrite=overwrite,
    )
    splits = Counter(item.split for item in dataset.items)
    if json:
        print_json({"dataset": str(folder), "task": task, "splits": dict(splits), "hash": hash_dataset(dataset)})
    else:
        counts = ", ".join(f"{count} {split}" for split, count in splits.items())
        typer.echo(f"{folder}: {len(dataset)} images ({counts})")


@app.command()
def check(
    dataset: Annotated[Path, typer.Argument(help="A data set folder.")],
    column: ColumnOption = None,
    channels: Annotated[int | None, typer.Option(help="How many channels the model takes.")] = None,
    require: Annotated[list[str] | None, typer.Option(help="Splits that must be there; default train and val.")] = None,
    json: JsonOption = False,
) -> None:
    """Find what would ruin a training; exit status 2 when something does."""
    from cytoray_services.datasets import check_folder

    findings = check_folder(
        dataset, columns=parse_columns(column), channels=channels, required_splits=tuple(require or ("train", "val"))
    )
    count = Counter(finding.severity for finding in findings)
    if json:
        print_json(
            {
                "dataset": str(dataset),
                "errors": count["error"],
                "warnings": count["warning"],
                "findings": findings,
            }
        )
    else:
        _print_findings(dataset, findings)
    if count["error"]:
        raise typer.Exit(RequestError.exit_status)


@app.command("hash")
def print_hash(
    dataset: Annotated[Path, typer.Argument(help="A data set folder.")],
    column: ColumnOption = None,
    json: JsonOption = False,
) -> None:
    """Print the content hash that the registry records with every model trained on the data set."""
    from cytoray_services.datasets import hash_dataset, open_dataset

    opened = open_dataset(dataset, columns=parse_columns(column))
    digest = hash_dataset(opened)
    if json:
        print_json({"dataset": str(dataset), "hash": digest, "items": len(opened)})
    else:
        typer.echo(digest)


def _print_findings(dataset: Path, findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=160)
    if not findings:
        console.print(f"{dataset}: nothing found that would ruin a training", highlight=False, markup=False)
        return
    table = Table("", "file", "problem", "remedy", title=str(dataset), show_lines=True)
    colours = {"error": "red", "warning": "yellow"}
    for finding in findings:
        table.add_row(f"[{colours[finding.severity]}]{finding.severity}", finding.file, finding.problem, finding.remedy)
    console.print(table)


def _parse_size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise RequestError(f"expected a size such as 256 or 520x696, got {text!r}", field="size")
    return int(sides[0]), int(sides[-1])
