"""Learning curve: the score at growing shares of the labels, and whether more labels would help."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.errors import RecipeError, RequestError, TrainingError
from cytoray_analysis.files import write_whole
from cytoray_analysis.pictures import figure_png, new_figure, set_title
from cytoray_analysis.tasks.metrics import metric_named
from cytoray_services.settings import Settings
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import Recipe
from cytoray_training.run.clusters import cluster
from cytoray_training.search.cost import Cost
from cytoray_training.search.study import open_study

SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
_CONFIDENCE = 0.95
_EXPONENTS = np.geomspace(0.05, 2.0, 60)
# A smaller gain is not worth the labelling, whatever its interval.
_WORTH = 0.005


@dataclass(frozen=True)
class Curve:
    """An inverse power law through scores, and its prediction for twice the labels.

    Attributes
    ----------
    ceiling, amplitude, exponent
        score(n) = ceiling − amplitude · n^(−exponent), of a score transformed so that more is better; the exponent is
        the most likely one.
    gain, low, high
        Predicted gain of the score at twice the labels, and its 95 % interval.
    more_helps
        Whether the whole interval is above zero and the gain large enough; None if that is inconclusive.
    verdict
        One sentence.
    """

    ceiling: float
    amplitude: float
    exponent: float
    gain: float
    low: float
    high: float
    more_helps: bool | None
    verdict: str


def run_curve(
    recipe: Recipe, settings: Settings, *, shares: Sequence[float] = SHARES, on: str = "local", fresh: bool = False
) -> dict[str, Any]:
    """Train with each share of the labels, as child runs of one run, and decide whether more labels would help.

    A smaller share is part of each larger one, with the same proportion of classes; validation data are the same.
    Nothing is registered.

    Returns
    -------
    dict
        ``{model, metric, points: [{share, labels, metrics, run_id}], verdict, more_labels_help, gain, low, high,
        picture, report, run_id, seconds}``.

    Raises
    ------
    RequestError
        The shares are not at least three different numbers above 0 and up to 1.
    RecipeError, DatasetError
        The recipe or the data would make the training runs useless; nothing was started.
    """
    began = time.perf_counter()
    shares = sorted(set(shares))
    if len(shares) < 3 or not all(0 < share <= 1 for share in shares):
        raise RequestError(
            f"expected at least three different shares above 0 and up to 1, got {', '.join(map(str, shares))}",
            field="--shares",
        )
    if recipe.training.label_share != 1:
        raise RecipeError("expected training.label_share 1, because the curve varies it", field="training.label_share")
    plan = make_plan(recipe.model_copy(update={"tune": None}), settings)
    metric = plan.metric
    plain = plan.changed({"data.folds": None})
    points = []
    cost = Cost("learning curve", plain.recipe, len(shares))
    with (
        open_study("curve", plan, settings, wanted={"shares": list(shares)}, cost=cost, fresh=fresh) as study,
        cluster(recipe.scale, on),
    ):
        for share in shares:
            values = {"training.label_share": share}
            dataset = plan.dataset.share(share, seed=recipe.training.seed)
            member = study.train(f"share-{share:05.3f}", plain.changed(values).on(dataset), on=on, values=values)
            labels = sum(item.split == "train" for item in dataset.items)
            metrics = member.facts["metrics"]
            if metric not in metrics:
                raise TrainingError(
                    f"expected a score {metric} of the model with {labels} labels, found none: its answers contain "
                    "nothing to count",
                    field="training.metric",
                    hint=f"choose another training.metric, such as {plan.task.output.metric}, or larger shares",
                )
            points.append({"share": share, "labels": labels, "metrics": metrics, "run_id": member.run_id})
            study.run.log_metrics({f"curve_{metric}": metrics[metric]}, step=labels)
            print(f"{labels} labels  {metric} {metrics[metric]:.3f}", file=sys.stderr)
        labels_at = [float(point["labels"]) for point in points]
        scores = [metric_named(metric).goodness(float(point["metrics"][metric])) for point in points]
        curve = fit_curve(labels_at, scores)
        picture = draw_curve(labels_at, scores, curve, _turned(metric))
        report = _report(study.folder, recipe.model.name, metric, points, curve, picture)
        study.run.log_bytes(picture, "report/curve.png")
        study.run.log_file(report, "report")
        study.run.set_tags({"verdict": curve.verdict})
    return {
        "model": recipe.model.name,
        "metric": metric,
        "points": points,
        "verdict": curve.verdict,
        "more_labels_help": curve.more_helps,
        "gain": curve.gain,
        "low": curve.low,
        "high": curve.high,
        "picture": str(report.parent / "curve.png"),
        "report": str(report),
        "run_id": study.run.run_id,
        "seconds": round(time.perf_counter() - began, 1),
    }


def fit_curve(labels: Sequence[float], scores: Sequence[float]) -> Curve:
    """Fit score(n) = a − b · n^(−c) with b ≥ 0, and predict the gain at twice the most labels.

    Learning curves follow an inverse power law between chance level and their ceiling (Hestness et al. 2017,
    arXiv:1712.00409; Viering & Loog 2022, arXiv:2103.10948). A few points do not determine its exponent, so it is not
    chosen: for each exponent from 0.05 to 2, equally likely in logarithm, a and b are fitted by least squares, and the
    predicted gains are mixed by the likelihood of the points (Student's t, with their scatter around the curve). The
    interval is that of the mixture.

    Parameters
    ----------
    labels
        Numbers of labels, positive.
    scores
        Transformed so that higher is better.
    """
    n, y = np.asarray(labels, float), np.asarray(scores, float)
    twice = 2 * float(n.max())
    top = float(n.max())
    freedom = max(1, len(n) - 3)
    # Scores have three digits and random scatter; no fit is more precise.
    floor = 1e-3**2 * freedom
    fits, weights = [], []
    for exponent in _EXPONENTS:
        base = n**-exponent
        design = np.stack([np.ones_like(base), -base], axis=1)
        a, b = np.linalg.lstsq(design, y, rcond=None)[0]
        b = max(float(b), 0.0)
        if b == 0.0:
            a = float(y.mean())
        residual = float(((y - (a - b * base)) ** 2).sum()) + floor
        spread = math.sqrt(residual / freedom / float(((base - base.mean()) ** 2).sum()))
        step = top**-exponent - twice**-exponent
        fits.append((float(a), b, float(exponent), step, spread))
        weights.append(residual ** (-len(n) / 2))
    likelihood = np.array(weights) / sum(weights)
    draws = _mixture(fits, likelihood, freedom)
    gain = float(np.median(draws))
    low, high = (float(np.quantile(draws, q)) for q in ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2))
    a, b, exponent, _, _ = fits[int(likelihood.argmax())]
    more, verdict = _judged(gain, low, high)
    return Curve(a, b, exponent, gain, low, high, more, verdict)


def _mixture(
    fits: Sequence[tuple[float, float, float, float, float]], likelihood: NDArray[np.float64], freedom: int
) -> NDArray[np.float64]:
    """Return gains sampled from the predictions of the fits; an impossible negative amplitude counts as zero."""
    chance = np.random.default_rng(0)
    which = chance.choice(len(fits), 20_000, p=likelihood)
    table = np.array(fits)[which]
    amplitude = table[:, 1] + table[:, 4] * chance.standard_t(freedom, len(which))
    gains: NDArray[np.float64] = np.maximum(amplitude, 0.0) * table[:, 3]
    return gains


def _judged(gain: float, low: float, high: float) -> tuple[bool | None, str]:
    interval = f"{low:+.3f} to {high:+.3f}"
    if high < 2 * _WORTH or gain < _WORTH:
        if high < 4 * _WORTH:
            return False, f"no: flat within its spread ({gain:+.3f} at twice the labels, {interval})"
        return None, f"inconclusive: {gain:+.3f} at twice the labels, but {interval}; repeat with more shares"
    if low > 0 and low >= gain / 10:
        return True, f"yes: about {gain:+.2f} at twice the labels ({interval})"
    return None, f"inconclusive: {gain:+.3f} at twice the labels, but {interval}; repeat with more shares"


def draw_curve(labels: Sequence[float], scores: Sequence[float], curve: Curve, score: str) -> bytes:
    """Draw scores over labels, the fitted curve up to twice the labels, and the predicted gain; return a PNG."""
    figure = new_figure(width=7.0, height=4.4)
    axes = figure.add_subplot()
    top = max(labels)
    along = np.geomspace(min(labels), 2 * top, 200)
    axes.plot(along, curve.ceiling - curve.amplitude * along**-curve.exponent, color="#1b6ca8", label="power law")
    axes.plot(labels, scores, "o", color="black", label="trained", zorder=3)
    here = curve.ceiling - curve.amplitude * top**-curve.exponent
    bars = [[max(0.0, curve.gain - curve.low)], [max(0.0, curve.high - curve.gain)]]
    axes.errorbar([2 * top], [here + curve.gain], bars, fmt="s", color="#d95f02", capsize=4, label="twice the labels")
    axes.set_xscale("log")
    ticks = [*labels, 2 * top]
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("labels")
    axes.set_ylabel(score)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    set_title(axes, f"Would more labels help?  {curve.verdict}")
    return figure_png(figure)


def _turned(metric: str) -> str:
    """Return the label of the vertical axis: the score, transformed so that more is better."""
    known = metric_named(metric)
    return {"higher": metric, "lower": f"−{metric}", "nearer": f"−|{metric} − {known.target:g}|"}[known.better]


def _report(
    folder: Path, model: str, metric: str, points: Sequence[dict[str, Any]], curve: Curve, picture: bytes
) -> Path:
    place = folder / "report"
    place.mkdir(exist_ok=True)
    rows = [f"| {point['share']:.0%} | {point['labels']} | {point['metrics'][metric]:.3f} |" for point in points]
    text = "\n".join(
        [
            f"# Learning curve: {model}",
            "",
            f"Would more labels help? **{curve.verdict}**",
            "",
            "![learning curve](curve.png)",
            "",
            f"| share | labels | {metric} |",
            "|---|---|---|",
            *rows,
            "",
            f"Fitted: {_turned(metric)}(n) = {curve.ceiling:.3f} − {curve.amplitude:.3f} · n^(−{curve.exponent:.2f}); "
            "the interval covers all exponents, weighted by their fit.",
            "",
        ]
    )
    for name, content in (("curve.png", picture), ("README.md", text.encode())):
        write_whole(place / name, content)
    return place / "README.md"
