"""The gate: a version becomes the champion only when every check passes, or when somebody takes the blame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import RequestError
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import hash_dataset
from cytoray_services.evaluation import Evaluation, evaluate, scored
from cytoray_services.promotion.agreement import agreement
from cytoray_services.promotion.checks import (
    TOLERANCE,
    Check,
    check_agreement,
    check_better,
    check_frozen,
    check_overlap,
    check_self_test,
    check_subgroups,
)
from cytoray_services.promotion.frozen_set import FrozenSet, settle
from cytoray_services.promotion.report import checks_as_json, checks_as_markdown, describe, draw_comparison
from cytoray_services.promotion.resampling import Comparison, compare, seed_of
from cytoray_services.promotion.seen_data import SeenData, image_digests, read_seen_data
from cytoray_services.registry import CHAMPION, ModelVersion, Registry, whoami

Progress = Callable[[str], None]


class PromotionRefusedError(RequestError):
    """A version that did not pass the gate; `checks` says why."""

    checks: tuple[Check, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the error as a JSON object, with the checks."""
        return {**super().describe(), "checks": [describe(check) for check in self.checks]}


@dataclass(frozen=True)
class Wish:
    """What somebody wants promoted, and how.

    Attributes
    ----------
    alias
        What is to point to the version.
    given
        The evaluation set that is named; None for the recorded one.
    replacing
        Whether that may replace the recorded one.
    tolerance
        How much a subgroup may lose.
    force, reason
        Whether to promote in spite of failed checks, and why.
    """

    alias: str = CHAMPION
    given: FrozenSet | None = None
    replacing: bool = False
    tolerance: float = TOLERANCE
    force: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Promotion:
    """A version that passed, or was forced through.

    Attributes
    ----------
    report
        Folder in the version's run that holds the report; empty when the version had the alias already.
    """

    version: ModelVersion
    checks: tuple[Check, ...]
    forced: bool
    report: str


def promote(
    registry: Registry, version: ModelVersion, wish: Wish, *, progress: Progress = lambda stage: None
) -> Promotion:
    """Let a version through the gate, or refuse it; the report is kept in its run either way.

    Parameters
    ----------
    progress
        Called with what is done next.

    Raises
    ------
    PromotionRefusedError
        A check failed; the message names each with its figures.
    RequestError
        ``force`` without a reason, another evaluation set than the recorded one, or an alias that moved meanwhile.
    """
    for asked, what in ((wish.force, "--force"), (wish.replacing, "--replace-set")):
        if asked and not wish.reason.strip():
            raise RequestError(f"expected a reason with {what}, got none", field="reason", hint="add: --reason WHY")
    aliases = {alias: one for one in registry.versions(version.name) for alias in one.aliases}
    champion = aliases.get(wish.alias)
    if champion is not None and champion.version == version.version:
        return Promotion(version, (), False, "")
    frozen = settle(registry, version, wish.given, replacing=wish.replacing, reason=wish.reason)
    checks, comparison = _examine(registry, version, champion, frozen, wish.tolerance, progress)
    failed = [check for check in checks if not check.passed]
    report = _store(registry, version, champion, frozen, wish, checks, comparison)
    if failed and not wish.force:
        raise _refusal(version, wish.alias, checks, failed, report)
    moved = registry.promote(
        version.name,
        version.version,
        wish.alias,
        expected=champion.version if champion else None,
        reason=wish.reason,
        forced=bool(failed),
        report=report,
    )
    return Promotion(moved, checks, bool(failed), report)


def _examine(
    registry: Registry,
    version: ModelVersion,
    champion: ModelVersion | None,
    frozen: FrozenSet,
    tolerance: float,
    progress: Progress,
) -> tuple[tuple[Check, ...], Comparison | None]:
    progress("reading the evaluation set")
    dataset = frozen.open()
    bundle = Bundle.load(registry.fetch(version))
    unchanged = check_frozen(frozen.digest, hash_dataset(dataset), frozen.shown)
    if not unchanged.passed:  # scores on other images would say nothing
        return (unchanged, check_self_test(bundle)), None
    progress(f"evaluating {version.reference}")
    evaluation = evaluate(Predictor(bundle, precision="fp32"), dataset, by=frozen.by)
    comparison = old = None
    if champion is not None:
        progress(f"evaluating {champion.reference}")
        old = evaluate(Predictor(Bundle.load(registry.fetch(champion)), precision="fp32"), dataset, by=frozen.by)
        seed = seed_of(version.digest, champion.digest, frozen.digest)
        comparison = compare_evaluations(evaluation, old, bundle, frozen.group, seed=seed)
    progress("comparing fp32 with bf16")
    alike = check_agreement(agreement(bundle, dataset), next(iter(evaluation.metrics)))
    progress("looking for images in common")
    seen = _seen_by(registry, version)
    return (
        unchanged,
        check_better(comparison, evaluation),
        check_subgroups(evaluation, old, frozen.by, tolerance),
        check_self_test(bundle),
        alike,
        check_overlap(seen, image_digests(dataset)),
    ), comparison


def compare_evaluations(
    candidate: Evaluation, champion: Evaluation, bundle: Bundle, group: str | None, *, seed: int = 0
) -> Comparison:
    """Compare two evaluations of the same images by the first metric of their task.

    Parameters
    ----------
    bundle
        Of either; it names the task.
    group
        Column of the manifest whose values are drawn together.
    """
    from cytoray_analysis.tasks import get_task

    first = candidate.items
    groups = [one.image if group is None else one.labelled.items[0].row[group] for one in first]
    answers, old = ([scored(one.prediction) for one in items] for items in (first, champion.items))
    truths, old_truths = ([one.labelled.truth for one in items] for items in (first, champion.items))
    task = get_task(bundle.spec.task.name, bundle.spec.task.arguments)
    metric = next(iter(candidate.metrics))
    return compare(metric, (answers, truths), (old, old_truths), groups, task.score, seed=seed)


def _seen_by(registry: Registry, version: ModelVersion) -> dict[str, SeenData | None]:
    """Return what a version has seen, and what those have seen that it started from."""
    found: dict[str, SeenData | None] = {}
    following: ModelVersion | None = version
    while following is not None and following.reference not in found:
        run = registry.run(following.run_id) if following.run_id else None
        found[following.reference] = read_seen_data(run) if run else None
        following = parent_of(registry, following)
    return found


def parent_of(registry: Registry, version: ModelVersion) -> ModelVersion | None:
    """Return the registered version whose weights a version started from; None where there is none."""
    found = registry.find_digest(version.parent_digest) if version.parent_digest else ()
    return found[0] if found else None


def _store(
    registry: Registry,
    version: ModelVersion,
    champion: ModelVersion | None,
    frozen: FrozenSet,
    wish: Wish,
    checks: Sequence[Check],
    comparison: Comparison | None,
) -> str:
    failed = [check.name for check in checks if not check.passed]
    now = datetime.now(UTC)
    facts = {
        "model": version.reference,
        "alias": wish.alias,
        "verdict": "passed" if not failed else "forced" if wish.force else "refused",
        "digest": version.digest,
        "champion": champion.reference if champion else None,
        "evaluation set": frozen.shown,
        "who": whoami(),
        "when": now.isoformat(timespec="seconds"),
        "reason": wish.reason,
    }
    folder = f"promotion/{now:%Y%m%dT%H%M%S.%f}-{wish.alias}"
    if version.run_id is None:
        return ""
    run = registry.run(version.run_id)
    run.log_text(checks_as_json(facts, checks), f"{folder}/report.json")
    run.log_text(checks_as_markdown(facts, checks), f"{folder}/report.md")
    if comparison is not None and champion is not None:
        picture = draw_comparison(comparison, version.reference, champion.reference)
        run.log_bytes(picture, f"{folder}/bootstrap.png")
    return folder


def _refusal(
    version: ModelVersion, alias: str, checks: tuple[Check, ...], failed: Sequence[Check], report: str
) -> PromotionRefusedError:
    error = PromotionRefusedError(
        f"{version.reference} does not become the {alias}: " + "; ".join(f"{one.name}: {one.reason}" for one in failed),
        field=failed[0].name,
        hint=f"the report is in its run under {report}; to promote nevertheless: --force --reason WHY",
    )
    error.checks = checks
    return error
