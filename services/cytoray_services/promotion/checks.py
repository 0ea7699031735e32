"""The checks of the gate, each with a reason and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import BundleError
from cytoray_services.kinds.evaluated import Evaluation
from cytoray_services.promotion.agreement import Agreement
from cytoray_services.promotion.resampling import Comparison, Loss
from cytoray_services.promotion.seen_data import SeenData

# Answers in another precision agree if they are nearly equal, or equally good.
ALIKE = 0.95
AS_GOOD = 0.02


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes
    ----------
    name
        Name of the check.
    passed
        Whether the candidate passes.
    reason
        One sentence with figures.
    figures
        The same as numbers.
    """

    name: str
    passed: bool
    reason: str
    figures: Mapping[str, Any]


def check_frozen(digest: str, found: str, shown: str, changed: Sequence[str] = ()) -> Check:
    """Check that the evaluation set still has its frozen content; `changed` are columns that differ."""
    figures = {"recorded": digest, "found": found, "changed": list(changed)}
    if found != digest:
        return Check(
            "frozen set", False, f"{shown} has changed: expected the frozen {digest[:12]}…, got {found[:12]}…", figures
        )
    if changed:
        return Check("frozen set", False, f"{shown} has changed in the column {', '.join(changed)}", figures)
    return Check("frozen set", True, f"{shown} is unchanged, {digest[:12]}…", figures)


def check_better(
    comparison: Comparison | None,
    evaluation: Evaluation,
    champion: Evaluation | None = None,
    *,
    metric: str | None = None,
    attempt: int = 1,
) -> Check:
    """Check that the candidate is better than the champion by more than chance; without a champion it passes.

    If the score has nothing to count, as in a set without objects, the check fails.

    Parameters
    ----------
    metric
        The score to compare; None for the first score of the task.
    attempt
        The number of this comparison on the evaluation set.
    """
    metric = metric or evaluation.metric
    for whose, one in (("the candidate", evaluation), ("the champion", champion)):
        if one is not None and metric not in one.metrics:
            reason = f"cannot compare: {metric} of {whose} is absent, because the evaluation set has nothing to count"
            return Check("better", False, reason, {"metric": metric, "candidate": evaluation.metrics.get(metric)})
    if comparison is None:
        reason = f"first version, no champion yet; {metric} {evaluation.metrics[metric]:.3f}"
        return Check("better", True, reason, {"metric": metric, "candidate": evaluation.metrics[metric]})
    figures = {
        name: getattr(comparison, name)
        for name in ("metric", "candidate", "champion", "images", "groups", "probability", "level")
    } | {"exchanges": len(comparison.differences), "attempt": attempt}
    scores = f"{metric} {comparison.candidate:.3f} against {comparison.champion:.3f} of the champion"
    chance = f"p = {comparison.probability:.2g}, allowed: at most {comparison.level:.2g}"
    if attempt > 1:
        chance += f" in comparison {attempt} on this set"
    of = f"{comparison.groups} images" + ("" if comparison.groups == comparison.images else " or groups that count")
    if comparison.better:
        return Check("better", True, f"{scores}, more than chance ({chance})", figures)
    if comparison.gain <= 0:
        return Check("better", False, f"{scores}: not better", figures)
    if comparison.groups < comparison.least_groups:
        chance += f"; at least {comparison.least_groups} are necessary to show it"
    elif comparison.level * len(comparison.differences) < 1:
        chance += "; after so many comparisons, this set cannot show it: use a new set"
    return Check("better", False, f"{scores}, which may be chance with {of} ({chance})", figures)


def check_losses(name: str, losses: Sequence[Loss] | None, nothing: str) -> Check:
    """Check that the candidate loses no more than the tolerance, in any subgroup or other score.

    Only a significant loss fails. Too few images are reported, and pass.

    Parameters
    ----------
    name
        Name of the check.
    losses
        The comparisons; None without a champion.
    nothing
        The reason if there is nothing to compare.
    """
    if losses is None:
        return Check(name, True, "first version, no champion yet", {})
    figures = {one.name: asdict(one) for one in losses}
    if not losses:
        return Check(name, True, nothing, figures)
    worse = [_lost(one) for one in losses if one.verdict == "worse"]
    if worse:
        return Check(name, False, f"worse by more than {_tolerances(losses)}: {', '.join(worse)}", figures)
    kept = [one.name for one in losses if one.verdict == "kept"]
    unknown = [_lost(one) for one in losses if one.verdict == "unknown"]
    parts = [f"no loss beyond {_tolerances(losses)} of {', '.join(kept)}"] if kept else []
    parts += [f"too few images or groups to detect a loss: {', '.join(unknown)}"] if unknown else []
    return Check(name, True, "; ".join(parts), figures)


def _lost(one: Loss) -> str:
    values = " after ".join("–" if value is None else f"{value:.3f}" for value in (one.candidate, one.champion))
    what = "" if one.name == one.metric else f"{one.metric} "
    return f"{one.name} ({what}{values}, over {one.groups})"


def _tolerances(losses: Sequence[Loss]) -> str:
    return " or ".join(sorted({f"{one.tolerance:g}" for one in losses}))


def check_self_test(bundle: Bundle) -> Check:
    """Check that the network gives the stored output for the stored input."""
    try:
        deviation = bundle.self_test()
    except BundleError as error:
        return Check("self-test", False, error.message, {})
    return Check("self-test", True, f"deviates by {deviation:.2g} of the output's range", {"deviation": deviation})


def check_agreement(found: Mapping[str, Agreement | None], metric: str) -> Check:
    """Check that answers in bf16 and on the accelerator agree with fp32 on the CPU, or are equally good."""
    absent = {"bf16": "always fp32", "accelerator": "no accelerator here"}
    parts = [f"{name}: {absent[name] if one is None else _moved(one, metric)}" for name, one in found.items()]
    passed = all(one is None or _agrees(one) for one in found.values())
    reason = f"against fp32 on the CPU, {'; '.join(parts)}"
    if not passed:
        reason += f"; expected at least {ALIKE:g}, or a change of the score against the truth of at most {AS_GOOD:g}"
    figures = {name: None if one is None else {"alike": one.alike, "change": one.change} for name, one in found.items()}
    return Check("agreement", passed, reason, {**figures, "least_alike": ALIKE, "most_change": AS_GOOD})


def _moved(one: Agreement, metric: str) -> str:
    alike = f"{metric} {'–' if one.alike is None else f'{one.alike:.3f}'}"
    return (
        f"{alike}, the score against the truth is absent"
        if one.change is None
        else f"{alike}, change {one.change:+.3f}"
    )


def _agrees(one: Agreement) -> bool:
    """Whether answers agree or are equally good; without any objects in either, they agree."""
    if one.alike is None and one.change is None:
        return True
    return (one.alike or 0.0) >= ALIKE or (one.change is not None and abs(one.change) <= AS_GOOD)


def check_overlap(
    seen: Mapping[str, SeenData | None],
    frozen: Mapping[str, Path],
    champion: Mapping[str, SeenData | None] | None = None,
) -> Check:
    """Check that no frozen image was used to train or choose the candidate, or a model that it started from.

    Images of the split ``val`` choose the epoch, the trial of a search, the decoding and the calibration, so scores on
    them are too high.

    Parameters
    ----------
    seen
        The data that each model used; None if unknown.
    frozen
        Digest and file of every frozen image.
    champion
        The same for the champion. If it used the images, its score is too high, which the reason mentions.
    """
    unknown = [name for name, data in seen.items() if data is None]
    if unknown:
        reason = f"the training images of {', '.join(unknown)} are not recorded"
        return Check("overlap", False, reason, {"unknown": unknown})
    uses = _uses(seen, frozen)
    figures = {"frozen": len(frozen)} | {
        use: {name: len(files) for name, files in shared.items()} for use, shared in uses.items()
    }
    known = _said(uses, len(frozen))
    if known is not None:
        return Check("overlap", False, known, figures)
    reason = f"none of the {len(frozen)} frozen images was used for training or for choosing the model"
    favoured = _said(_uses(champion or {}, frozen), len(frozen))
    if favoured is not None:
        reason += f"; but {favoured}: the score of the champion is too high"
    return Check("overlap", True, reason, figures)


def _uses(seen: Mapping[str, SeenData | None], frozen: Mapping[str, Path]) -> dict[str, dict[str, list[str]]]:
    return {
        use: {name: _shared(data.images.get(split, frozenset()), frozen) for name, data in seen.items() if data}
        for use, split in (("trained_on", "train"), ("chosen_by", "val"))
    }


def _said(uses: Mapping[str, Mapping[str, list[str]]], frozen: int) -> str | None:
    """Return the most serious use of frozen images as text; None if there is none."""
    for use, words in (("trained_on", "was trained on"), ("chosen_by", "was chosen (epoch and decoding) with")):
        for name, files in uses[use].items():
            if files:
                return f"{name} {words} {len(files)} of the {frozen} frozen images, such as {files[0]}"
    return None


def _shared(digests: frozenset[str], frozen: Mapping[str, Path]) -> list[str]:
    return sorted(str(path) for digest, path in frozen.items() if digest in digests)
