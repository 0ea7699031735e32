"""Who may ask for what: tokens at the door of the service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cytoray_analysis.errors import ForbiddenError, UnauthorizedError
from cytoray_services.tokens import SCOPES, Scope, Token, TokenFile

# It declares the scheme in the OpenAPI document; Access.check reads the header, here as for gRPC.
_BEARER = HTTPBearer(
    auto_error=False, scheme_name="Token", bearerFormat="cyt_…", description="A token of cytoray tokens create."
)


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes
    ----------
    name
        The token's name; ``local`` where no tokens are asked for.
    scopes
        What the token allows.
    team
        Whose jobs it may see, and whose quota it uses up.
    token
        Number of the token; None where no tokens are asked for.
    """

    name: str
    scopes: tuple[Scope, ...]
    team: str | None = None
    token: str | None = None

    @property
    def administers(self) -> bool:
        """Whether the caller may do everything, for every team."""
        return "administer" in self.scopes


class Access:
    """Decides by tokens.

    Parameters
    ----------
    tokens
        The tokens; None lets everybody do everything, which is for a machine that nobody else can reach.
    """

    def __init__(self, tokens: TokenFile | None) -> None:
        self._tokens = tokens

    def known(self, authorization: str | None) -> None:
        """Refuse who has no valid token, whatever a token may allow.

        Raises
        ------
        UnauthorizedError
            There is no token, or it is unknown, revoked or expired.
        """
        if self._tokens is not None:
            self._token(authorization, self._tokens)

    def check(self, authorization: str | None, scope: Scope) -> Caller:
        """Return who asks.

        Parameters
        ----------
        authorization
            The header, or the gRPC metadata, of that name: ``Bearer cyt_…``.
        scope
            What is asked for.

        Raises
        ------
        UnauthorizedError
            There is no token, or it is unknown, revoked or expired.
        ForbiddenError
            The token does not allow this.
        """
        if self._tokens is None:
            return Caller("local", SCOPES)
        token = self._token(authorization, self._tokens)
        if not token.allows(scope):
            raise ForbiddenError(
                f"expected a token with the scope {scope}, got {', '.join(token.scopes)}",
                field="Authorization",
                hint="ask the operator for a token with that scope",
            )
        return Caller(token.name, token.scopes, token.team, token.id)

    @staticmethod
    def _token(authorization: str | None, tokens: TokenFile) -> Token:
        kind, _, text = (authorization or "").strip().partition(" ")
        if kind.lower() != "bearer" or not text:
            raise UnauthorizedError(
                "expected a token, got none"
                if not authorization
                else "expected the header Authorization: Bearer TOKEN",
                field="Authorization",
                hint="send the header Authorization: Bearer cyt_…; cytoray tokens create makes tokens",
            )
        token = tokens.find(text.strip())
        if token is None:
            raise UnauthorizedError(
                "expected a valid token, got one that is unknown, revoked or expired",
                field="Authorization",
                hint="ask the operator for a new one",
            )
        return token

    def require(self, scope: Scope) -> Callable[..., Awaitable[Caller]]:
        """Return the FastAPI dependency that lets only callers with a scope pass.

        It runs before the body is read, gives the :class:`Caller`, and leaves it in ``request.state.caller``.
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
