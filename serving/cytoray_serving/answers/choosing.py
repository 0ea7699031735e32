"""Which form an answer takes: by name, or by how ``Accept`` likes it (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from cytoray_analysis.errors import NotAcceptableError, RequestError
from cytoray_analysis.tasks import TruthKind
from cytoray_serving.answers import arrays, classes, images, labels, lineages
from cytoray_serving.answers.form import Form

_POINT = re.compile(r"\bq\s*=\s*\.", re.IGNORECASE)
_CHARSET = re.compile(r";\s*charset\s*=\s*(\"[^\"]*\"|[^;,\s]*)", re.IGNORECASE)
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
    """
    forms = FORMS[kind]
    accepted = _read_accept(accept or "*/*")
    liked = {form.name: accepted.quality(form.media_type) for form in forms.values()}
    best = max(forms.values(), key=lambda form: liked[form.name])
    if liked[best.name] <= 0:
        default = next(iter(forms.values()))
        raise NotAcceptableError(
            f"expected Accept to allow one of {', '.join(form.media_type for form in forms.values())}, got {accept!r}",
            field="Accept",
            hint=f"ask for {default.media_type}, or leave the header out",
        )
    return best


def _read_accept(header: str) -> MIMEAccept:
    """Read the header as clients write it: Java's weights begin with a point, others name the charset of JSON."""
    plain = _CHARSET.sub("", header)  # text is UTF-8 here, whatever is asked for
    return parse_accept_header(_POINT.sub("q=0.", plain), MIMEAccept)


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
