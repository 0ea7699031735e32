"""Measurement: how much of something each cell holds, such as of a stain that is not there."""

from __future__ import annotations

from cytoray_analysis.kinds import Metric, TaskKind

MEASUREMENT = TaskKind(
    per="cell",
    truth="amount",
    task="fifth_kind.task:Measurement",
    metrics=(Metric("mean_error", "lower", "of what is measured"),),
)
