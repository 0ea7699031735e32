"""The gate: a version becomes the champion only if every check passes, or with ``--force``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import RequestError
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import hash_dataset
from cytoray_services.evaluation.evaluation import evaluate
from cytoray_services.kinds.evaluated import Evaluation, ItemScore
from cytoray_services.promotion.agreement import agreement
from cytoray_services.promotion.attempts import attempt_of
from cytoray_services.promotion.checks import (
    Check,
    check_agreement,
    check_better,
    check_frozen,
    check_losses,
    check_overlap,
    check_self_test,
)
from cytoray_services.promotion.evaluation_set import EvaluationSet, settle
from cytoray_services.promotion.policy import guards_of
from cytoray_services.promotion.report import checks_as_json, checks_as_markdown, describe, draw_comparison
from cytoray_services.promotion.resampling import (
    LOSSES,
    Comparison,
    Loss,
    compare_units,
    find_loss,
    level_of,
    seed_of,
)
from cytoray_services.promotion.seen_data import SeenData, digests_of_images, read_seen_data
from cytoray_services.registry import CHAMPION, ModelVersion, Registry, whoami
from cytoray_services.statistics import FEW
from cytoray_services.statistics.counts import Score, UnitScores, unit_scores

Progress = Callable[[str], None]


class PromotionRefusedError(RequestError):
    """A version did not pass the gate; `checks` has the reasons."""

    checks: tuple[Check, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the error as a JSON object, with the checks."""
        return {**super().describe(), "checks": [describe(check) for check in self.checks]}


@dataclass(frozen=True)
class PromotionRequest:
    """What is to be promoted, and how.

    Attributes
    ----------
    alias
        The alias to move.
    given
        The evaluation set of the caller; None for the recorded one.
    replacing
        Whether it may replace the recorded one.
    force, reason
        Whether to promote despite failed checks, and why.
    """

    alias: str = CHAMPION
    given: EvaluationSet | None = None
    replacing: bool = False
    force: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Promotion:
    """A version that passed, or was forced.

    Attributes
    ----------
    report
        Folder of the report in the run of the version; empty if the version had the alias already.
    """

    version: ModelVersion
    checks: tuple[Check, ...]
    forced: bool
    report: str


def promote(
    registry: Registry, version: ModelVersion, request: PromotionRequest, *, progress: Progress = lambda stage: None
) -> Promotion:
    """Run the gate and promote a version, or reject it; both store a report in its run.

    Parameters
    ----------
    progress
        Called with the name of the next stage.

    Raises
    ------
    PromotionRefusedError
        A check failed; the message contains each failed check.
    RequestError
        ``force`` without a reason, an evaluation set that differs from the recorded one, or a concurrent move of the
        alias.
    """
    for asked, what in ((request.force, "--force"), (request.replacing, "--replace-set")):
        if asked and not request.reason.strip():
            raise RequestError(f"expected a reason with {what}, got none", field="reason", hint="add: --reason WHY")
    aliases = {alias: one for one in registry.versions(version.name) for alias in one.aliases}
    champion = aliases.get(request.alias)
    if champion is not None and champion.version == version.version:
        return Promotion(version, (), False, "")
    if request.given is not None:  # before it is recorded
        _require_known(request.given, Bundle.load(registry.fetch(version)))
    frozen = settle(
        registry, version, request.given, replacing=request.replacing, force=request.force, reason=request.reason
    )
    checks, comparison = _examine(registry, version, champion, frozen, progress)
    failed = [check for check in checks if not check.passed]
    report = _store(registry, version, champion, frozen, request, checks, comparison)
    if failed and not request.force:
        raise _refusal(version, request.alias, checks, failed, report)
    moved = registry.promote(
        version.name,
        version.version,
        request.alias,
        expected=champion.version if champion else None,
        reason=request.reason,
        forced=bool(failed),
        report=report,
    )
    return Promotion(moved, checks, bool(failed), report)


def _examine(
    registry: Registry,
    version: ModelVersion,
    champion: ModelVersion | None,
    frozen: EvaluationSet,
    progress: Progress,
) -> tuple[tuple[Check, ...], Comparison | None]:
    progress("reading the evaluation set")
    dataset = frozen.open()
    bundle = Bundle.load(registry.fetch(version))
    unchanged = check_frozen(frozen.digest, hash_dataset(dataset), frozen.shown, frozen.changed_columns(dataset))
    if not unchanged.passed:  # scores on other images mean nothing
        return (unchanged, check_self_test(bundle)), None
    former = None if champion is None else Bundle.load(registry.fetch(champion))
    unlike = None if former is None else _unlike(bundle, former)
    if unlike is not None:
        return (unchanged, Check("better", False, f"cannot compare: {unlike}", {}), check_self_test(bundle)), None
    progress("hashing the images")
    digests = digests_of_images(dataset)
    images = {digest: path for path, found in reversed(digests.items()) for digest in found}
    progress(f"evaluating {version.reference}")
    evaluation = evaluate(Predictor(bundle, precision="fp32"), dataset, by=frozen.by)
    old = comparison = scores = subgroups = None
    attempt = 1
    if champion is not None and former is not None:
        progress(f"evaluating {champion.reference}")
        old = evaluate(Predictor(former, precision="fp32"), dataset, by=frozen.by)
        attempt = attempt_of(registry, version.name, frozen.digest, version.digest, champion.digest, images)
        seed = seed_of(version.digest, champion.digest, frozen.digest)
        judged = judge(evaluation, old, bundle, frozen, digests=digests, attempt=attempt, seed=seed)
        comparison, scores, subgroups = judged.comparison, judged.scores, judged.subgroups
    progress("comparing fp32 with bf16")
    alike = check_agreement(agreement(bundle, dataset), evaluation.metric)
    seen, favoured = _seen_by(registry, version), {} if champion is None else _seen_by(registry, champion)
    return (
        unchanged,
        check_better(comparison, evaluation, old, metric=frozen.metric, attempt=attempt),
        check_losses("other scores", scores, "no other score has a tolerance"),
        check_losses("subgroups", subgroups, "no subgroups are defined"),
        check_self_test(bundle),
        alike,
        check_overlap(seen, images, favoured),
    ), comparison


def _unlike(bundle: Bundle, champion: Bundle) -> str | None:
    """Return why the scores of two models cannot be compared; None if they can."""
    from cytoray_analysis.tasks import get_task

    tasks = [one.spec.task for one in (bundle, champion)]
    if tasks[0].name != tasks[1].name:
        return f"it is a model for {tasks[0].name}, the champion is one for {tasks[1].name}"
    asked = [
        json.dumps({name: task.arguments.get(name) for name in ("classes", "values")}, sort_keys=True, default=str)
        for task in tasks
    ]
    # The truth of cells names the class, and an unknown class is an error; a mask has numbers only.
    if not get_task(tasks[0].name, tasks[0].arguments).output.numbered and asked[0] != asked[1]:
        return "its classes of pixels differ from those of the champion"
    return None


def _require_known(frozen: EvaluationSet, bundle: Bundle) -> None:
    """Raise an error if the policy names scores of another task, which would have no effect."""
    from cytoray_analysis.tasks import get_task

    known = get_task(bundle.spec.task.name, bundle.spec.task.arguments).output.metrics
    named = [("metric", frozen.metric), *(("guard", name) for name in frozen.guards)]
    for field, name in named:
        if name is not None and name not in known:
            raise RequestError(
                f"expected one of the scores of {bundle.spec.task.name}, got {name!r}",
                field=field,
                hint=f"the scores are: {', '.join(known)}",
            )


@dataclass(frozen=True)
class Judged:
    """The comparison of a candidate with the champion.

    Attributes
    ----------
    comparison
        In the score that must improve; None if one of them lacks it.
    scores, subgroups
        The losses of other scores, and in each subgroup.
    """

    comparison: Comparison | None
    scores: tuple[Loss, ...]
    subgroups: tuple[Loss, ...]


def judge(
    candidate: Evaluation,
    champion: Evaluation,
    bundle: Bundle,
    frozen: EvaluationSet,
    *,
    digests: Mapping[Path, tuple[str, ...]] | None = None,
    attempt: int = 1,
    seed: int = 0,
) -> Judged:
    """Compare two evaluations of the same images.

    Parameters
    ----------
    bundle
        The bundle of either model, for the task.
    frozen
        Scores and subgroups to compare; images of one group are drawn together.
    digests
        Digests of the pixels of each image file: copies count as one image.
    attempt, seed
        See :func:`~cytoray_services.promotion.resampling.level_of` and
        :func:`~cytoray_services.promotion.resampling.compare_units`.
    """
    from cytoray_analysis.tasks import get_task

    task = get_task(bundle.spec.task.name, bundle.spec.task.arguments)
    metric = frozen.metric or candidate.metric
    guards = guards_of(metric, task.output.metrics, frozen.guards)
    units = _units(candidate.items, frozen.group, digests or {})
    both = [_counted(one.items, units, task.score, [metric, *guards], one.metrics) for one in (candidate, champion)]
    comparison = None
    if all(metric in one.whole for one in both):
        comparison = compare_units(metric, both[0], both[1], len(candidate.items), seed=seed, level=level_of(attempt))
    scores = [
        find_loss(name, name, both[0], both[1], allowed, level=LOSSES / len(guards), seed=seed)
        for name, allowed in guards.items()
    ]
    parts = {
        group: [
            _counted(
                [item for item in one.items if item.group == group], units, task.score, [metric], one.groups[group]
            )
            for one in (candidate, champion)
        ]
        for group in candidate.groups
    }
    # Groups that are too small for a test do not reduce the level of the others.
    level = LOSSES / max(1, sum(new.units >= FEW for new, _ in parts.values()))
    subgroups = [
        find_loss(f"{frozen.by} = {group}", metric, new, old, frozen.allowed, level=level, seed=seed)
        for group, (new, old) in parts.items()
    ]
    return Judged(comparison, tuple(scores), tuple(subgroups))


def _counted(
    items: Sequence[ItemScore],
    units: Mapping[Path, str],
    score: Score,
    metrics: Sequence[str],
    whole: Mapping[str, float],
) -> UnitScores:
    return unit_scores(
        [one.prediction.scored for one in items],
        [one.labelled.truth for one in items],
        [units[one.image] for one in items],
        score,
        metrics,
        whole=whole,
    )


def _units(items: Sequence[ItemScore], group: str | None, digests: Mapping[Path, tuple[str, ...]]) -> dict[Path, str]:
    """Return the unit of each image: its group, or itself with its copies, if it has none."""
    units: dict[Path, str] = {}
    firsts: dict[tuple[str, ...], str] = {}
    for item in items:
        named = "" if group is None else item.labelled.items[0].row[group]
        own = f"group {named}" if named else str(item.image)
        units[item.image] = firsts.setdefault(digests.get(item.image, (own,)), own)
    return units


def _seen_by(registry: Registry, version: ModelVersion) -> dict[str, SeenData | None]:
    """Return the data that a version and its ancestors used."""
    found: dict[str, SeenData | None] = {}
    following: ModelVersion | None = version
    while following is not None and following.reference not in found:
        found[following.reference] = _seen(registry, following)
        digest = following.parent_digest
        parents = registry.find_digest(digest) if digest else ()
        if digest and not parents:
            found[f"{following.tags['parent']}, from which {following.reference} started,"] = None
        # The same weights may be registered twice, once as an import without records.
        known = [one for one in parents if one.reference in found or _seen(registry, one) is not None]
        following = next(iter(known or parents), None)
    return found


def _seen(registry: Registry, version: ModelVersion) -> SeenData | None:
    return read_seen_data(registry.run(version.run_id)) if version.run_id else None


def _store(
    registry: Registry,
    version: ModelVersion,
    champion: ModelVersion | None,
    frozen: EvaluationSet,
    request: PromotionRequest,
    checks: Sequence[Check],
    comparison: Comparison | None,
) -> str:
    failed = [check.name for check in checks if not check.passed]
    now = datetime.now(UTC)
    facts = {
        "model": version.reference,
        "alias": request.alias,
        "verdict": "passed" if not failed else "forced" if request.force else "refused",
        "digest": version.digest,
        "champion": champion.reference if champion else None,
        "evaluation set": frozen.shown,
        "who": whoami(),
        "when": now.isoformat(timespec="seconds"),
        "reason": request.reason,
    }
    folder = f"promotion/{now:%Y%m%dT%H%M%S.%f}-{request.alias}"
    if version.run_id is None:
        return ""
    run = registry.run(version.run_id)
    run.log_text(checks_as_json(facts, checks), f"{folder}/report.json")
    run.log_text(checks_as_markdown(facts, checks), f"{folder}/report.md")
    if comparison is not None and champion is not None:
        picture = draw_comparison(comparison, version.reference, champion.reference)
        run.log_bytes(picture, f"{folder}/comparison.png")
    return folder


def _refusal(
    version: ModelVersion, alias: str, checks: tuple[Check, ...], failed: Sequence[Check], report: str
) -> PromotionRefusedError:
    error = PromotionRefusedError(
        f"{version.reference} does not become the {alias}: " + "; ".join(f"{one.name}: {one.reason}" for one in failed),
        field=failed[0].name,
        hint=f"the report is in its run under {report}; to promote it nevertheless: --force --reason WHY",
    )
    error.checks = checks
    return error
