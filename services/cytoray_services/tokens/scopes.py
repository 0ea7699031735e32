"""The scopes of tokens, and their limits.

``predict`` (use models), ``submit`` (jobs) and ``administer`` (everything); ``predict:MODEL`` allows one model only,
``submit:TEAM`` the jobs of one team.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Literal, get_args

from pydantic import StringConstraints

from cytoray_analysis.errors import RequestError

Scope = Literal["predict", "submit", "administer"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_MODEL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_TEAM = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # valid as a label of Kubernetes
_GRANT = rf"(predict(:{_MODEL})?|submit(:{_TEAM})?|administer)"
_WITH_LIMITS = ("predict", "submit")

Team = Annotated[str, StringConstraints(pattern=rf"^{_TEAM}$")]
Grant = Annotated[str, StringConstraints(pattern=rf"^{_GRANT}$")]


def scope_of(grant: str) -> str:
    """Return the scope of a grant without its limit."""
    return grant.partition(":")[0]


def named(grants: Iterable[str], scope: Scope) -> frozenset[str]:
    """Return the models, or teams, in the grants of a scope."""
    return frozenset(grant.partition(":")[2] for grant in grants if grant.startswith(f"{scope}:"))


def ordered(grants: Iterable[str]) -> tuple[str, ...]:
    """Return grants without duplicates, in the order of their scopes."""
    names: list[str] = list(SCOPES)
    return tuple(sorted(set(grants), key=lambda grant: (names.index(scope_of(grant)), grant)))


def require_grants(grants: Iterable[str]) -> None:
    """Raise an error for an invalid scope.

    Raises
    ------
    RequestError
        There is no scope, or an invalid one; the hint suggests a correction.
    """
    known = ", ".join(SCOPES)
    listed = list(grants)
    if not listed:
        raise RequestError(f"expected one or more of the scopes {known}, got none", field="scope")
    for grant in listed:
        if not re.fullmatch(_GRANT, grant):
            raise RequestError(f"expected the scopes {known}, got {grant!r}", field="scope", hint=_meant(grant))


def _meant(grant: str) -> str:
    """Return a suggestion for an invalid scope."""
    scope, colon, limit = grant.partition(":")
    if scope not in SCOPES:
        close = get_close_matches(scope, SCOPES, n=1)
        if close:
            return f"did you mean {close[0] + colon + limit!r}?"
    elif scope not in _WITH_LIMITS:
        return f"{scope} has no limits: write {scope} alone"
    elif scope == "predict" and re.fullmatch(_MODEL, re.split("[@/]", limit)[0]):
        return f"the scope of a model includes all versions and aliases: {scope}:{re.split('[@/]', limit)[0]}"
    elif limit:
        kind = "a model" if scope == "predict" else "a team in lower-case letters, digits and '-'"
        return f"name {kind} after the colon, one per --scope"
    return "repeat --scope: --scope predict:MODEL --scope submit:TEAM --scope submit"
