"""Recording of facts during a training run."""

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
from cytoray_training.engines.engine import Engine, Step, rank
from cytoray_training.plan.plan import Plan
from cytoray_training.run.reporter import Reporter

logger = logging.getLogger(__name__)


class FactRecorder:
    """Writes the facts of one training run to the progress file, as worker 0.

    Parameters
    ----------
    plan
        Recipe and data.
    reporter
        Receives the lines.
    norm_crops
        Minimum number of crops in the statistics of batch norms; None without batch norms.
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
        """Buffer a step until the next :meth:`flush`."""
        if not self._steps:
            self._first = number
        self._steps.append((step.loss, step.gradient_norm, learning_rate))

    def flush(self) -> None:
        """Write the buffered steps."""
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
        """Take a step, measure every layer, and measure the change of the loss of its own batch.

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
        """Record a validation without a score, and warn about the first one."""
        self._tell("unscored", asdict(unscored))
        if not self._warned and rank() == 0:
            self._warned = True
            text = missing_score(unscored, self._metric)
            logger.warning(text)
            self._tell("warning", {"text": text})

    def spent(self, spent: Spent) -> None:
        """Write how the time of an epoch was spent."""
        self._tell("spent", {name: _short(value) for name, value in asdict(spent).items()})

    def ended(self, by: EndedBy) -> None:
        """Write what ended the training run, after all its steps."""
        self.flush()
        self._tell("ended", {"by": by})

    def failure(self, failure: Failure) -> None:
        """Write where it failed; every worker that located the layer does."""
        self.flush()
        if rank() == 0 or failure.layer is not None:
            self._reporter.progress({"stage": "failure", **asdict(failure)})

    def _tell(self, stage: str, facts: dict[str, Any]) -> None:
        if rank() == 0:
            self._reporter.progress({"stage": stage, **facts})


def _short(value: Any) -> Any:
    """Round a number to five digits, more than any finding needs."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
