"""``cytoray models promote``: run the gate, print its checks and move the alias."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cytoray_services.commands.columns import ColumnOption, parse_columns
from cytoray_services.commands.idle import refuse_idle
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from cytoray_services.promotion.checks import Check
    from cytoray_services.promotion.evaluation_set import EvaluationSet
    from cytoray_services.registry import ModelVersion, Registry

CHAMPION = "champion"


def promote(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME (its candidate), NAME@ALIAS or NAME/VERSION.")],
    on: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Evaluation set; its content is recorded at first use.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="With --on: split to use, or all.", show_default="test, or all without splits"),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="With --on: subgroups that must not get worse.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="With --on: images that belong together, such as of a patient.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="SCORE", help="With --on: score that must improve, such as pq; stored with it."),
    ] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCORE=TOLERANCE", help="With --on: score and its largest loss, such as ap90=0.01; repeatable."
        ),
    ] = None,
    column: ColumnOption = None,
    replace_set: Annotated[
        bool, typer.Option("--replace-set", help="With --on: replace the evaluation set; requires --reason.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="With --on: largest loss of a subgroup; stored with it.", show_default="0.02"),
    ] = None,
    alias: Annotated[
        str, typer.Option("--alias", help="Alias to move; only the champion must pass the gate.")
    ] = CHAMPION,
    reason: Annotated[str, typer.Option("--reason", help="Reason, stored in the history.")] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Promote despite failed checks; recorded; requires --reason.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make a version the champion, if it passes the gate.

    Example: cytoray models promote nuclei --on cells --split test --by plate
    """
    from cytoray_services.promotion.policy import parse_guards
    from cytoray_services.registry import CANDIDATE, Registry, parse_reference

    if alias != CHAMPION:
        of_the_gate = ("on", "split", "by", "group", "metric", "guard", "column", "replace_set", "tolerance", "force")
        refuse_idle(context, of_the_gate, f"with --alias {alias}", hint="only the champion must pass the gate")
    if on is None:
        refuse_idle(
            context,
            ("split", "by", "group", "metric", "guard", "column", "replace_set", "tolerance"),
            "without --on",
            hint="add --on",
        )
    wanted = parse_reference(model)
    by_name = wanted.alias is None and wanted.version is None
    registry = Registry.open(load_settings())
    version = registry.resolve(f"{wanted.name}@{CANDIDATE}" if by_name else model)
    if alias != CHAMPION:
        _answer(registry.promote(version.name, version.version, alias, reason=reason), alias, (), None, json)
        return
    _through_the_gate(
        registry,
        version,
        given=None
        if on is None
        else _freeze(
            registry,
            version,
            on,
            parse_columns(column),
            split=split,
            by=by,
            group=group,
            metric=metric,
            guards=parse_guards(guard or ()),
            tolerance=tolerance,
        ),
        replacing=replace_set,
        force=force,
        reason=reason,
        json=json,
    )


def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    alias: Annotated[
        str, typer.Option("--alias", help="Alias to move; a service serves the champion by default.")
    ] = CHAMPION,
    reason: Annotated[str, typer.Option("--reason", help="Reason, stored in the history.")] = "",
    json: JsonOption = False,
) -> None:
    """Move an alias back to its previous version.

    Example: cytoray models rollback nuclei --reason "too many false alarms"
    """
    from cytoray_services.registry import Registry

    _answer(Registry.open(load_settings()).rollback(name, alias, reason=reason), alias, (), None, json)


def _freeze(
    registry: Registry, version: ModelVersion, on: str, columns: dict[str, str], *, split: str | None, **policy: Any
) -> EvaluationSet:
    from cytoray_analysis.kinds import task_kind
    from cytoray_services.datasets import DataSource, absolute_or_uri
    from cytoray_services.promotion.evaluation_set import choice_of, freeze

    chosen = choice_of(registry, version)
    source = DataSource(
        (absolute_or_uri(on),), task_kind(version.tags["task"]).truth, columns=columns, selection=chosen
    )
    return freeze(source, split, **policy)


def _through_the_gate(registry: Registry, version: ModelVersion, *, json: bool, **request: Any) -> None:
    from cytoray_services.promotion.gate import PromotionRefusedError, PromotionRequest
    from cytoray_services.promotion.gate import promote as promote_version

    with _progress() as progress:
        try:
            done = promote_version(registry, version, PromotionRequest(alias=CHAMPION, **request), progress=progress)
        except PromotionRefusedError as refusal:
            if not json:
                _print_checks(refusal.checks)
            raise
    facts = {"forced": done.forced, "report": done.report or None}
    _answer(done.version, CHAMPION, done.checks, facts, json)


def _answer(
    version: ModelVersion, alias: str, checks: tuple[Check, ...], facts: dict[str, Any] | None, json: bool
) -> None:
    if json:
        more = {} if facts is None else {**facts, "checks": checks}
        print_json({**version.describe(), "alias": alias, **more})
        return
    _print_checks(checks)
    forced = ", forced" if facts and facts["forced"] else ""
    typer.echo(f"{version.name}@{alias} is now {version.reference} ({version.digest[:12]}){forced}")


def _print_checks(checks: tuple[Check, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not checks:
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        verdict = Text("passed", "green") if check.passed else Text("failed", "bold red")
        table.add_row(Text(check.name), verdict, Text(check.reason))
    Console().print(table)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """Show the current stage on standard error, if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("opening the registry") as status:
        yield lambda stage: status.update(stage)
