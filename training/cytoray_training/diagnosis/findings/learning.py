"""Whether the learning rate was suitable, and the training run stable."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from cytoray_analysis.plural import counted
from cytoray_training.diagnosis.facts import Facts, Probe
from cytoray_training.diagnosis.findings.activity import dead_layers
from cytoray_training.diagnosis.findings.finding import Finding

_LEAST_STEPS = 16
_LEAST_PROBES = 8
_WORSE = 0.01  # relative increase of its own batch's loss that a step may cause by rounding, momentum or weight decay
_BACKWARDS = 0.3  # share of steps that made their own batch worse
_SOUND, _CHANCE = 0.1, 0.01  # share of such steps in healthy training runs, and the significance level
_REPLACED = 0.15  # relative change of the median layer's weights in a single step
_STANDSTILL = 0.005
_CREEP = 2e-4  # relative change of weights per step
_NOWHERE = 0.1  # relative change of weights over the whole training run
_BLOWN_UP = 3.0
_FEWEST_CROPS = 4  # below, the statistics of a batch norm differ much from those used for inference
_SPIKES = 0.1  # share of late steps with a loss far above the beginning
_SPIKE = 10.0


def numbers_lost(facts: Facts) -> Finding | None:
    """Report where a value became NaN or infinite and ended the training run."""
    failure = facts.failure
    if failure is None:
        return None
    places = {
        "input": "the images contain NaN or infinite values",
        "weights": f"the weights {failure.layer} were not finite",
        "output": f"the layer {failure.layer} was the first with finite input and an output that was not finite",
        "loss": "all layers were finite, but the loss was not",
        "gradient": "in the backward pass, the gradient was not finite for the first time at "
        f"{failure.layer or 'a layer that was not located'}",
    }
    evidence = (
        f"step {failure.step} (epoch {failure.epoch + 1}): loss {failure.loss:g}, gradient norm "
        f"{failure.gradient_norm:g}; {places[failure.what]}{_before(facts)}"
    )
    rate = facts.setting("training.learning_rate")
    if failure.what == "input":
        return Finding("not-finite", "error", evidence, "find the images with: cytoray data check")
    layer = f"check {failure.layer} in the network; " if failure.layer else ""
    remedy = (
        f"{layer}training.learning_rate: {rate / 10:g} (now {rate:g}), training.gradient_clip: "
        f"{facts.setting('training.gradient_clip') / 10:g}, training.precision: fp32"
    )
    return Finding("not-finite", "error", evidence, remedy)


def _before(facts: Facts) -> str:
    norms = [norm for norm in facts.steps.gradient_norm[-10:] if np.isfinite(norm)]
    return (
        f"; the median gradient norm of the {counted(len(norms), 'step')} before was {np.median(norms):.3g}"
        if norms
        else ""
    )


def diverging(facts: Facts) -> Finding | None:
    """Report when the loss ended far above its minimum, or repeatedly rose far above its beginning."""
    loss = _finite(facts)
    if len(loss) < _LEAST_STEPS:
        return None
    width = max(4, len(loss) // 16)
    smooth = np.array([np.median(loss[place : place + width]) for place in range(len(loss) - width + 1)])
    lowest = int(smooth.argmin())
    ended_high = smooth[-1] > _BLOWN_UP * max(smooth[lowest], 1e-12) and smooth[-1] > smooth[0]
    late = loss[-(len(loss) // 3) :]
    leaps = int((late > _SPIKE * max(smooth[0], 1e-12)).sum())
    if ended_high:
        evidence = (
            f"the loss fell to {smooth[lowest]:.3g} by step {facts.steps.step[lowest]} and ended at "
            f"{smooth[-1]:.3g}, above its beginning ({smooth[0]:.3g})"
        )
    elif leaps >= _SPIKES * len(late):
        evidence = (
            f"in {leaps} of the last {counted(len(late), 'step')} the loss was more than {_SPIKE:g} times that of the "
            f"beginning ({smooth[0]:.3g}), at most {late.max():.3g}"
        )
    else:
        return None
    rate = facts.setting("training.learning_rate")
    return Finding("diverging", "error", evidence, f"training.learning_rate: {rate / 10:g} (now {rate:g})")


def few_crops_per_norm(facts: Facts) -> Finding | None:
    """Report when batch norms computed their statistics from very few crops at a time."""
    warning = few_crops_warning(facts.norm_crops)
    return None if warning is None else Finding("few-crops-per-norm", "warning", *warning)


def few_crops_warning(norm_crops: int | None) -> tuple[str, str] | None:
    """Return the problem with so few crops and the remedy; None if they suffice, or no batch norm uses them."""
    if norm_crops is None or norm_crops >= _FEWEST_CROPS:
        return None
    return (
        f"batch norms compute their statistics from {counted(norm_crops, 'crop')} at a time, fewer "
        f"than {_FEWEST_CROPS}: they vary from pass to pass, but predictions use their average",
        "increase training.batch_size, or decrease training.accumulate; with several workers, use "
        "training.batch_norm: synchronised",
    )


def rate_too_high(facts: Facts) -> Finding | None:
    """Report when steps at the highest rates increased the loss of their own batch, or replaced the weights.

    A short step along the gradient reduces the loss of its batch; otherwise it was too long. A few such steps are
    chance (binomial test). Norms hide long steps from the loss, but a step that changes the weights by a seventh of
    their size discards much of what was learned.
    """
    probes = _at_full_rate(facts)
    if len(probes) < _LEAST_PROBES:
        return None
    backwards = sum(probe.gain < -_WORSE for probe in probes)
    longest = max(facts.probes, key=lambda probe: _update([probe]))
    too_often = backwards >= _BACKWARDS * len(probes) and binom.sf(backwards - 1, len(probes), _SOUND) < _CHANCE
    if not too_often and _update([longest]) < _REPLACED:
        return None
    rate = facts.setting("training.learning_rate")
    evidence = (
        f"{backwards} of {counted(len(probes), 'step')} at the highest rates increased the loss of their own batch by "
        f"{_WORSE:.0%} or more; the weights changed by {_update(probes):.1%} of their size per step, by "
        f"{_update([longest]):.0%} in step {longest.step}"
    )
    remedy = f"training.learning_rate: {rate / 10:g} (now {rate:g}), or training.warmup: 0.1 if only its start fails"
    return Finding("learning-rate-too-high", "warning", evidence, remedy)


def rate_too_low(facts: Facts) -> Finding | None:
    """Report when the weights hardly changed, per step and in total, and each step hardly reduced the loss.

    With dead layers the rate is not reported: no learning rate helps there.
    """
    probes = _at_full_rate(facts)
    loss = _finite(facts)
    if len(probes) < _LEAST_PROBES or len(loss) < _LEAST_STEPS or dead_layers(facts) is not None:
        return None
    gain, update = float(np.median([probe.gain for probe in probes])), _update(probes)
    if abs(gain) > _STANDSTILL or update > _CREEP or update * len(loss) > _NOWHERE:
        return None
    rate = facts.setting("training.learning_rate")
    evidence = (
        f"a step changed the weights by {update:.2g} of their size (1e-3 is usual) and the loss of its own batch by "
        f"{gain:.2%} (median of {counted(len(probes), 'step')}); the loss went from "
        f"{loss[: len(loss) // 8].mean():.3g} to {loss[-(len(loss) // 8) :].mean():.3g}"
    )
    better = min(1.0, rate * min(max(1e-3 / max(update, 1e-12), 10.0), 1000.0))
    return Finding("learning-rate-too-low", "warning", evidence, f"training.learning_rate: {better:.1g} (now {rate:g})")


def _at_full_rate(facts: Facts) -> list[Probe]:
    """Return the probes at half of the highest rate or more: neither in the warm-up nor near the end."""
    highest = max((probe.learning_rate for probe in facts.probes), default=0.0)
    return [probe for probe in facts.probes if probe.learning_rate >= highest / 2 and np.isfinite(probe.gain)]


def _update(probes: list[Probe]) -> float:
    updates = [layer.update for probe in probes for layer in probe.layers if layer.update is not None]
    return float(np.median(updates)) if updates else 0.0


def _finite(facts: Facts) -> NDArray[np.float64]:
    return np.array([loss for loss in facts.steps.loss if np.isfinite(loss)], dtype=float)
