"""The model card: what a model is for, how good it is, what it was made from, and where it must not be trusted.

After Mitchell et al., "Model Cards for Model Reporting", FAT* 2019, arXiv:1810.03993.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cytoray_analysis.bundle import BundleSpec, ModelInput

LIMITS = (
    "For research use. It is no medical device, and no diagnosis may rest on it.",
    "The scores hold for images like those it was evaluated on. Another microscope, stain, magnification or cell "
    "type may give much worse answers without any warning: check some by eye first.",
    "Images are prepared as described under Input. Saturated, out-of-focus or heavily compressed images were not "
    "part of the evaluation unless the data set has them.",
)


def model_card(
    spec: BundleSpec,
    metrics: Mapping[str, float],
    *,
    data: Mapping[str, str],
    groups: Mapping[str, Mapping[str, float]] | None = None,
    limits: Sequence[str] = (),
) -> str:
    """Write the card of a model.

    Parameters
    ----------
    spec
        The model's bundle specification.
    metrics
        Scores on the validation data, pooled.
    data
        Content hash of every data set that the model saw, by name or role.
    groups
        Scores per subgroup of the validation data.
    limits
        Limits of use that are special to this model; the general ones are always there.

    Returns
    -------
    str
        Markdown. Deterministic: the same arguments give the same card.
    """
    sections = [
        f"# {spec.name}",
        f"A model for **{spec.task.name}**, trained with Cytoray.",
        "## Input",
        _bullets(_input_facts(spec.input)),
        "## Network",
        _bullets({"architecture": spec.network.name, **spec.network.arguments}),
        "## Scores on validation data",
        _scores({"all": metrics} | {name: dict(scores) for name, scores in (groups or {}).items()}),
        "## Data",
        "Content hashes, as `cytoray data hash` gives them:",
        _bullets(data),
    ]
    if spec.decode:
        sections += ["## Decoding", "Fitted on validation data:", _bullets(spec.decode)]
    if spec.provenance:
        sections += ["## Provenance", _bullets(spec.provenance)]
    sections += ["## Limits of use", "\n".join(f"- {limit}" for limit in (*LIMITS, *limits))]
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
    """Return a value on one line, in code quotes unless it is plain words."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and not set(value) & set("`|\n"):
        return value
    return f"`{str(value).replace('`', chr(39))}`".replace("\n", " ")


def _scores(rows: Mapping[str, Mapping[str, float]]) -> str:
    names = list(next(iter(rows.values())))
    lines = [f"| images | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for images, scores in rows.items():
        values = (f"{scores[name]:.3f}" if name in scores else "–" for name in names)
        lines.append(f"| {images.replace('|', '/')} | {' | '.join(values)} |")
    return "\n".join(lines) if names else "None were recorded."
