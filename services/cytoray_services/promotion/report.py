"""The report of the gate: JSON, Markdown and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cytoray_services.promotion.checks import Check
from cytoray_services.promotion.resampling import Comparison


def checks_as_json(facts: Mapping[str, Any], checks: Sequence[Check]) -> str:
    """Return the report as JSON."""
    return json.dumps({**facts, "checks": [describe(check) for check in checks]}, indent=1, default=str)


def describe(check: Check) -> dict[str, Any]:
    """Return one check as a JSON object."""
    return {"name": check.name, "passed": check.passed, "reason": check.reason, "figures": dict(check.figures)}


def checks_as_markdown(facts: Mapping[str, Any], checks: Sequence[Check]) -> str:
    """Return the report as Markdown."""
    lines = [f"# {facts['model']} for `{facts['alias']}`", ""]
    lines += [f"- {name}: {value}" for name, value in facts.items() if name not in ("model", "alias")]
    lines += ["", "| check | | found |", "|---|---|---|"]
    lines += [f"| {one.name} | {'passed' if one.passed else '**failed**'} | {_cell(one.reason)} |" for one in checks]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def draw_comparison(comparison: Comparison, candidate: str, champion: str) -> bytes:
    """Draw the difference between candidate and champion next to those of equal models, PNG."""
    from cytoray_analysis.pictures import figure_png, new_figure, set_title

    figure = new_figure(width=7.0, height=3.8)
    axes = figure.add_subplot()
    differences, found = comparison.differences, comparison.differences[0]
    span = float(np.abs(differences[np.isfinite(differences)]).max(initial=0.0)) or 1.0
    bins = np.linspace(-span, span, 61)
    axes.hist(
        [differences[differences < found], differences[differences >= found]],
        bins=bins,
        stacked=True,
        color=["#1b7f79", "#c4622d"],
        label=[
            "answers of both exchanged",
            f"at least as large as found: {comparison.probability:.2g} of all",
        ],
    )
    axes.axvline(0, color="black", linewidth=1)
    axes.axvline(found, color="black", linestyle="--", linewidth=1, label="found")
    axes.set_xlabel(f"{comparison.metric} of {candidate} minus that of {champion}")
    axes.set_ylabel("exchanges")
    verdict = "better by more than chance" if comparison.better else "not better by more than chance"
    drawn = f"{comparison.images} images"
    if comparison.groups != comparison.images:
        drawn += f", {comparison.groups} images or groups that count"
    set_title(axes, f"{verdict}; {drawn}, at most {comparison.level:.2g} may be on the right")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure_png(figure)
