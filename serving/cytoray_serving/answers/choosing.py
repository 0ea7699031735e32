"""Which form an answer takes: by name, or by how ``Accept`` likes it (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cytoray_analysis.errors import NotAcceptableError, RequestError
from cytoray_analysis.tasks import TruthKind
from cytoray_serving.answers import arrays, classes, images, labels, lineages
from cytoray_serving.answers.form import Form

_BY_KIND: dict[TruthKind, tuple[Form, ...]] = {
    "labels": labels.FORMS,
    "image": images.FORMS,
    "class": classes.FORMS,
    "lineage": lineages.FORMS,
}
FORMS: Mapping[TruthKind, Mapping[str, Form]] = {
    kind: {form.name: form for form in (*forms, arrays.FORM)} for kind, forms in _BY_KIND.items()
}


def media_types() -> tuple[str, ...]:
    """Return every media type that answers come in, without repetition."""
    return tuple(dict.fromkeys(form.media_type for forms in FORMS.values() for form in forms.values()))


def choose_form(accept: str | None, kind: TruthKind) -> Form:
    """Choose the form that an ``Accept`` header likes best.

    Parameters
    ----------
    accept
        The header; None or empty accepts anything. Among forms liked equally, the first of the kind is taken.
    kind
        What the answers of the model are.

    Raises
    ------
    NotAcceptableError
        Nothing that is written here is accepted.
    RequestError
        The header is no list of media ranges.
    """
    forms = FORMS[kind]
    ranges = _parse_accept(accept or "*/*")
    liked = {form.name: _quality(form.media_type, ranges) for form in forms.values()}
    best = max(forms.values(), key=lambda form: liked[form.name])
    if liked[best.name] <= 0:
        default = next(iter(forms.values()))
        raise NotAcceptableError(
            f"expected Accept to allow one of {', '.join(form.media_type for form in forms.values())}, got {accept!r}",
            field="Accept",
            hint=f"ask for {default.media_type}, or leave the header out",
        )
    return best


def form_named(name: str | None, kind: TruthKind) -> Form:
    """Return the form of that name; the first of the kind for None.

    Raises
    ------
    RequestError
        Answers of this kind have no such form.
    """
    forms = FORMS[kind]
    if name is None:
        return next(iter(forms.values()))
    if name not in forms:
        raise RequestError(
            f"expected a format out of {', '.join(forms)}, got {name!r}",
            field="format",
            hint=f"these are the formats of an answer of the kind {kind!r}",
        )
    return forms[name]


@dataclass(frozen=True)
class _MediaRange:
    type: str
    subtype: str
    parameters: frozenset[tuple[str, str]]
    quality: float

    def matches(self, media: _MediaRange) -> bool:
        return (
            self.type in ("*", media.type)
            and self.subtype in ("*", media.subtype)
            and self.parameters <= media.parameters
        )

    @property
    def specificity(self) -> tuple[bool, bool, int]:
        return self.type != "*", self.subtype != "*", len(self.parameters)


def _parse_accept(header: str) -> list[_MediaRange]:
    return [_parse_range(part) for part in header.split(",") if part.strip()]


def _parse_range(text: str) -> _MediaRange:
    essence, *rest = (part.strip() for part in text.split(";"))
    kind, slash, subtype = essence.lower().partition("/")
    parameters: set[tuple[str, str]] = set()
    quality = 1.0
    for part in rest:
        name, _, value = (word.strip().strip('"') for word in part.partition("="))
        if name.lower() == "q":
            quality = _parse_quality(value, text)
            break  # what follows the weight are extensions of Accept, not of the media type
        if name:
            parameters.add((name.lower(), value.lower()))
    if not kind or not slash or not subtype or (kind == "*" and subtype != "*"):
        raise RequestError(f"expected media ranges such as image/tiff or image/*, got {text.strip()!r}", field="Accept")
    return _MediaRange(kind, subtype, frozenset(parameters), quality)


def _parse_quality(value: str, text: str) -> float:
    try:
        quality = float(value)
    except ValueError:
        quality = -1.0
    if not 0 <= quality <= 1:
        raise RequestError(f"expected q from 0 to 1, got {text.strip()!r}", field="Accept")
    return quality


def _quality(media_type: str, ranges: list[_MediaRange]) -> float:
    """Return how much a media type is liked: the weight of the most specific range that names it, 0 when none does."""
    media = _parse_range(media_type)
    matching = [candidate for candidate in ranges if candidate.matches(media)]
    if not matching:
        return 0.0
    return max(matching, key=lambda candidate: (candidate.specificity, candidate.quality)).quality
