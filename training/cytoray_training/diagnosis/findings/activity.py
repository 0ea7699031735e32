"""Layers with constant outputs, and layers with outputs that are too large."""

from __future__ import annotations

import numpy as np

from cytoray_analysis.plural import counted
from cytoray_training.diagnosis.facts import Facts, Layer
from cytoray_training.diagnosis.findings.finding import Finding

_DEAD = 0.5
_EXPLODED = 1e3


def dead_layers(facts: Facts) -> Finding | None:
    """Report layers with at least half of the channels constant throughout the last third."""
    dead = {
        name: float(np.min([layer.dead for layer in layers]))
        for name, layers in _late(facts).items()
        if min(layer.dead for layer in layers) >= _DEAD
    }
    if not dead:
        return None
    named = ", ".join(f"{name} ({share:.0%})" for name, share in list(dead.items())[:4])
    evidence = (
        f"of {counted(len(_late(facts)), 'layer')}, {len(dead)} have the same value for every pixel of every crop in "
        f"half or more of their channels: {named}"
    )
    begun = {layer.name for layer in facts.probes[0].layers if layer.dead >= _DEAD}
    rate = facts.setting("training.learning_rate")
    remedy = (
        f"their channels were already dead in step {facts.probes[0].step}, which no learning rate repairs: check the "
        "initialisation of the network, or reduce model.network.arguments.widths"
        if dead.keys() <= begun
        else f"training.learning_rate: {rate / 10:g} (now {rate:g}), because large steps can "
        "stop units from learning; or reduce model.network.arguments.widths"
    )
    return Finding("dead-layers", "warning", evidence, remedy)


def exploding_layers(facts: Facts) -> Finding | None:
    """Report layers with outputs a thousand times larger than expected."""
    big = {
        name: float(np.median([layer.rms for layer in layers]))
        for name, layers in _late(facts).items()
        if not np.median([layer.rms for layer in layers]) < _EXPLODED
    }
    if not big:
        return None
    first = next(iter(big))
    largest = max(big, key=lambda name: big[name])
    evidence = (
        f"from {first} on, the outputs of {counted(len(big), 'layer')} are larger than {_EXPLODED:g}; the largest, "
        f"{largest}, {big[largest]:.3g} (root mean square, late in the training run)"
    )
    rate = facts.setting("training.learning_rate")
    remedy = (
        f"training.learning_rate: {rate / 10:g} (now {rate:g}), training.weight_decay: "
        f"{max(10 * facts.setting('training.weight_decay'), 0.01):g}; and add a norm after {first} if it has none"
    )
    return Finding("exploding-layers", "warning", evidence, remedy)


def _late(facts: Facts) -> dict[str, list[Layer]]:
    """Return each layer as measured by the last third of the probes."""
    layers: dict[str, list[Layer]] = {}
    for probe in facts.probes[-max(1, len(facts.probes) // 3) :]:
        for layer in probe.layers:
            layers.setdefault(layer.name, []).append(layer)
    return layers
