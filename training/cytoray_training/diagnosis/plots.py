"""The figures of a report, drawn from the facts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.pictures import figure_png, new_figure
from cytoray_analysis.plural import counted
from cytoray_training.diagnosis.facts import Facts
from cytoray_training.diagnosis.findings.intervals import of_split, score_interval

_TRAIN, _VAL = "#d95f02", "#1b6ca8"
_MOST_LAYERS = 40


def draw(facts: Facts) -> dict[str, bytes]:
    """Draw the figures that the facts allow.

    Returns
    -------
    dict
        PNG files by name: ``curves`` (loss, scores of both splits, learning rate, gradient norm), ``layers`` (output,
        dead channels and updates of each layer over time), ``scores`` (of single images with the interval), ``time``
        (how the machine spent its time).
    """
    pictures = {}
    if facts.steps.step:
        pictures["curves"] = _curves(facts)
    if facts.probes:
        pictures["layers"] = _layers(facts)
    if facts.ending is not None and facts.ending.images:
        pictures["scores"] = _scores(facts)
    if facts.spent:
        pictures["time"] = _time(facts)
    return pictures


def _curves(facts: Facts) -> bytes:
    figure = new_figure(width=11.0, height=6.4)
    panels = figure.subplots(2, 2)
    steps = np.array(facts.steps.step)
    loss, norm = np.array(facts.steps.loss), np.array(facts.steps.gradient_norm)
    _line(panels[0, 0], steps, loss, "loss")
    _score_panel(panels[0, 1], facts)
    panels[1, 0].plot(steps, facts.steps.learning_rate, color=_TRAIN)
    _named(panels[1, 0], "step", "learning rate")
    _line(panels[1, 1], steps, norm, "gradient norm")
    clip = facts.setting("training.gradient_clip")
    panels[1, 1].axhline(clip, color="grey", linestyle="--", linewidth=1, label=f"clipped at {clip:g}")
    panels[1, 1].legend(frameon=False, fontsize=8)
    if facts.failure is not None:
        for panel in (panels[0, 0], panels[1, 1]):
            panel.axvline(facts.failure.step, color="red", linewidth=1)
            panel.set_title(f"not finite in step {facts.failure.step}", color="red", fontsize=9)
    return figure_png(figure)


def _line(panel: Any, steps: NDArray[np.int64], values: NDArray[np.float64], name: str) -> None:
    panel.plot(steps, values, color=_TRAIN, alpha=0.3, linewidth=0.8)
    width = max(1, len(values) // 50)
    smooth = [np.median(values[max(0, place - width) : place + width + 1]) for place in range(len(values))]
    panel.plot(steps, smooth, color=_TRAIN, label="running median")
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0:
        panel.set_yscale("log")
    _named(panel, "step", name)


def _score_panel(panel: Any, facts: Facts) -> None:
    rows = [(one.epoch + 1, one.score, one.training_score) for one in facts.validations]
    known = [(epoch, training) for epoch, _, training in rows if training is not None]
    if known:
        panel.plot(*zip(*known, strict=True), color=_TRAIN, marker=".", label="some training images")
    if rows:
        panel.plot([row[0] for row in rows], [row[1] for row in rows], color=_VAL, marker=".", label="validation")
        panel.legend(frameon=False, fontsize=8)
    panel.xaxis.get_major_locator().set_params(integer=True)
    if facts.agreement is not None:
        panel.axhline(facts.agreement, color="grey", linestyle="--", linewidth=1)
    _named(panel, "epoch", facts.metric)


def _layers(facts: Facts) -> bytes:
    names = list(dict.fromkeys(layer.name for probe in facts.probes for layer in probe.layers))
    names = [names[place] for place in np.linspace(0, len(names) - 1, min(len(names), _MOST_LAYERS)).astype(int)]
    figure = new_figure(width=12.0, height=1.6 + 0.2 * len(names))
    panels = figure.subplots(1, 3, sharey=True)
    wanted = (
        ("rms", "log10 of output (rms)"),
        ("dead", "share of dead channels"),
        ("update", "log10 of update / weight"),
    )
    for panel, (member, title) in zip(panels, wanted, strict=True):
        grid = np.full((len(names), len(facts.probes)), np.nan)
        for column, probe in enumerate(facts.probes):
            values = {layer.name: getattr(layer, member) for layer in probe.layers}
            for row, name in enumerate(names):
                value = values.get(name)
                grid[row, column] = np.nan if value is None else value
        if member != "dead":
            with np.errstate(divide="ignore", invalid="ignore"):
                grid = np.log10(grid)
            grid[~np.isfinite(grid)] = np.nan
        limits = {"vmin": 0.0, "vmax": 1.0} if member == "dead" else {}
        image = panel.imshow(grid, aspect="auto", interpolation="none", cmap="viridis", **limits)
        figure.colorbar(image, ax=panel, shrink=0.8)
        panel.set_title(title, fontsize=9)
        ticks = np.unique(np.linspace(0, len(facts.probes) - 1, min(len(facts.probes), 5)).astype(int))
        panel.set_xticks(ticks, [str(facts.probes[place].step) for place in ticks], fontsize=8)
        panel.set_xlabel("step")
    panels[0].set_yticks(range(len(names)), names, fontsize=7)
    return figure_png(figure)


def _scores(facts: Facts) -> bytes:
    ending = facts.ending
    assert ending is not None  # noqa: S101 - called only with an ending
    figure = new_figure(width=8.0, height=3.4)
    axes = figure.add_subplot()
    bins = _bins([image.score for image in ending.images])
    shown = {split: [image.score for image in of_split(ending.images, split)] for split in ("train", "val")}
    shown = {split: scores for split, scores in shown.items() if scores}
    axes.hist(
        list(shown.values()),
        bins=bins,
        weights=[np.full(len(scores), 1 / len(scores)) for scores in shown.values()],
        color=[{"train": _TRAIN, "val": _VAL}[split] for split in shown],
        label=[f"{split} ({counted(len(scores), 'image')})" for split, scores in shown.items()],
    )
    interval = score_interval(ending)
    if interval is not None:
        axes.axvspan(*interval, color=_VAL, alpha=0.15, label=f"95 % interval {interval[0]:.3f} to {interval[1]:.3f}")
    if facts.agreement is not None:
        axes.axvline(facts.agreement, color="grey", linestyle="--", label=f"annotator agreement {facts.agreement:.3f}")
    _named(axes, f"{ending.metric} of single images", "share of images")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure_png(figure)


def _bins(scores: list[float]) -> NDArray[np.float64]:
    low, high = min(*scores, 0.0) if len(scores) > 1 else 0.0, max(*scores, 1.0) if len(scores) > 1 else 1.0
    return np.linspace(low, high, 21)


def _time(facts: Facts) -> bytes:
    figure = new_figure(width=8.0, height=2.6)
    axes = figure.add_subplot()
    total = {
        stage: sum(getattr(one, stage) for one in facts.spent)
        for stage in ("waited", "network", "validation", "read", "augment", "encode")
    }
    names = ["waiting for data", "network", "validation", "(parallel) read", "(parallel) augment", "(parallel) encode"]
    colours = ["#c0392b", _VAL, "#7f8c8d", "#bdc3c7", "#bdc3c7", "#bdc3c7"]
    axes.barh(names, list(total.values()), color=colours)
    axes.invert_yaxis()
    _named(axes, "seconds", "")
    return figure_png(figure)


def _named(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
