"""How certain a model is of its objects in an image, which orders the images to look at next.

The confidence of an object is the probability that it is right, fitted on validation data
(:mod:`cytoray_analysis.tasks.confidence`). The certainty of an image is the mean confidence of its objects: one minus
the share of objects that is expected to be wrong, so that an image with many objects does not come first only because
of their number. Objects that a person made or edited do not count: a person has looked at them.
"""

from __future__ import annotations

from cytoray_services.corrections.corrected import Corrected


def certainty_of(corrected: Corrected) -> tuple[float | None, float | None]:
    """Return the mean and the lowest confidence of the unedited objects of the model; None without any."""
    confidences = [
        one.confidence
        for label, one in corrected.objects.items()
        if one.confidence is not None and not corrected.edited(label)
    ]
    if not confidences:
        return None, None
    return sum(confidences) / len(confidences), min(confidences)
