"""The report of a search: Markdown and pictures, on disk and in MLflow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cytoray_analysis.files import write_whole
from cytoray_analysis.pictures import figure_png, new_figure, set_title
from cytoray_training.search.judging import SELECTION, Judgement
from cytoray_training.search.sampler import importances
from cytoray_training.search.space import Choice, Range, Space, place_of
from cytoray_training.search.study import Member, Study
from cytoray_training.search.trials import Trials

REPORT = "report"
_COLOURS = "viridis"
_GREY = "#b0b0b0"


def write_report(
    study: Study,
    trials: Trials,
    best: Member,
    final: Member,
    judgement: Judgement,
    tested: Mapping[str, Mapping[str, Any]],
) -> Path:
    """Write ``report/README.md`` with its pictures into the folder of a search and its MLflow run; return its path."""
    folder = study.folder / REPORT
    members, space, metric = trials.members, trials.space, trials.metric
    placed = {member.name: place_of(space, trials.plan.recipe, member.values) for member in members}
    place, scores = common_place(members, metric)
    known = [(values, scores[name]) for name, values in placed.items() if values is not None and name in scores]
    shares = importances(space, [values for values, _ in known], [score for _, score in known])
    pictures = {
        "parallel.png": parallel_coordinates(space, members, placed, metric, best.name),
        "trials.png": _curves(members, metric, best.name),
    }
    if shares:
        pictures["importance.png"] = _bars(shares, f"share of the variance of {_where(metric, place)}")
    text = _text(trials, best, final, judgement, tested) + _mattered(metric, shares, place, len(known)) + _table(trials)
    for name, picture in pictures.items():
        write_whole(folder / name, picture)
        study.run.log_bytes(picture, f"{REPORT}/{name}")
    path = folder / "README.md"
    write_whole(path, text)
    study.run.log_text(text, f"{REPORT}/README.md")
    summary = {f"selection_{metric}": best.best(metric) or 0.0, "trials": float(len(members))}
    summary |= {f"test_{name}_{what}": float(number) for name, one in tested.items() for what, number in one.items()}
    if judgement.compared is not None:
        described = judgement.described()
        numbers = {name: described[name] for name in ("best", "first", "gain", "low", "high")}
        summary |= {f"comparison_{name}": number for name, number in numbers.items() if number is not None}
    summary |= {
        state: float(sum(one.state == state for one in members)) for state in ("completed", "stopped", "failed")
    }
    study.run.log_metrics(summary, step=0)
    tags = {"best": best.name, "model_version": final.facts["version"], "comparison": judgement.sentence}
    study.run.set_tags(tags)
    return path


def common_place(members: Sequence[Member], metric: str) -> tuple[float, dict[str, float]]:
    """Return the last share of the schedule that every trial with a score reached, and the scores there.

    Stopped trials completed less of it than the others; only at that position are all comparable. Scores are
    transformed so that more is better.
    """
    scored = [member for member in members if member.best(metric) is not None]
    place = min((member.scores[-1].get("progress", 0.0) for member in scored), default=0.0)
    found = {member.name: member.after(metric, place) for member in scored}
    return place, {name: score for name, score in found.items() if score is not None}


def parallel_coordinates(
    space: Space,
    members: Sequence[Member],
    placed: Mapping[str, Mapping[str, float | int] | None],
    metric: str,
    best: str,
) -> bytes:
    """Draw a line per trial through an axis per parameter, coloured by its selection score; return a PNG.

    Completed trials are drawn solid, those that were stopped dotted, those without a score grey; the best is thick.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    paths = list(space)
    scores = [score for member in members if (score := member.best(metric)) is not None]
    low, high = (min(scores), max(scores)) if scores else (0.0, 1.0)
    norm = Normalize(low, high if high > low else low + 1e-6)
    figure = new_figure(width=max(6.0, 2.1 * (len(paths) + 1)), height=5.0)
    axes = figure.add_subplot()
    score_at = len(paths)
    for member in sorted(members, key=lambda one: one.goodness(metric)):
        places, score = placed[member.name], member.best(metric)
        if places is None:
            continue
        heights = [_height(space[path], places[path]) for path in paths]
        if score is not None:
            heights.append(float(norm(score)))
        colour = _GREY if score is None else colormaps[_COLOURS](norm(score))
        style = "-" if member.state == "completed" else ":"
        width, order = (4.0, 3) if member.name == best else (1.5, 2)
        axes.plot(range(len(heights)), heights, style, color=colour, linewidth=width, zorder=order)
    for index, path in enumerate(paths):
        axes.axvline(index, color="black", linewidth=0.8, zorder=1)
        for height, label in _ticks(space[path]):
            axes.annotate(
                label,
                (index, height),
                (4, 0),
                "data",
                "offset points",
                fontsize=8,
                va="center",
                zorder=4,
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5},
            )
    axes.axvline(score_at, color="black", linewidth=0.8, zorder=1)
    axes.set_xticks(
        range(score_at + 1), [*(path.replace(".", ".\n", 1) for path in paths), f"selection\n{metric}"], fontsize=9
    )
    axes.set_yticks([])
    axes.set_ylim(-0.06, 1.06)
    axes.set_xlim(-0.15, score_at + 0.15)
    for side in ("top", "bottom", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title("solid: completed, dotted: stopped early, thick: the best", fontsize=9)
    figure.colorbar(ScalarMappable(norm, _COLOURS), ax=axes, label=f"selection score, {metric}")
    return figure_png(figure)


def _height(parameter: Choice | Range, place: float) -> float:
    """Return the position of a value on its axis, 0 to 1."""
    if isinstance(parameter, Choice):
        return place / max(1, len(parameter.values) - 1)
    if parameter.log:
        return math.log(place / parameter.low) / math.log(parameter.high / parameter.low)
    return (place - parameter.low) / (parameter.high - parameter.low)


def _ticks(parameter: Choice | Range) -> list[tuple[float, str]]:
    if isinstance(parameter, Choice):
        return [(_height(parameter, index), _short(value)) for index, value in enumerate(parameter.values)]
    middle = math.sqrt(parameter.low * parameter.high) if parameter.log else (parameter.low + parameter.high) / 2
    shown = [parameter.low, round(middle) if parameter.whole else middle, parameter.high]
    return [(_height(parameter, value), _short(value)) for value in shown]


def _curves(members: Sequence[Member], metric: str, best: str) -> bytes:
    """Draw the score of each trial over its epochs."""
    figure = new_figure(width=7.0, height=4.2)
    axes = figure.add_subplot()
    for member in members:
        points = [(one["epoch"], one[metric]) for one in member.scores if metric in one]
        if not points:
            continue
        epochs, scores = zip(*points, strict=True)
        chosen = member.name == best
        colour = "#d95f02" if chosen else "#1b6ca8" if member.state == "completed" else _GREY
        axes.plot(
            epochs,
            scores,
            "o-",
            color=colour,
            linewidth=2.6 if chosen else 1.3,
            markersize=4,
            zorder=3 if chosen else 2,
        )
        axes.annotate(
            member.name.removeprefix("trial-").lstrip("0"),
            (epochs[-1], scores[-1]),
            (5, 0),
            "data",
            "offset points",
            fontsize=8,
            va="center",
            color=colour,
        )
    axes.set_xlabel("epochs")
    axes.set_ylabel(f"{metric} of the images that choose weights")
    axes.xaxis.get_major_locator().set_params(integer=True)
    set_title(axes, f"orange: the best ({best}), blue: completed, grey: stopped or failed")
    axes.grid(alpha=0.3)
    return figure_png(figure)


def _bars(shares: Mapping[str, float], label: str) -> bytes:
    figure = new_figure(width=7.0, height=0.9 + 0.42 * len(shares))
    axes = figure.add_subplot()
    paths = list(shares)[::-1]
    bars = axes.barh(paths, [shares[path] for path in paths], color="#1b6ca8")
    axes.bar_label(bars, [f"{shares[path]:.0%}" for path in paths], padding=3, fontsize=9)
    axes.set_xlim(0, max(shares.values()) * 1.15)
    axes.set_xlabel(label)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure_png(figure)


def _text(
    trials: Trials, best: Member, final: Member, judgement: Judgement, tested: Mapping[str, Mapping[str, Any]]
) -> str:
    members, metric = trials.members, trials.metric
    plan = trials.plan.recipe
    counts = _counts(members)
    weights = f"the weights of {best.name}" if trials.tune.refit is None else f"trained again with {trials.tune.refit}"
    lines = [
        f"# Search: {plan.model.name}",
        "",
        f"{len(members)} trials: {counts['completed']} completed, {counts['stopped']} stopped early, "
        f"{counts['failed']} failed. Searcher: {trials.tune.searcher}. "
        f"The best is {best.name}. Its {metric} of {best.best(metric) or 0.0:.3f} is {SELECTION}.",
        "",
        f"**{judgement.sentence}**",
        "",
        f"Registered as {plan.model.name}/{final.facts['version']}: {weights}. {_tested(metric, tested)}",
        "",
        "![parallel coordinates](parallel.png)",
        "",
        "",
    ]
    return "\n".join(lines)


def _tested(metric: str, tested: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe the score of the registered model on images that chose nothing."""
    if metric not in tested:
        return "There are no images that chose nothing, so its score on other images is unknown."
    one = tested[metric]
    interval = f" ({one['low']:.3f} to {one['high']:.3f})" if "low" in one else ""
    return f"On the split test, which chose nothing, it has {metric} {one['score']:.3f}{interval}."


def _mattered(metric: str, shares: Mapping[str, float], place: float, counted: int) -> str:
    lines = ["## Importance of the parameters", ""]
    if not shares:
        return "\n".join([*lines, "Unknown: too few different trials, or scores without any difference.", ""])
    hint = " With so few trials this is a hint, not a measurement." if counted < 40 else ""
    lines += [
        f"Share of the variance of {_where(metric, place)}, which all {counted} scored trials reached, by functional "
        f"ANOVA over a random forest (Hutter, Hoos, Leyton-Brown 2014).{hint}",
        "",
        *(f"- `{path}`: {share:.0%}" for path, share in shares.items()),
        "",
        "![importance](importance.png)",
        "",
    ]
    return "\n".join(lines)


def _where(metric: str, place: float) -> str:
    return f"{metric} after {place:.0%} of the schedule"


def _table(trials: Trials) -> str:
    metric, paths = trials.metric, list(trials.space)
    lines = ["## Trials", "", f"| trial | state | epochs | selection {metric} | {' | '.join(paths)} | |"]
    lines.append("|---|---|---|---|" + "---|" * (len(paths) + 1))
    for one in sorted(trials.members, key=lambda member: -member.goodness(metric)):
        shown = one.best(metric)
        values = " | ".join(_short(one.values[path]) if path in one.values else "unchanged" for path in paths)
        number = "–" if shown is None else f"{shown:.3f}"
        why = one.reason if one.state == "failed" else f"after {one.facts['from']}" if "from" in one.facts else ""
        lines.append(f"| {one.name} | {one.state} | {one.epochs} | {number} | {values} | {why} |")
    return "\n".join(["", *lines, "", "![scores over epochs](trials.png)", ""])


def _counts(members: Sequence[Member]) -> dict[str, int]:
    return {state: sum(one.state == state for one in members) for state in ("completed", "stopped", "failed")}


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


__all__ = ["REPORT", "common_place", "parallel_coordinates", "write_report"]
