"""How a training writes facts down while it goes on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from cytoray_training.diagnosis.facts import EndedBy, Failure, Spent, Unscored, Validation
from cytoray_training.diagnosis.findings.learning import few_crops_warning
from cytoray_training.diagnosis.findings.scoring import missing_score
from cytoray_training.diagnosis.probe import LayerProbe, probe_period
from cytoray_training.engine import Engine, Step, rank
from cytoray_training.plan import Plan
from cytoray_training.reporter import Reporter

logger = logging.getLogger(__name__)


class Record:
    """Writes the facts of one training to the progress file, as worker 0.

    Parameters
    ----------
    plan
        What is trained on what.
    reporter
        Where lines go.
    norm_crops
        How many crops the statistics of batch norms are of, at least; None without batch norms.
    """

    def __init__(self, plan: Plan, reporter: Reporter, *, norm_crops: int | None = None) -> None:
        self.period = probe_period(plan.recipe.training.total_steps)
        self._reporter = reporter
        self._metric = plan.metric
        self._warned = False
        self._first = 0
        self._steps: list[tuple[float, float, float]] = []
        self._tell(
            "start",
            {
                "recipe": plan.recipe.model_dump(mode="json"),
                "metric": plan.metric,
                "images": {split: len(plan.dataset.split(split).images) for split in plan.dataset.splits},
                "agreement": plan.recipe.data.agreement,
                "norm_crops": norm_crops,
            },
        )
        warning = few_crops_warning(norm_crops)
        if warning is not None:
            self._tell("warning", {"text": "{} ({})".format(*warning)})

    def step(self, number: int, step: Step, learning_rate: float) -> None:
        """Keep a step until the next :meth:`flush`."""
        if not self._steps:
            self._first = number
        self._steps.append((step.loss, step.gradient_norm, learning_rate))

    def flush(self) -> None:
        """Write the steps that were kept."""
        if self._steps:
            columns = {
                name: [_short(row[place]) for row in self._steps]
                for place, name in enumerate(("loss", "gradient_norm", "learning_rate"))
            }
            self._tell("steps", {"first": self._first, **columns})
            self._steps = []

    def probed_step(
        self,
        engine: Engine,
        passes: Sequence[tuple[Tensor, Tensor]],
        learning_rate: float,
        number: int,
        seed: int,
    ) -> Step:
        """Take a step with eyes on every layer, and measure what it did to the loss of its own batch.

        Every worker must call it. `seed` repeats the step's random numbers, such as those of dropout.
        """
        with LayerProbe(engine.network, engine.local_weights()) as probe:
            step = engine.step(passes, learning_rate)
        torch.manual_seed(seed)
        after = engine.loss_of(passes)
        gain = (step.loss - after) / max(abs(step.loss), 1e-12)
        layers = [{name: _short(value) for name, value in asdict(layer).items()} for layer in probe.layers]
        facts = {"step": number, "learning_rate": _short(learning_rate), "gain": _short(gain), "layers": layers}
        self._tell("probe", facts)
        return step

    def validation(self, validation: Validation) -> None:
        """Write the scores of a validation."""
        self._tell("validation", asdict(validation))

    def unscored(self, unscored: Unscored) -> None:
        """Write down that a validation had no score, and warn of it the first time."""
        self._tell("unscored", asdict(unscored))
        if not self._warned and rank() == 0:
            self._warned = True
            text = missing_score(unscored, self._metric)
            logger.warning(text)
            self._tell("warning", {"text": text})

    def spent(self, spent: Spent) -> None:
        """Write where the time of an epoch went."""
        self._tell("spent", {name: _short(value) for name, value in asdict(spent).items()})

    def ended(self, by: EndedBy) -> None:
        """Write what ended the training, behind all its steps."""
        self.flush()
        self._tell("ended", {"by": by})

    def failure(self, failure: Failure) -> None:
        """Write where it ended; every worker that knows the layer does."""
        self.flush()
        if rank() == 0 or failure.layer is not None:
            self._reporter.progress({"stage": "failure", **asdict(failure)})

    def _tell(self, stage: str, facts: dict[str, Any]) -> None:
        if rank() == 0:
            self._reporter.progress({"stage": stage, **facts})


def _short(value: Any) -> Any:
    """Round a number to five digits, which is more than any finding looks at."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
