"""The checks of the gate: each a question about a candidate, answered with figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import BundleError
from cytoray_services.evaluation import Evaluation
from cytoray_services.promotion.agreement import Agreement
from cytoray_services.promotion.resampling import Comparison, Loss
from cytoray_services.promotion.seen_data import SeenData

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


def check_frozen(digest: str, found: str, shown: str, changed: Sequence[str] = ()) -> Check:
    """Ask whether the evaluation set still has the content that was frozen; `changed` are columns that have not."""
    figures = {"recorded": digest, "found": found, "changed": list(changed)}
    if found != digest:
        return Check(
            "frozen set", False, f"{shown} has changed: {digest[:12]}… was frozen, it is {found[:12]}…", figures
        )
    if changed:
        return Check("frozen set", False, f"{shown} has changed in the column {', '.join(changed)}", figures)
    return Check("frozen set", True, f"{shown} is as it was frozen, {digest[:12]}…", figures)


def check_better(
    comparison: Comparison | None,
    evaluation: Evaluation,
    champion: Evaluation | None = None,
    *,
    metric: str | None = None,
    attempt: int = 1,
) -> Check:
    """Ask whether the candidate beats the champion by more than chance; the first has none to beat.

    Where the score has nothing to count, as in a set without an object, there is no judgement, and none passes.

    Parameters
    ----------
    metric
        What they are judged by; None for the task's first score.
    attempt
        Which comparison on this evaluation set it is.
    """
    metric = metric or evaluation.metric
    for whose, one in (("the candidate", evaluation), ("the champion", champion)):
        if one is not None and metric not in one.metrics:
            reason = f"cannot be judged: {metric} of {whose} is absent, for the evaluation set has nothing to count"
            return Check("better", False, reason, {"metric": metric, "candidate": evaluation.metrics.get(metric)})
    if comparison is None:
        reason = f"first: there is no champion to beat; {metric} {evaluation.metrics[metric]:.3f}"
        return Check("better", True, reason, {"metric": metric, "candidate": evaluation.metrics[metric]})
    figures = {
        name: getattr(comparison, name)
        for name in ("metric", "candidate", "champion", "images", "groups", "probability", "level")
    } | {"exchanges": len(comparison.differences), "attempt": attempt}
    scores = f"{metric} {comparison.candidate:.3f} against {comparison.champion:.3f} of the champion"
    chance = f"p = {comparison.probability:.2g}, at most {comparison.level:.2g} is allowed"
    if attempt > 1:
        chance += f" in comparison {attempt} on this set"
    of = f"{comparison.groups} images" + ("" if comparison.groups == comparison.images else " or groups that count")
    if comparison.better:
        return Check("better", True, f"{scores}, more than chance ({chance})", figures)
    if comparison.gain <= 0:
        return Check("better", False, f"{scores}: no better", figures)
    if comparison.groups < comparison.least_groups:
        chance += f"; so few can never show it, {comparison.least_groups} could"
    elif comparison.level * len(comparison.differences) < 1:
        chance += "; after so many comparisons none can show it on this set: name a new one"
    return Check("better", False, f"{scores}, which may be chance among {of} ({chance})", figures)


def check_losses(name: str, losses: Sequence[Loss] | None, nothing: str) -> Check:
    """Ask whether the candidate loses more than is tolerated, in any subgroup or by any other score.

    It is refused only where a loss is shown. What so few images cannot tell is said, and passes.

    Parameters
    ----------
    name
        Of the check.
    losses
        What was compared; None where there is no champion to compare with.
    nothing
        What to say where nothing was to be compared.
    """
    if losses is None:
        return Check(name, True, "first: there is no champion to compare with", {})
    figures = {one.name: asdict(one) for one in losses}
    if not losses:
        return Check(name, True, nothing, figures)
    worse = [_lost(one) for one in losses if one.verdict == "worse"]
    if worse:
        return Check(name, False, f"worse by more than {_tolerances(losses)}: {', '.join(worse)}", figures)
    kept = [one.name for one in losses if one.verdict == "kept"]
    unknown = [_lost(one) for one in losses if one.verdict == "unknown"]
    parts = [f"no loss beyond {_tolerances(losses)} of {', '.join(kept)}"] if kept else []
    parts += [f"so few images or groups cannot tell whether it loses: {', '.join(unknown)}"] if unknown else []
    return Check(name, True, "; ".join(parts), figures)


def _lost(one: Loss) -> str:
    values = " after ".join("–" if value is None else f"{value:.3f}" for value in (one.candidate, one.champion))
    what = "" if one.name == one.metric else f"{one.metric} "
    return f"{one.name} ({what}{values}, over {one.groups})"


def _tolerances(losses: Sequence[Loss]) -> str:
    return " or ".join(sorted({f"{one.tolerance:g}" for one in losses}))


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
    parts = [f"{name}: {absent[name] if one is None else _moved(one, metric)}" for name, one in found.items()]
    passed = all(one is None or _agrees(one) for one in found.values())
    reason = f"against fp32 on the CPU, {'; '.join(parts)}"
    if not passed:
        reason += f"; expected at least {ALIKE:g}, or to move the score against the truth by at most {AS_GOOD:g}"
    figures = {name: None if one is None else {"alike": one.alike, "change": one.change} for name, one in found.items()}
    return Check("agreement", passed, reason, {**figures, "least_alike": ALIKE, "most_change": AS_GOOD})


def _moved(one: Agreement, metric: str) -> str:
    alike = f"{metric} {'–' if one.alike is None else f'{one.alike:.3f}'}"
    return (
        f"{alike}, the score against the truth is absent"
        if one.change is None
        else f"{alike}, moves it by {one.change:+.3f}"
    )


def _agrees(one: Agreement) -> bool:
    """Whether answers are alike or as good; where neither can be decided, none has answered with anything."""
    if one.alike is None and one.change is None:
        return True
    return (one.alike or 0.0) >= ALIKE or (one.change is not None and abs(one.change) <= AS_GOOD)


def check_overlap(
    seen: Mapping[str, SeenData | None],
    frozen: Mapping[str, Path],
    champion: Mapping[str, SeenData | None] | None = None,
) -> Check:
    """Ask whether any frozen image trained the candidate, or chose anything of it; or of a model that it started from.

    Images of a split ``val`` choose the epoch, the trial of a search, the decoding and the calibration: the best of
    many is luckier on them than it is on others.

    Parameters
    ----------
    seen
        By model: what it has seen; None where that is unknown.
    frozen
        Digest and file of every frozen image.
    champion
        The same as `seen` of the champion. That it knows the images does not speak against the candidate, but its score
        is too good then, which is said.
    """
    unknown = [name for name, data in seen.items() if data is None]
    if unknown:
        reason = f"nothing is recorded about the images that {', '.join(unknown)} was trained on"
        return Check("overlap", False, reason, {"unknown": unknown})
    uses = _uses(seen, frozen)
    figures = {"frozen": len(frozen)} | {
        use: {name: len(files) for name, files in shared.items()} for use, shared in uses.items()
    }
    known = _said(uses, len(frozen))
    if known is not None:
        return Check("overlap", False, known, figures)
    reason = f"none of the {len(frozen)} frozen images trained or chose anything"
    favoured = _said(_uses(champion or {}, frozen), len(frozen))
    if favoured is not None:
        reason += f"; but {favoured}: what it is compared with is too good"
    return Check("overlap", True, reason, figures)


def _uses(seen: Mapping[str, SeenData | None], frozen: Mapping[str, Path]) -> dict[str, dict[str, list[str]]]:
    return {
        use: {name: _shared(data.images.get(split, frozenset()), frozen) for name, data in seen.items() if data}
        for use, split in (("trained_on", "train"), ("chosen_by", "val"))
    }


def _said(uses: Mapping[str, Mapping[str, list[str]]], frozen: int) -> str | None:
    """Return the gravest use of frozen images, for people; None where there is none."""
    for use, words in (("trained_on", "was trained on"), ("chosen_by", "was chosen (its epoch and its decoding) by")):
        for name, files in uses[use].items():
            if files:
                return f"{name} {words} {len(files)} of the {frozen} frozen images, such as {files[0]}"
    return None


def _shared(digests: frozenset[str], frozen: Mapping[str, Path]) -> list[str]:
    return sorted(str(path) for digest, path in frozen.items() if digest in digests)
