"""``cytoray data``: make, check and hash data sets."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from cytoray_analysis.errors import RequestError
from cytoray_services.commands.columns import ColumnOption, parse_columns
from cytoray_services.commands.output import JsonOption, print_json

if TYPE_CHECKING:
    from cytoray_services.datasets import Dataset, Finding

app = typer.Typer(no_args_is_help=True, help="Make, check and hash data sets.")

_AXES = ("YX", "ZYX")
# The options that each task knows beside those that all do.
_OPTIONS: Mapping[str, frozenset[str]] = {
    "segmentation": frozenset({"bits", "depth", "transmitted"}),
    "classification": frozenset({"classes", "imbalance", "layout"}),
    "tracking": frozenset({"frames"}),
    "label-free": frozenset({"planes", "volume", "channels"}),
}


@app.command()
def make(
    task: Annotated[str, typer.Argument(help=f"What the data set is for: {', '.join(_OPTIONS)}.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write it.")],
    images: Annotated[int | None, typer.Option(help="How many images, or movies.")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="N or YxX", help="Size in pixels, such as 256 or 520x696.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same data.")] = 0,
    bits: Annotated[int | None, typer.Option(help="segmentation: 8, or 16 as from a 12-bit camera.")] = None,
    depth: Annotated[int | None, typer.Option(help="segmentation: volumes of so many planes.")] = None,
    transmitted: Annotated[
        float | None, typer.Option(help="segmentation: share of images with dark nuclei on a bright field.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="classification: how many, 2 to 4.")] = None,
    imbalance: Annotated[
        float | None, typer.Option(help="classification: how often the largest class outnumbers the smallest.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="classification: boxes in a manifest, or folders, one per class.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="tracking: frames of each movie.")] = None,
    planes: Annotated[int | None, typer.Option(help="label-free: planes of the input.")] = None,
    volume: Annotated[bool, typer.Option("--volume", help="label-free: targets have the planes, too.")] = False,
    channels: Annotated[int | None, typer.Option(help="label-free: stains to predict, 1 or 2.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write into a folder that holds something.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a synthetic data set with exact truth."""
    from cytoray_services.datasets import hash_dataset

    own = {
        "bits": bits,
        "depth": depth,
        "transmitted": transmitted,
        "classes": classes,
        "imbalance": imbalance,
        "layout": layout,
        "frames": frames,
        "planes": planes,
        "volume": volume or None,
        "channels": channels,
    }
    given = _only_given(own)
    _check_options(task, given)
    shared = _only_given({"images": images, "size": None if size is None else _parse_size(size)})
    dataset = _MAKERS[task](folder=folder, seed=seed, overwrite=overwrite, **shared, **given)
    splits = Counter(item.split for item in dataset.items)
    if json:
        print_json({"dataset": str(folder), "task": task, "splits": dict(splits), "hash": hash_dataset(dataset)})
    else:
        counts = ", ".join(f"{count} {split}" for split, count in splits.items())
        typer.echo(f"{folder}: {len(dataset)} items ({counts})")


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(help="A data set: a folder, s3://bucket/prefix.")],
    column: ColumnOption = None,
    truth: Annotated[
        str | None, typer.Option(help="What the truth must be: labels, image, class or lineage; default what is there.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Axes that the model takes: YX or ZYX.")] = None,
    channels: Annotated[int | None, typer.Option(help="How many channels the model takes.")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(help="Splits that must be there; default train and val where there are several images."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Check what a training with this recipe checks, on this data set."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="With --recipe: override a field of it.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Find what would ruin a training; exit status 2 when something does."""
    from cytoray_analysis.tasks.protocol import TruthKind
    from cytoray_services.datasets import Finding
    from cytoray_services.datasets.check import check_dataset, open_for_check, usual_splits

    _check_choice("truth", truth, get_args(TruthKind))
    _check_choice("axes", axes, _AXES)
    # typer has no literal types; the choice was checked above.
    if recipe is not None:
        options = {"column": column, "truth": truth, "axes": axes, "channels": channels, "require": require}
        read, findings = _check_with_recipe(dataset, recipe, overrides or (), options)
        summary = {} if read is None else _summarise(read)
        _report(dataset, summary, findings, json)
        return
    if overrides:
        raise RequestError("expected --set beside --recipe, got it alone", field="set", hint="name a recipe")
    opened = open_for_check(dataset, columns=parse_columns(column), truth=truth)  # type: ignore[arg-type]
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
    """Let the training say what it would say of its data, were they these."""
    from importlib.metadata import entry_points

    from cytoray_analysis.errors import PlatformError

    for name, value in options.items():
        if value:
            raise RequestError(
                f"expected no --{name} beside --recipe, got {value}",
                field=name,
                hint="the recipe says it; change it with --set FIELD=VALUE",
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
    dataset: Annotated[str, typer.Argument(help="A data set: a folder, s3://bucket/prefix.")],
    column: ColumnOption = None,
    json: JsonOption = False,
) -> None:
    """Print the content hash that the registry records with every model trained on the data set."""
    from cytoray_services.datasets import hash_dataset, open_dataset

    opened = open_dataset(dataset, columns=parse_columns(column), drawing_test=False)
    digest = hash_dataset(opened)
    if json:
        print_json({"dataset": dataset, "hash": digest, "items": len(opened)})
    else:
        typer.echo(digest)


def _make_segmentation(*, bits: int = 8, depth: int | None = None, **options: Any) -> Dataset:
    from cytoray_services.datasets.synthetic import make_segmentation
    from cytoray_services.datasets.synthetic_volumes import make_volumes

    if bits not in (8, 16):
        raise RequestError(f"expected 8 or 16 bits, got {bits}", field="bits")
    dtype: Any = "uint8" if bits == 8 else "uint16"
    if depth is None:
        return make_segmentation(dtype=dtype, **options)
    if "transmitted" in options:
        raise RequestError(
            "expected either --depth or --transmitted, got both",
            field="transmitted",
            hint="volumes are fluorescence images",
        )
    return make_volumes(depth=depth, dtype=dtype, **options)


def _make_classification(**options: Any) -> Dataset:
    from cytoray_services.datasets.synthetic_classification import make_classification

    return make_classification(**options)


def _make_label_free(**options: Any) -> Dataset:
    from cytoray_services.datasets.synthetic_label_free import make_label_free

    return make_label_free(**options)


def _make_tracking(*, images: int = 4, **options: Any) -> Dataset:
    from cytoray_services.datasets.synthetic_tracking import make_tracking

    return make_tracking(movies=images, **options)


_MAKERS: Mapping[str, Callable[..., Dataset]] = {
    "segmentation": _make_segmentation,
    "classification": _make_classification,
    "tracking": _make_tracking,
    "label-free": _make_label_free,
}


def _only_given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _check_options(task: str, given: Mapping[str, Any]) -> None:
    if task not in _OPTIONS:
        raise RequestError(f"expected a task out of {', '.join(_OPTIONS)}, got {task!r}", field="task")
    foreign = sorted(given.keys() - _OPTIONS[task])
    if foreign:
        raise RequestError(
            f"expected for {task} options out of {_flags(_OPTIONS[task])}, got {_flags(foreign)}",
            field=foreign[0],
            hint="leave it out; all tasks take --images, --size, --seed and --overwrite",
        )


def _flags(names: frozenset[str] | list[str]) -> str:
    return ", ".join(f"--{name}" for name in sorted(names))


def _check_choice(field: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise RequestError(f"expected {' or '.join(choices)}, got {value!r}", field=field)


def _summarise(dataset: Dataset) -> dict[str, Any]:
    """Count items per split and, where items have classes, per class; the imbalance is that of the whole set."""
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
        console.print(f"{dataset}: nothing found that would ruin a training", highlight=False, markup=False)
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


def _parse_size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise RequestError(f"expected a size such as 256 or 520x696, got {text!r}", field="size")
    return int(sides[0]), int(sides[-1])
