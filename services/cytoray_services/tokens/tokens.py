"""API tokens and their scopes.

A token is ``cyt_``, an ID, and a secret of 256 random bits. The file stores only its SHA-256, which is sufficient for
secrets that cannot be guessed; a reader of the file learns no token. Only the owner can read the file.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from cytoray_analysis.errors import InputError, MissingFileError, PlatformError, RequestError
from cytoray_analysis.files import write_whole
from cytoray_services.locks import locked
from cytoray_services.settings import Settings
from cytoray_services.tokens.scopes import Grant, Scope, Team, ordered, require_grants, scope_of

log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PREFIX = "cyt"
_LONGEST = 200
# An unknown token is compared with this digest, so that it takes as long as a known one.
_NOBODY = hashlib.sha256(b"").hexdigest()

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Token(BaseModel):
    """The stored form of a token.

    Parameters
    ----------
    id
        The ID in the token.
    name
        Its owner; during a rotation, two tokens have the same name.
    scopes
        What it allows, see :mod:`cytoray_services.tokens.scopes`.
    team
        The team whose jobs, quota and storage locations it uses; None for no team.
    digest
        SHA-256 of the token, hexadecimal.
    created, expires
        Its period of validity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    name: Name
    scopes: Annotated[tuple[Grant, ...], Field(min_length=1)]
    team: Team | None = None
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime

    def allows(self, scope: Scope) -> bool:
        """Whether the token has a scope, with any limit; ``administer`` includes all scopes."""
        return bool({scope, "administer"} & {scope_of(grant) for grant in self.scopes})

    def valid(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return now < self.expires


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    tokens: tuple[Token, ...] = ()


def tokens_path(settings: Settings) -> Path:
    """Return the default path of the token file."""
    return settings.home / "tokens.json"


class TokenFile:
    """The tokens of a running service; it reads the file again after a change, without a restart.

    Parameters
    ----------
    path
        The file. If it is damaged or removed later, the last tokens stay valid and an error is logged.

    Raises
    ------
    MissingFileError
        There is no such file.
    RequestError
        It contains something else.
    PlatformError
        It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _state(path)
        self._tokens = {token.id: token for token in read_tokens(path)}

    def find(self, text: str, *, now: datetime | None = None) -> Token | None:
        """Return the valid token of a caller, or None, in a time that does not depend on the secret."""
        self._refresh()
        prefix, _, rest = text.partition("_")
        token = self._tokens.get(rest.partition("_")[0]) if prefix == _PREFIX and len(text) <= _LONGEST else None
        same = hmac.compare_digest(_digest(text), _NOBODY if token is None else token.digest)
        return token if same and token is not None and token.valid(now or _now()) else None

    def _refresh(self) -> None:
        try:
            state = _state(self._path)
            if state == self._state:
                return
            self._state = state
            self._tokens = {token.id: token for token in read_tokens(self._path)}
            log.info("read %d tokens from %s", len(self._tokens), self._path)
        except (InputError, PlatformError) as error:
            if self._state is not None:
                log.error("%s; the %d tokens that were read before stay valid", error, len(self._tokens))
            self._state = None if isinstance(error, MissingFileError) else self._state


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read a file of tokens.

    Raises
    ------
    MissingFileError
        There is no such file.
    RequestError
        It contains something else.
    PlatformError
        It cannot be read.
    """
    with _reported(path):
        content = path.read_bytes()
    try:
        return _Document.model_validate_json(content).tokens
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RequestError(
            f"expected a token file, {path} is damaged at {place or 'the top'}: {first['msg']}",
            field="tokens",
            hint="restore it, or move it away and create new tokens with cytoray tokens create",
        ) from error


def create_token(
    path: Path,
    name: str,
    scopes: tuple[str, ...],
    *,
    days: int,
    team: str | None = None,
    now: datetime | None = None,
) -> tuple[str, Token]:
    """Create a token and add it to the file, which is created if needed.

    Returns
    -------
    str
        The token, which is not stored.
    Token
        Its stored form.

    Raises
    ------
    RequestError
        A valid token has this name, or a scope is invalid.
    """
    require_grants(scopes)
    now = now or _now()
    with _changing(path) as tokens:
        if any(token.name == name and token.valid(now) for token in tokens):
            raise RequestError(
                f"expected a new name, got {name!r}, which a valid token has",
                field="name",
                hint="replace its secret with cytoray tokens rotate, or choose another name",
            )
        text, token = _new(name, scopes, team, now, now + timedelta(days=days))
        tokens[:] = [*(one for one in tokens if one.name != name), token]
    return text, token


def rotate_token(
    path: Path, name: str, *, grace: timedelta, days: int | None = None, now: datetime | None = None
) -> tuple[str, Token]:
    """Create a new token with the same name, scopes and team; the old one stays valid for a while.

    Parameters
    ----------
    grace
        How long the old token stays valid.
    days
        How long the new token is valid; None for the lifetime of the old one.

    Raises
    ------
    RequestError
        There is no token of that name.
    """
    now = now or _now()
    _require(path, name)
    with _changing(path) as tokens:
        old = _newest(tokens, name)
        lifetime = old.expires - old.created if days is None else timedelta(days=days)
        text, token = _new(name, old.scopes, old.team, now, now + lifetime)
        ending = old.model_copy(update={"expires": min(old.expires, now + grace)})
        tokens[:] = [*(one for one in tokens if one.name != name), ending, token]
    return text, token


def revoke_token(path: Path, name: str) -> None:
    """Remove all tokens of a name.

    Raises
    ------
    RequestError
        There is none.
    """
    _require(path, name)
    with _changing(path) as tokens:
        _newest(tokens, name)
        tokens[:] = [token for token in tokens if token.name != name]


def _new(name: str, scopes: tuple[str, ...], team: str | None, now: datetime, expires: datetime) -> tuple[str, Token]:
    number = secrets.token_hex(6)
    text = f"{_PREFIX}_{number}_{secrets.token_urlsafe(32)}"
    token = Token(
        id=number,
        name=name,
        scopes=ordered(scopes),
        team=team,
        digest=_digest(text),
        created=now,
        expires=expires,
    )
    return text, token


def _require(path: Path, name: str) -> None:
    """Raise an error if there is no token file, before a lock file is created next to it."""
    if not path.exists():
        raise RequestError(
            f"expected the name of a token, got {name!r}; the token file {path} does not exist",
            field="name",
            hint="set the file with --file, or create a token: cytoray tokens create NAME",
        )


def _newest(tokens: list[Token], name: str) -> Token:
    found = [token for token in tokens if token.name == name]
    if not found:
        names = ", ".join(sorted({token.name for token in tokens})) or "there are none"
        raise RequestError(f"expected the name of a token ({names}), got {name!r}", field="name")
    return max(found, key=lambda token: token.created)


@contextmanager
def _changing(path: Path) -> Iterator[list[Token]]:
    """Yield the tokens for changes in place, and write them if there is no error; other processes wait."""
    with ExitStack() as stack:
        with _reported(path):
            stack.enter_context(locked(path.with_name(f".{path.name}.lock")))
        tokens = list(read_tokens(path)) if path.exists() else []
        yield tokens
        with _reported(path):
            _write(path, _Document(tokens=tuple(tokens)).model_dump_json(indent=2) + "\n")


def _write(path: Path, content: str) -> None:
    """Replace the file; on a full disk, overwrite the old content if it is longer, because revoking needs no space."""
    try:
        write_whole(path, content, private=True)
    except OSError as error:
        whole = content.encode()
        spare = (path.stat().st_size if path.exists() else 0) - len(whole)
        if error.errno not in _FULL or spare < 0:
            raise
        with path.open("r+b") as file:
            file.write(whole + b" " * spare)  # of the same length, so that no block is freed or allocated
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(
            f"expected a token file, {path} does not exist",
            field="tokens",
            hint="create a token with cytoray tokens create NAME --scope predict",
        ) from error
    except OSError as error:
        raise PlatformError(f"cannot use the token file {path}: {error.strerror}", field="tokens") from error


def _state(path: Path) -> Any:
    """Return values that differ after the file is changed or replaced."""
    with _reported(path):
        found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC)
