"""``cytoray models canary`` and ``shadow``, and the rollouts that ``models show`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cytoray_analysis.errors import RequestError
from cytoray_services.commands.idle import refuse_idle
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from cytoray_services.registry import Registry
    from cytoray_services.rollouts.rollout import Kind, Rollout, Routing, Traffic

NAME = typer.Argument(metavar="NAME", help="The model's name.")
VERSION = typer.Argument(metavar="VERSION", help="The version to roll out; not with --stop.")
ALIAS = typer.Option("--alias", help="Alias that answers now.")
STOP = typer.Option("--stop", help="Stop the running one.")
_LONG = 24.0  # hours
_OF_A_CANARY = ("steps", "seconds_per_step", "least_requests", "failures", "slower", "slowest", "drift")
REASON = typer.Option("--reason", help="Reason, stored in the history.")


def canary(
    context: typer.Context,
    name: Annotated[str, NAME],
    version: Annotated[str | None, VERSION] = None,
    alias: Annotated[str, ALIAS] = "champion",
    steps: Annotated[
        str,
        typer.Option(
            metavar="PERCENT,…", help="Share of the requests in each step; the old version keeps 10 % to the end."
        ),
    ] = "5,25,90",
    seconds_per_step: Annotated[float, typer.Option(min=0, help="Minimum duration of a step in seconds.")] = 600.0,
    least_requests: Annotated[
        int, typer.Option(min=1, help="Minimum number of answers of the canary in a step.")
    ] = 500,
    failures: Annotated[
        float, typer.Option(min=0, max=1, help="Largest increase of the share of failed requests.")
    ] = 0.005,
    slower: Annotated[float, typer.Option(min=1, help="Largest ratio of the median times.")] = 1.25,
    slowest: Annotated[float, typer.Option(min=1, help="Largest ratio of the 95 % quantiles of the times.")] = 1.5,
    drift: Annotated[float, typer.Option(min=0, max=1, help="Largest drift of its answers; 1 for any.")] = 0.1,
    stop: Annotated[bool, STOP] = False,
    reason: Annotated[str, REASON] = "",
    json: JsonOption = False,
) -> None:
    """Let a version answer a growing share of the requests, and move the alias to it if all limits hold.

    Example: cytoray models canary nuclei 4 --steps 5,25,90
    """
    from cytoray_services.rollouts.changes import start_rollout
    from cytoray_services.rollouts.rollout import Limits, facts_of, read_routing

    if _stopping(version, stop):
        refuse_idle(context, _OF_A_CANARY, "with --stop")
        _stop("canary", name, alias, reason, json)
        return
    registry = _registry()
    limits = Limits(seconds_per_step, least_requests, failures, slower, slowest, drift)
    shares = _shares(steps)
    started = start_rollout(registry, name, version or "", alias=alias, steps=shares, limits=limits, reason=reason)
    traffic = read_routing(registry, name).traffic.get(alias)
    if json:
        print_json({**facts_of(started), **_expected(started, traffic)})
        return
    _answer(started, json)
    typer.echo(_duration(started, traffic))


def shadow(
    context: typer.Context,
    name: Annotated[str, NAME],
    version: Annotated[str | None, VERSION] = None,
    alias: Annotated[str, ALIAS] = "champion",
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the requests that it also gets.")] = 0.1,
    stop: Annotated[bool, STOP] = False,
    reason: Annotated[str, REASON] = "",
    json: JsonOption = False,
) -> None:
    """Send a share of requests to a second version as well, discard its answers, and measure how they differ.

    Example: cytoray models shadow nuclei 4 --share 0.5
    """
    from cytoray_services.rollouts.changes import start_rollout

    if _stopping(version, stop):
        refuse_idle(context, ("share",), "with --stop")
        _stop("shadow", name, alias, reason, json)
        return
    registry = _registry()
    started = start_rollout(registry, name, version or "", answers=False, alias=alias, steps=(share,), reason=reason)
    _answer(started, json)


def rollout_facts(routing: Routing) -> dict[str, Any]:
    """Return the rollouts of a model as ``--json`` prints them."""
    from cytoray_services.rollouts.rollout import facts_of

    return {
        "canaries": [
            {**facts_of(one), **_expected(one, routing.traffic.get(one.alias))}
            for one in routing.running
            if one.answers
        ],
        "shadows": [facts_of(one) for one in routing.running if not one.answers],
        "past_rollouts": [facts_of(one) for one in routing.past],
    }


def print_rollouts(routing: Routing) -> None:
    """Print the rollouts of a model, past ones first; print nothing if there are none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rollouts = [*routing.past, *sorted(routing.running, key=lambda one: not one.answers)]
    if not rollouts:
        return
    table = Table("since", "rollout", "state", "why", box=None, pad_edge=False)
    for one in rollouts:
        words = (f"{one.started.astimezone():%Y-%m-%d %H:%M:%S}", _named(one), _state(one), one.why or one.reason)
        table.add_row(*map(Text, words))
        if one.measured:
            measured = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in one.measured.items())
            table.add_row("", "", "", Text(measured, "dim"))
        if one.answers and one.state == "running" and "hours_left" not in one.measured:
            table.add_row("", "", "", Text(_duration(one, routing.traffic.get(one.alias)), "dim"))
    for column in table.columns[:3]:
        column.no_wrap = True
    console = Console()
    console.print()
    console.print(table)


def _named(one: Rollout) -> str:
    return f"{one.kind} {one.version} beside @{one.alias}"


def _state(one: Rollout) -> str:
    from cytoray_services.rollouts.rollout import share

    return f"{share(one):.0%}" if one.state == "running" else f"{one.state} at {share(one):.0%}"


def _expected(canary: Rollout, traffic: Traffic | None) -> dict[str, float | None]:
    """Return the requests that a decision still needs, and the hours if the rate of requests is known."""
    from cytoray_services.rollouts.duration import hours_left, requests_of_steps

    measured = canary.measured.get("hours_left")
    if measured is None and traffic is not None and traffic.per_hour > 0:
        measured = hours_left(canary, traffic.per_hour)
    return {"requests_expected": sum(requests_of_steps(canary)[canary.step :]), "hours_expected": measured}


def _duration(canary: Rollout, traffic: Traffic | None) -> str:
    """Say how long a decision takes, and name a faster way if that is long."""
    expected = _expected(canary, traffic)
    requests, hours = expected["requests_expected"], expected["hours_expected"]
    if hours is None or traffic is None:
        return (
            f"a decision takes about {requests:,.0f} requests to @{canary.alias}; their rate is "
            "unknown, because no service has reported one for ten minutes"
        )
    per_hour = f"{traffic.per_hour:,.{0 if traffic.per_hour >= 10 else 1}f}"
    said = f"at {per_hour} requests per hour a decision takes about {_hours(hours)}"
    if hours <= _LONG:
        return said
    compared = canary.limits.least_requests
    return (
        f"{said}; a shadow compares the answers to {compared} requests in "
        f"{_hours(compared / traffic.per_hour)} but decides nothing: "
        f"cytoray models shadow {canary.model} {canary.version} --alias {canary.alias} --share 1"
    )


def _hours(hours: float) -> str:
    return f"{60 * hours:.0f} minutes" if hours < 1 else f"{hours:.{0 if hours >= 10 else 1}f} hours"


def _stop(kind: Kind, name: str, alias: str, reason: str, json: bool) -> None:
    from cytoray_services.rollouts.changes import stop_rollout

    _answer(stop_rollout(_registry(), kind, name, alias=alias, reason=reason), json)


def _answer(one: Rollout, json: bool) -> None:
    from cytoray_services.rollouts.rollout import facts_of

    if json:
        print_json(facts_of(one))
        return
    typer.echo(f"{one.model}: {_named(one)}, {_state(one)}")


def _stopping(version: str | None, stop: bool) -> bool:
    if stop == (version is not None):
        raise RequestError("expected either VERSION or --stop", field="version", hint="see: cytoray models show NAME")
    return stop


def _shares(steps: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) / 100 for part in steps.split(","))
    except ValueError as error:
        raise RequestError(
            f"expected percentages separated by commas, got {steps!r}", field="steps", hint="such as 5,25,90"
        ) from error


def _registry() -> Registry:
    from cytoray_services.registry import Registry

    return Registry.open(load_settings())
