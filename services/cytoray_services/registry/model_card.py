"""The model card: purpose, scores, data and limits of a model.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, arXiv:1810.03993.
"""

from __future__ import annotations

from collections.abc import Mapping

from cytoray_analysis.bundle import BundleSpec, ModelInput
from cytoray_analysis.tasks.calibration import CalibratedError
from cytoray_services.statistics import FEW
from cytoray_services.statistics.intervals import Interval, shown

_CHOSEN = "These images were used to choose epoch, decoding and calibration; scores on other images are slightly lower."
LIMITS = (
    "For research use only. It is not a medical device; do not use it for diagnosis.",
    "The scores are valid for images like those of the evaluation. With another microscope, stain, magnification or "
    "cell type, answers may be much worse without any warning: check some by eye first.",
    "Images are prepared as described under Input. Saturated, out-of-focus or heavily compressed images were not "
    "part of the evaluation, unless the data set contains them.",
)


def model_card(
    spec: BundleSpec,
    metrics: Mapping[str, float],
    *,
    data: Mapping[str, str],
    intervals: Mapping[str, Interval] | None = None,
    calibrated: CalibratedError | None = None,
    trained: bool = True,
) -> str:
    """Write the card of a model.

    Parameters
    ----------
    spec
        The model's bundle specification.
    metrics
        Scores on the validation data, pooled; scores without anything to count are absent.
    data
        Content hash of every data set that the model used, by name or role.
    intervals
        95 % intervals of the scores.
    calibrated
        The ``ece`` that calibrated answers would have on the same data.
    trained
        Whether it learned anything: False for a network without weights, with the default decode parameters.

    Returns
    -------
    str
        Markdown. Deterministic: the same arguments give the same card.
    """
    sections = [
        f"# {spec.name}",
        f"A model for **{spec.task.name}**, {'trained with Cytoray' if trained else 'which needs no training'}.",
        "## Input",
        _bullets(_input_facts(spec.input)),
        "## Network",
        _bullets({"architecture": spec.network.name, **spec.network.arguments}),
        "## Scores on validation data",
        _scores(metrics, intervals or {}),
        *([_calibration(metrics["ece"], calibrated)] if calibrated is not None and "ece" in metrics else []),
    ]
    if trained:
        sections += ["## Data", "Content hashes, as printed by `cytoray data hash`:", _bullets(data)]
    if spec.decode:
        sections += ["## Decoding", "Fitted on validation data:" if trained else "Defaults:", _bullets(spec.decode)]
    if spec.provenance:
        sections += ["## Provenance", _bullets(spec.provenance)]
    sections += ["## Limits of use", "\n".join(f"- {limit}" for limit in LIMITS)]
    return "\n\n".join(sections) + "\n"


def _input_facts(model_input: ModelInput) -> dict[str, object]:
    size = model_input.pixel_size
    scaling = model_input.scaling
    how = f"{scaling.method}, statistics of the {'image' if scaling.scope == 'image' else 'training set'}"
    if scaling.method == "percentile":
        how += f", {scaling.low:g} to {scaling.high:g} %"
    return {
        "axes": model_input.axes,
        "channels": ", ".join(model_input.channels),
        "grey images": "repeated over all channels" if model_input.grey_as_rgb else "only for one channel",
        "pixel size": "any; images are not resampled"
        if size is None
        else ", ".join(f"{axis} {length:g} µm" for axis, length in size.items()),
        "intensity": how,
    }


def _bullets(facts: Mapping[str, object]) -> str:
    return "\n".join(f"- {name}: {_flat(value)}" for name, value in facts.items()) or "- none recorded"


def _flat(value: object) -> str:
    """Return a value on one line, in code quotes unless it is plain text."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and not set(value) & set("`|\n"):
        return value
    return f"`{str(value).replace('`', chr(39))}`".replace("\n", " ")


def _calibration(error: float, calibrated: CalibratedError) -> str:
    return f"For ece, each image has a calibration fitted on the other images: {calibrated.beside(error)}."


def _scores(scores: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    """Write a row for each score, with its interval."""
    if not scores:
        return "None were recorded."
    lines = ["| score | all |", "|---|---:|"]
    lines += [
        f"| {name.replace('|', '/')} | {shown(value, intervals.get(name), alone=bool(intervals))} |"
        for name, value in scores.items()
    ]
    units = max((one.units for one in intervals.values()), default=0)
    alone = scores.keys() - intervals.keys()
    unsure = units and (alone or any(one.few for one in intervals.values()))
    few = f"; ?: fewer than {FEW} of them, too few for an interval, have anything to count" if unsure else ""
    basis = f" In brackets: 95 % intervals over {units} images, movies or groups{few}." if units else ""
    return "\n".join(lines) + "\n\n" + _CHOSEN + basis
