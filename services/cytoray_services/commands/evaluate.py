"""``cytoray evaluate``: score a model on a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cytoray_analysis.errors import RequestError
from cytoray_analysis.files import write_whole
from cytoray_services.commands.columns import ColumnOption, parse_columns
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.commands.selecting import (
    ChannelOption,
    DiameterOption,
    FrameOption,
    InputAxesOption,
    PixelSizeOption,
    PlaneOption,
    SeriesOption,
    chosen,
)
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from cytoray_services.datasets import Dataset, DataSource
    from cytoray_services.kinds.evaluated import Evaluation
    from cytoray_services.registry import ModelVersion
    from cytoray_services.settings import Settings

# Width of a table in a file or a pipe, where the terminal sets no width.
WIDTH_OF_FILES = 200


def evaluate(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS, NAME/VERSION or a bundle folder.")],
    dataset: Annotated[str, typer.Argument(help="A data set: a folder or s3://bucket/prefix.")],
    split: Annotated[str, typer.Option(help="Split of the data set to score, or all.")] = "val",
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=GLOB", help="Only images with a matching value in this column; repeatable."),
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="Also score each value of this column.")] = None,
    segmentation: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Track the objects that this model finds instead of the given masks, or segment predicted stains.",
        ),
    ] = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="Also score a method without learning.")] = False,
    pictures: Annotated[Path | None, typer.Option(metavar="DIR", help="Write pictures of the answers here.")] = None,
    column: ColumnOption = None,
    channel: ChannelOption = None,
    plane: PlaneOption = None,
    frame: FrameOption = None,
    series: SeriesOption = None,
    input_axes: InputAxesOption = None,
    pixel_size: PixelSizeOption = None,
    diameter: DiameterOption = None,
    device: Annotated[str | None, typer.Option(help="Device, such as cpu or cuda:0.", show_default="automatic")] = None,
    precision: Annotated[
        Literal["fp32", "bf16"] | None, typer.Option(help="Precision of the network.", show_default="automatic")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Score a model on a data set.

    Example: cytoray evaluate nuclei@champion cells --split test --by plate
    """
    conditions = [_condition(text) for text in where or ()]
    selection = chosen(channel, plane, frame, series, input_axes, pixel_size, diameter)

    from cytoray_analysis.inference.objects import require_labels
    from cytoray_services.datasets import open_dataset
    from cytoray_services.evaluation.evaluation import evaluate as evaluate_model
    from cytoray_services.registry import load_bundle, load_predictor, predictor_of
    from cytoray_services.statistics.intervals import described, few_units

    settings = load_settings()
    bundle, version = load_bundle(model, settings)
    predictor = predictor_of(bundle, version, device=device, precision=precision)
    whole = open_dataset(dataset, columns=parse_columns(column) or None, truth=predictor.task.output.truth)
    whole = whole.choosing(selection)
    part = whole.split(split)
    for name, glob in conditions:
        part = part.where(name, glob)
    segment = None
    if segmentation is not None:
        segment = load_predictor(segmentation, settings, device=device)
        require_labels(segment, segmentation)
    with _progress_bar() as progress:
        evaluation = evaluate_model(predictor, part, by=by, segment=segment, progress=progress)
    answer: dict[str, Any] = {
        "model": version.reference if version else model,
        "dataset": dataset,
        "split": split,
        "metrics": evaluation.metrics,
        "intervals": {name: described(one) for name, one in evaluation.intervals.items()},
        "unit": evaluation.unit,
        "units": len(set(evaluation.units)),
        "items": len(part),
        "seconds": round(evaluation.seconds, 3),
        "warnings": [asdict(one) for one in evaluation.warnings],
    }
    calibrated = evaluation.calibrated_error()
    if calibrated is not None:
        answer["ece_if_calibrated"] = asdict(calibrated)
    if evaluation.absent:
        answer["absent"] = evaluation.absent
    if selection.given():
        answer["selection"] = selection.given()
        answer["channels"] = _channels(evaluation)
    if by is not None:
        answer["groups"] = evaluation.groups
        answer["group_intervals"] = {
            group: {name: described(one) for name, one in intervals.items()}
            for group, intervals in evaluation.group_intervals.items()
        }
    if evaluation.downstream:
        answer["downstream"] = evaluation.downstream
    if baseline:
        from cytoray_services.evaluation.baselines import baseline_scores

        answer["baseline"] = baseline_scores(whole, part, bundle.spec)
    notes = [few_units(answer["units"], evaluation.unit), *_seen(version, part, settings)]
    answer["notes"] = [note for note in notes if note]
    if pictures is not None:
        answer["pictures"] = _write_pictures(evaluation, pictures)
    if json:
        print_json(answer)
    else:
        _print_scores(answer, evaluation)


def _seen(version: ModelVersion | None, part: Dataset, settings: Settings) -> Iterator[str]:
    """Report the images that the model was trained on: its scores on them are too high."""
    from cytoray_services.promotion.seen_data import image_digests, read_seen_data
    from cytoray_services.registry import Registry

    if version is None or version.run_id is None:
        return
    seen = read_seen_data(Registry.open(settings).run(version.run_id))
    if seen is None:
        return
    here = image_digests(part)
    for split, did in (
        ("train", "were used for training"),
        ("val", "were used to choose epoch, decoding and calibration"),
    ):
        known = len(here.keys() & seen.images.get(split, frozenset()))
        if known:
            yield f"{known} of {len(here)} images {did}, so the scores are too high: {_others(part, seen.source)}"


def _others(part: Dataset, trained_on: DataSource) -> str:
    """Return a hint which images to use instead."""
    if part.splits != ("test",):
        return "score it on other images, such as --split test"
    columns = [name for name in trained_on.groups if name in part.items[0].row]
    if part.derived_test and columns and part.group_column not in columns:
        return f"training drew another test split, by the column {columns[0]}: add --column group={columns[0]}"
    return "score it on other images"


def _channels(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the selected channels, with the names in the first image."""
    image = next(iter(evaluation.items)).labelled.image
    return [{"name": name, "number": number} for name, number in zip(image.channels, image.numbers, strict=False)]


def _write_pictures(evaluation: Evaluation, folder: Path) -> list[str]:
    from cytoray_services.evaluation.pictures import evaluation_pictures

    pictures = evaluation_pictures(evaluation).items()
    return [str(write_whole(folder / f"{name}.png", picture)) for name, picture in pictures]


def _condition(text: str) -> tuple[str, str]:
    column, equals, glob = text.partition("=")
    if not (column and equals):
        raise RequestError(f"expected COLUMN=GLOB, got {text!r}", field="where", hint="such as --where 'kind=fluo*'")
    return column, glob


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("evaluating", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_scores(answer: dict[str, Any], evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cytoray_analysis.plural import counted
    from cytoray_services.statistics.intervals import CONFIDENCE, shown

    counts = {name: sum(score.group == name for score in evaluation.items) for name in evaluation.groups}
    columns = [("all", len(evaluation.items), evaluation.metrics, evaluation.intervals)]
    columns += [
        (name, counts[name], metrics, evaluation.group_intervals[name]) for name, metrics in evaluation.groups.items()
    ]
    if "baseline" in answer:
        columns.append(("without learning", len(evaluation.items), answer["baseline"], {}))
    names = list(dict.fromkeys(name for _, _, metrics, _ in columns for name in metrics if "/" not in name))
    table = Table("", box=None, pad_edge=False)
    for label, *_ in columns:
        table.add_column(Text(label), overflow="fold")
    table.add_row("images", *(str(count) for _, count, _, _ in columns))
    for name in names:
        cells = (
            shown(metrics[name], ends.get(name), alone=metrics is not answer.get("baseline"))
            if name in metrics
            else "–"
            for _, _, metrics, ends in columns
        )
        table.add_row(Text(name), *cells)
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    if "ece" in names:
        table.add_row("ece if calibrated", *_calibrated(evaluation))
    console.print(Text(f"{answer['model']} on {answer['dataset']}, {answer['split']}"))
    console.print(table)
    _print_parts(console, evaluation)
    if evaluation.intervals:
        over = counted(answer["units"], evaluation.unit)
        console.print(Text(f"in brackets: {CONFIDENCE:.0%} intervals over {over}; ?: fewer than six"))
    for name, value in evaluation.downstream.items():
        console.print(Text(f"{name} {value:.3f}"))
    absent = [name for name in evaluation.absent if "/" not in name]
    if absent:
        console.print(Text(f"no values for {', '.join(absent)}"))
    console.print(Text(f"{evaluation.seconds:.1f} s"))
    if answer.get("channels"):
        named = ", ".join(f"{one['number']} {one['name']}" for one in answer["channels"])
        console.print(Text(f"channels: {named}"))
    for warning in (*answer["notes"], *evaluation.warnings):
        console.print(Text(f"warning: {warning}"))


def _calibrated(evaluation: Evaluation) -> Iterator[str]:
    """Yield the ECE that calibrated answers would have, for each column of scores: mean and 95 % quantile."""
    parts = [[item for item in evaluation.items if item.group == name] for name in evaluation.groups]
    for items in (evaluation.items, *parts):
        expected = evaluation.calibrated_error(items)
        yield "–" if expected is None else f"{expected.mean:.3f}, at most {expected.high:.3f}"


def _print_parts(console: Console, evaluation: Evaluation) -> None:
    """Print the scores of each class or channel, ``score/part``, in a row each."""
    from rich.table import Table

    from cytoray_services.statistics.intervals import shown

    parts: dict[str, dict[str, str]] = {}
    for name, value in evaluation.metrics.items():
        score, slash, part = name.partition("/")
        if slash:
            parts.setdefault(part, {})[score] = shown(value, evaluation.intervals.get(name), alone=True)
    if not parts:
        return
    scores = list(dict.fromkeys(score for values in parts.values() for score in values))
    table = Table("", *scores, box=None, pad_edge=False)
    for part, values in parts.items():
        table.add_row(part, *(values.get(score, "–") for score in scores))
    console.print(table)
