"""Whether the network waited for data."""

from __future__ import annotations

from cytoray_training.diagnosis.facts import Facts
from cytoray_training.diagnosis.findings.finding import Finding

_WAITING = 0.25
_LEAST_SECONDS = 2.0
_REMEDIES = {
    "read": "put the state folder (CYTORAY_HOME), which contains the decoded images, on a local disk, or reduce "
    "training.crop_size",
    "augment": "augmentation.elastic: 0 and augmentation.rotation: 0, the slowest ones",
    "encode": "reduce training.crop_size",
}


def waiting_for_data(facts: Facts) -> Finding | None:
    """Report when the network waited for batches, and the slowest stage."""
    later = facts.spent[1:] or facts.spent  # the first epoch includes warm-up
    waited, network = sum(one.waited for one in later), sum(one.network for one in later)
    if waited < _LEAST_SECONDS or waited < _WAITING * (waited + network):
        return None
    stages = {stage: sum(getattr(one, stage) for one in later) for stage in _REMEDIES}
    slowest = max(stages, key=lambda stage: stages[stage])
    shown = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items())
    evidence = (
        f"the network waited {waited:.1f} s for batches and computed for {network:.1f} s "
        f"({waited / (waited + network):.0%} of the time); preparing them took: {shown}; slowest: {slowest}"
    )
    cpus = facts.setting("scale.cpus_per_worker")
    remedy = f"{_REMEDIES[slowest]}; or use more cores per worker: scale.cpus_per_worker: {cpus + 1} (now {cpus})"
    return Finding("waiting-for-data", "note", evidence, remedy)
