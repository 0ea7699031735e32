"""Access control of a service: it checks the tokens of callers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cytoray_analysis.errors import ForbiddenError, UnauthorizedError
from cytoray_services.tokens.scopes import SCOPES, Scope, named
from cytoray_services.tokens.tokens import Token, TokenFile

_LOCAL = "local"  # the caller of a service without tokens
# Declares the scheme in the OpenAPI document; Access.check reads the header, for HTTP and gRPC.
_BEARER = HTTPBearer(
    auto_error=False, scheme_name="Token", bearerFormat="cyt_…", description="A token from cytoray tokens create."
)


@dataclass(frozen=True)
class Caller:
    """The caller of a request.

    Attributes
    ----------
    name
        The name of the token; ``local`` in a service without tokens.
    scopes
        What the token allows; see :mod:`cytoray_services.tokens.scopes`.
    team
        The team whose jobs and quota it uses.
    token
        ID of the token; None in a service without tokens.
    """

    name: str
    scopes: tuple[str, ...]
    team: str | None = None
    token: str | None = None

    @property
    def administers(self) -> bool:
        """Whether the caller has all permissions, for every team."""
        return "administer" in self.scopes

    @property
    def models(self) -> frozenset[str] | None:
        """The models that the caller may use, in requests and jobs; None for all."""
        found = named(self.scopes, "predict")
        return None if self.administers or "predict" in self.scopes or not found else found

    @property
    def teams(self) -> frozenset[str]:
        """The teams whose jobs and storage locations the caller may use."""
        return named(self.scopes, "submit") | ({self.team} if self.team is not None else frozenset())

    def may_ask(self, model: str) -> bool:
        """Whether the caller may use a model, named as in an address: with any alias or version."""
        return self.models is None or re.split("[@/]", model)[0] in self.models

    def sees(self, owner: str, team: str | None) -> bool:
        """Whether the caller may see and stop a job: the team of the job, or its owner if it has no team."""
        if self.administers:
            return True
        return team in self.teams if team is not None else owner == self.name

    def team_for(self, wanted: str | None) -> str | None:
        """Return the team that a job is for.

        Parameters
        ----------
        wanted
            The team in the request; None for the token's own.

        Raises
        ------
        ForbiddenError
            The token does not allow jobs for it, or allows several teams and the request names none.
        """
        if self.administers:
            return wanted or self.team
        may: set[str | None] = {*named(self.scopes, "submit"), *({self.team} if "submit" in self.scopes else ())}
        if wanted is None and (self.team in may or len(may) == 1):
            return self.team if self.team in may else next(iter(may))
        if wanted in may:
            return wanted
        raise ForbiddenError(
            f"expected a token that allows jobs for the team {wanted}, got one for "
            f"{', '.join(sorted(one or 'no team' for one in may))}"
            if wanted
            else f"expected the team of the job ({', '.join(sorted(map(str, may)))}), got none",
            field="team",
            hint="omit the team" if len(may) == 1 else "name one of these teams",
        )


class Access:
    """Checks the tokens of callers.

    Parameters
    ----------
    tokens
        The tokens; None gives every caller all permissions, for a service that only this machine can reach.
    """

    def __init__(self, tokens: TokenFile | None) -> None:
        self._tokens = tokens

    @property
    def open(self) -> bool:
        """Whether callers need no token."""
        return self._tokens is None

    def known(self, authorization: str | None) -> Caller:
        """Return the caller with a valid token of any scope.

        Raises
        ------
        UnauthorizedError
            There is no token, or it is unknown, revoked or expired.
        """
        if self._tokens is None:
            return Caller(_LOCAL, SCOPES)
        return _caller(self._token(authorization, self._tokens))

    def check(self, authorization: str | None, scope: Scope) -> Caller:
        """Return the caller.

        Parameters
        ----------
        authorization
            The header, or the gRPC metadata, of that name: ``Bearer cyt_…``.
        scope
            The scope that the request needs.

        Raises
        ------
        UnauthorizedError
            There is no token, or it is unknown, revoked or expired.
        ForbiddenError
            The token does not have this scope.
        """
        if self._tokens is None:
            return Caller(_LOCAL, SCOPES)
        token = self._token(authorization, self._tokens)
        if not token.allows(scope):
            raise ForbiddenError(
                f"expected a token with the scope {scope}, got {', '.join(token.scopes)}",
                field="Authorization",
                hint="ask the operator for a token with that scope",
            )
        return _caller(token)

    @staticmethod
    def _token(authorization: str | None, tokens: TokenFile) -> Token:
        kind, _, text = (authorization or "").strip().partition(" ")
        if kind.lower() != "bearer" or not text:
            raise UnauthorizedError(
                "expected a token, got none"
                if not authorization
                else "expected the header Authorization: Bearer TOKEN",
                field="Authorization",
                hint="send the header Authorization: Bearer cyt_…; create a token with cytoray tokens create",
            )
        token = tokens.find(text.strip())
        if token is None:
            raise UnauthorizedError(
                "expected a valid token, got one that is unknown, revoked or expired",
                field="Authorization",
                hint="ask the operator for a new token",
            )
        return token

    def require(self, scope: Scope) -> Callable[..., Awaitable[Caller]]:
        """Return the FastAPI dependency that admits only callers with a scope.

        It runs before the body is read, returns the :class:`Caller`, and stores it in ``request.state.caller``.
        """

        async def local(request: Request) -> Caller:
            request.state.caller = self.check(None, scope)
            return request.state.caller  # type: ignore[no-any-return]

        async def with_token(
            request: Request,
            credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        ) -> Caller:
            request.state.caller = self.check(request.headers.get("authorization"), scope)
            return request.state.caller  # type: ignore[no-any-return]

        return local if self._tokens is None else with_token


def _caller(token: Token) -> Caller:
    return Caller(token.name, token.scopes, token.team, token.id)
