"""Chooses the form of an answer, by name or by the ``Accept`` header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from cytoray_analysis.errors import NotAcceptableError, RequestError
from cytoray_analysis.kinds import TruthKind
from cytoray_serving.answers import arrays
from cytoray_serving.answers.form import Form
from cytoray_serving.answers.kind import answer_kind, answer_kinds

if TYPE_CHECKING:
    from cytoray_analysis.predictor import Prediction

_POINT = re.compile(r"\bq\s*=\s*\.", re.IGNORECASE)
_CHARSET = re.compile(r";\s*charset\s*=\s*(\"[^\"]*\"|[^;,\s]*)", re.IGNORECASE)


def forms_of(kind: TruthKind) -> dict[str, Form]:
    """Return the forms of a kind of answer by name, the default first."""
    return {form.name: form for form in (*answer_kind(kind).own, arrays.FORM)}


def media_types() -> tuple[str, ...]:
    """Return every media type of answers, each once."""
    return tuple(dict.fromkeys(form.media_type for kind in answer_kinds() for form in forms_of(kind).values()))


def choose_form(accept: str | None, kind: TruthKind) -> Form:
    """Choose the form with the highest weight in an ``Accept`` header.

    Parameters
    ----------
    accept
        The header; None or empty accepts anything. Among forms of equal weight the first of the kind is chosen.
    kind
        The kind of the model's answers.

    Raises
    ------
    NotAcceptableError
        No form of this kind is accepted.
    """
    forms = forms_of(kind)
    accepted = _read_accept(accept or "*/*")
    liked = {form.name: accepted.quality(form.media_type) for form in forms.values()}
    best = max(forms.values(), key=lambda form: liked[form.name])
    if liked[best.name] <= 0:
        default = next(iter(forms.values()))
        raise NotAcceptableError(
            f"expected Accept to allow one of {', '.join(form.media_type for form in forms.values())}, got {accept!r}",
            field="Accept",
            hint=f"send Accept: {default.media_type}, or no Accept header",
        )
    return best


def _read_accept(header: str) -> MIMEAccept:
    """Parse the header as clients write it: weights of Java begin with a point, others add a charset to JSON."""
    plain = _CHARSET.sub("", header)  # text is always UTF-8
    return parse_accept_header(_POINT.sub("q=0.", plain), MIMEAccept)


def form_named(name: str | None, kind: TruthKind) -> Form:
    """Return the form with this name; the first of the kind for None.

    Raises
    ------
    RequestError
        Answers of this kind have no such format.
    """
    forms = forms_of(kind)
    if name is None:
        return next(iter(forms.values()))
    if name not in forms:
        raise RequestError(
            f"expected one of the formats {', '.join(forms)}, got {name!r}",
            field="format",
            hint=f"these are the formats of answers of the kind {kind!r}",
        )
    return forms[name]


def require_zarr(kind: TruthKind) -> Callable[[Path, Prediction], object]:
    """Return the function that writes answers of a kind as OME-Zarr; raise :class:`RequestError` for tables."""
    write = answer_kind(kind).write_zarr
    if write is None:
        raise RequestError(
            f"expected a format for answers of the kind {kind!r}, got zarr, which is for images",
            field="format",
            hint="omit the format to use the default of the kind",
        )
    return write
