"""The checks of the gate: each a question about a candidate, answered with figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import BundleError
from cytoray_services.evaluation import Evaluation
from cytoray_services.promotion.agreement import Agreement
from cytoray_services.promotion.resampling import Comparison
from cytoray_services.promotion.seen_data import SeenData

TOLERANCE = 0.02  # how much a subgroup may lose
# Answers computed otherwise agree when they are nearly the same, or as good.
ALIKE = 0.95
AS_GOOD = 0.02


@dataclass(frozen=True)
class Check:
    """One answer of the gate.

    Attributes
    ----------
    name
        Of the check.
    passed
        Whether the candidate may pass.
    reason
        One sentence with figures.
    figures
        The same for programs.
    """

    name: str
    passed: bool
    reason: str
    figures: Mapping[str, Any]


def check_frozen(digest: str, found: str, shown: str) -> Check:
    """Ask whether the evaluation set still has the content that was frozen."""
    figures = {"recorded": digest, "found": found}
    if found != digest:
        return Check(
            "frozen set", False, f"{shown} has changed: {digest[:12]}… was frozen, it is {found[:12]}…", figures
        )
    return Check("frozen set", True, f"{shown} is as it was frozen, {digest[:12]}…", figures)


def check_better(comparison: Comparison | None, evaluation: Evaluation) -> Check:
    """Ask whether the candidate beats the champion by more than chance; the first has nobody to beat."""
    metric = next(iter(evaluation.metrics))
    if comparison is None:
        reason = f"first: there is no champion to beat; {metric} {evaluation.metrics[metric]:.3f}"
        return Check("better", True, reason, {"metric": metric, "candidate": evaluation.metrics[metric]})
    figures = {
        name: getattr(comparison, name)
        for name in ("metric", "candidate", "champion", "images", "groups", "probability", "level")
    } | {"resamples": len(comparison.differences)}
    scores = f"{metric} {comparison.candidate:.3f} against {comparison.champion:.3f} of the champion"
    chance = f"p = {comparison.probability:.2g}, at most {comparison.level:.2g} is allowed"
    of = f"{comparison.groups} images" if comparison.groups == comparison.images else f"{comparison.groups} groups"
    if comparison.better:
        return Check("better", True, f"{scores}, more than chance ({chance})", figures)
    if comparison.candidate <= comparison.champion:
        return Check("better", False, f"{scores}: no better", figures)
    few = "" if comparison.level * (1 + len(comparison.differences)) >= 1 else "; so few can never show it"
    return Check("better", False, f"{scores}, which may be chance among {of} ({chance}{few})", figures)


def check_subgroups(candidate: Evaluation, champion: Evaluation | None, by: str | None, tolerance: float) -> Check:
    """Ask whether any named subgroup does worse with the candidate than with the champion."""
    if by is None:
        return Check("subgroups", True, "no column of subgroups is named", {})
    metric = next(iter(candidate.metrics))
    after = {name: scores[metric] for name, scores in candidate.groups.items()}
    before = {name: scores[metric] for name, scores in champion.groups.items()} if champion else {}
    figures = {"by": by, "tolerance": tolerance, "candidate": after, "champion": before}
    if champion is None:
        return Check("subgroups", True, "first: there is no champion to compare with", figures)
    worse = [name for name in after if after[name] < before[name] - tolerance]
    if worse:
        shown = ", ".join(f"{by} = {name}: {metric} {after[name]:.3f} after {before[name]:.3f}" for name in worse)
        return Check("subgroups", False, f"worse by more than {tolerance:g} on {shown}", figures)
    return Check("subgroups", True, f"none of {len(after)} loses more than {tolerance:g} of {metric}", figures)


def check_self_test(bundle: Bundle) -> Check:
    """Ask whether the network still answers to its stored input what is stored beside it."""
    try:
        deviation = bundle.self_test()
    except BundleError as error:
        return Check("self-test", False, error.message, {})
    return Check("self-test", True, f"deviates by {deviation:.2g} of the output's range", {"deviation": deviation})


def check_agreement(found: Mapping[str, Agreement | None], metric: str) -> Check:
    """Ask whether answers in bf16 and on the accelerator are those in fp32 on the CPU, or at least as good."""
    absent = {"bf16": "always computed in fp32", "accelerator": "no accelerator here"}
    parts = [
        f"{name}: {absent[name] if one is None else f'{metric} {one.alike:.3f}, moves it by {one.change:+.3f}'}"
        for name, one in found.items()
    ]
    passed = all(one is None or one.alike >= ALIKE or abs(one.change) <= AS_GOOD for one in found.values())
    reason = f"against fp32 on the CPU, {'; '.join(parts)}"
    if not passed:
        reason += f"; expected at least {ALIKE:g}, or to move the score against the truth by at most {AS_GOOD:g}"
    figures = {name: None if one is None else {"alike": one.alike, "change": one.change} for name, one in found.items()}
    return Check("agreement", passed, reason, {**figures, "least_alike": ALIKE, "most_change": AS_GOOD})


def check_overlap(seen: Mapping[str, SeenData | None], frozen: Mapping[str, Path]) -> Check:
    """Ask whether the candidate, or a model that it started from, was trained on any frozen image.

    Parameters
    ----------
    seen
        By model: what it has seen; None where that is unknown.
    frozen
        Digest and file of every frozen image.
    """
    unknown = [name for name, data in seen.items() if data is None]
    if unknown:
        reason = f"nothing is recorded about the images that {', '.join(unknown)} was trained on"
        return Check("overlap", False, reason, {"unknown": unknown})
    known = {name: data for name, data in seen.items() if data is not None}
    shared = {name: _shared(data.images.get("train", frozenset()), frozen) for name, data in known.items()}
    chosen_by = _shared(frozenset().union(*(data.images.get("val", frozenset()) for data in known.values())), frozen)
    figures = {
        "frozen": len(frozen),
        "trained_on": {name: len(files) for name, files in shared.items()},
        "chosen_by": len(chosen_by),
    }
    for name, files in shared.items():
        if files:
            reason = f"{name} was trained on {len(files)} of the {len(frozen)} frozen images, such as {files[0]}"
            return Check("overlap", False, reason, figures)
    also = f"; {len(chosen_by)} of them chose its best epoch and its decoding" if chosen_by else ""
    return Check("overlap", True, f"trained on none of the {len(frozen)} frozen images{also}", figures)


def _shared(digests: frozenset[str], frozen: Mapping[str, Path]) -> list[str]:
    return sorted(str(path) for digest, path in frozen.items() if digest in digests)
