"""``cytoray evaluate``: the scores of a model on a data set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cytoray_analysis.errors import RequestError
from cytoray_analysis.files import write_whole
from cytoray_services.commands.columns import ColumnOption, parse_columns
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console

    from cytoray_services.evaluation import Evaluation

# Columns of text that a table may have in a file or a pipe, where nothing says how wide a line is.
WIDTH_OF_FILES = 200


def evaluate(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS, NAME/VERSION or a bundle folder.")],
    dataset: Annotated[str, typer.Argument(help="A data set: a folder, s3://bucket/prefix.")],
    split: Annotated[str, typer.Option(help="Which part of the data set; all for every part.")] = "val",
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=GLOB", help="Only images whose column matches; may be repeated."),
    ] = None,
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="Scores for each value of a column, too.")] = None,
    segmentation: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Track what this model finds, not the given masks; or segment the predicted stains."
        ),
    ] = None,
    baseline: Annotated[bool, typer.Option("--baseline", help="Score what needs no learning, too.")] = False,
    pictures: Annotated[Path | None, typer.Option(metavar="DIR", help="Write pictures of the answers there.")] = None,
    column: ColumnOption = None,
    device: Annotated[str | None, typer.Option(help="Such as cpu or cuda:0; chosen by default.")] = None,
    precision: Annotated[
        Literal["fp32", "bf16"] | None, typer.Option(help="Of the network; chosen by default.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Score a model on a data set."""
    conditions = [_condition(text) for text in where or ()]

    from cytoray_analysis.inference.objects import require_labels
    from cytoray_analysis.predictor import Predictor
    from cytoray_services.datasets import open_dataset
    from cytoray_services.evaluation import evaluate as evaluate_model
    from cytoray_services.registry import load_bundle

    settings = load_settings()
    bundle, version = load_bundle(model, settings)
    predictor = Predictor(bundle, device=device, precision=precision, version=version.version if version else None)
    whole = open_dataset(dataset, columns=parse_columns(column) or None, truth=predictor.task.output.truth)
    chosen = whole.split(split)
    for name, glob in conditions:
        chosen = chosen.where(name, glob)
    segment = None
    if segmentation is not None:
        segment = Predictor(load_bundle(segmentation, settings)[0], device=device)
        require_labels(segment, segmentation)
    with _progress_bar() as progress:
        evaluation = evaluate_model(predictor, chosen, by=by, segment=segment, progress=progress)
    answer: dict[str, Any] = {
        "model": version.reference if version else model,
        "dataset": dataset,
        "split": split,
        "metrics": evaluation.metrics,
        "items": len(chosen),
        "seconds": round(evaluation.seconds, 3),
    }
    if by is not None:
        answer["groups"] = evaluation.groups
    if evaluation.downstream:
        answer["downstream"] = evaluation.downstream
    if baseline:
        from cytoray_services.baselines import baseline_scores

        answer["baseline"] = baseline_scores(whole, chosen, bundle.spec)
    if pictures is not None:
        answer["pictures"] = _write_pictures(evaluation, pictures)
    if json:
        print_json(answer)
    else:
        _print_scores(answer, evaluation)


def _write_pictures(evaluation: Evaluation, folder: Path) -> list[str]:
    from cytoray_services.evaluation_pictures import evaluation_pictures

    pictures = evaluation_pictures(evaluation).items()
    return [str(write_whole(folder / f"{name}.png", picture)) for name, picture in pictures]


def _condition(text: str) -> tuple[str, str]:
    column, equals, glob = text.partition("=")
    if not (column and equals):
        raise RequestError(f"expected COLUMN=GLOB, got {text!r}", field="where", hint="such as --where 'kind=fluo*'")
    return column, glob


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error while the block runs; nothing when that is no terminal."""
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

    title = f"{answer['model']} on {answer['dataset']}, {answer['split']}"
    # Scores of single classes and channels have a table of their own, or no terminal would be wide enough.
    names = [name for name in evaluation.metrics if "/" not in name]
    table = Table(box=None, pad_edge=False)
    for heading in ("images", "n", *names):
        table.add_column(heading, overflow="fold")
    counts = {name: sum(score.group == name for score in evaluation.items) for name in evaluation.groups}
    rows = [("all", len(evaluation.items), evaluation.metrics)]
    rows += [(name, counts[name], metrics) for name, metrics in evaluation.groups.items()]
    if "baseline" in answer:
        rows.append(("without learning", len(evaluation.items), answer["baseline"]))
    for label, count, metrics in rows:
        table.add_row(Text(label), str(count), *(f"{metrics.get(name, math.nan):.3f}" for name in names))
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH_OF_FILES
    console.print(Text(title))
    console.print(table)
    _print_parts(console, evaluation.metrics)
    for name, value in evaluation.downstream.items():
        console.print(Text(f"{name} {value:.3f}"))
    console.print(Text(f"{evaluation.seconds:.1f} s"))


def _print_parts(console: Console, metrics: dict[str, float]) -> None:
    """Print the scores of single classes or channels, ``score/part``, a row each."""
    from rich.table import Table

    parts: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        score, slash, part = name.partition("/")
        if slash:
            parts.setdefault(part, {})[score] = value
    if not parts:
        return
    scores = list(next(iter(parts.values())))
    table = Table("", *scores, box=None, pad_edge=False)
    for part, values in parts.items():
        table.add_row(part, *(f"{values.get(score, math.nan):.3f}" for score in scores))
    console.print(table)
