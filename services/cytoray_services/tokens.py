"""API tokens: who may ask the service for what.

A token is ``cyt_``, the number that it is found by, and a secret of 256 random bits. The file keeps its SHA-256 alone,
which is enough for secrets that nobody can guess; whoever reads the file learns no token. Only the owner may read it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import hmac
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from cytoray_analysis.errors import InputError, MissingFileError, PlatformError, RequestError
from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

Scope = Literal["predict", "submit", "administer"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PREFIX = "cyt"
_LONGEST = 200
# What the digest of a token that nobody has is compared with, so that this takes as long as any other.
_NOBODY = hashlib.sha256(b"").hexdigest()

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
# Also a label of Kubernetes.
Team = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


class Token(BaseModel):
    """What is kept of a token.

    Parameters
    ----------
    id
        What it is found by.
    name
        Who has it; while a token is being replaced, two have the same name.
    scopes
        What it allows: ``predict`` (ask models), ``submit`` (start jobs), ``administer`` (everything).
    team
        Whose jobs it may see and whose quota it uses up; None for somebody of no team.
    digest
        SHA-256 of the token, hexadecimal.
    created, expires
        From when until when it is valid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    name: Name
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    team: Team | None = None
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime
    expires: AwareDatetime

    def allows(self, scope: Scope) -> bool:
        """Whether a scope is among those of the token; who administers may do everything."""
        return scope in self.scopes or "administer" in self.scopes

    def valid(self, now: datetime) -> bool:
        """Whether it has not expired."""
        return now < self.expires


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    tokens: tuple[Token, ...] = ()


def tokens_path(settings: Settings) -> Path:
    """Return where tokens are kept when nobody says otherwise."""
    return settings.home / "tokens.json"


class TokenFile:
    """The tokens of a running service: read again when the file changes, so that no restart is needed.

    Parameters
    ----------
    path
        The file. When it is damaged or goes away later, the last tokens read stay valid and the log says so.

    Raises
    ------
    MissingFileError
        There is no such file.
    RequestError
        It holds something else.
    PlatformError
        It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = _state(path)
        self._tokens = {token.id: token for token in read_tokens(path)}

    def find(self, text: str, *, now: datetime | None = None) -> Token | None:
        """Return the valid token that a caller shows, or None; how long this takes says nothing about the secret."""
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
            log.info("%d tokens read from %s", len(self._tokens), self._path)
        except (InputError, PlatformError) as error:
            if self._state is not None:
                log.error("%s; the %d tokens read before stay valid", error, len(self._tokens))
            self._state = None if isinstance(error, MissingFileError) else self._state


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read a file of tokens.

    Raises
    ------
    MissingFileError
        There is no such file.
    RequestError
        It holds something else.
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
            f"expected a file of tokens, {path} is damaged at {place or 'the top'}: {first['msg']}",
            field="tokens",
            hint="restore it, or move it away and make new tokens with cytoray tokens create",
        ) from error


def create_token(
    path: Path,
    name: str,
    scopes: tuple[Scope, ...],
    *,
    days: int,
    team: str | None = None,
    now: datetime | None = None,
) -> tuple[str, Token]:
    """Make a token and add it to the file, which is made when there is none.

    Returns
    -------
    str
        The token, which is not kept anywhere.
    Token
        What is kept of it.

    Raises
    ------
    RequestError
        There is a valid token of that name, or no such scope.
    """
    _require_scopes(scopes)
    now = now or _now()
    with _changing(path) as tokens:
        if any(token.name == name and token.valid(now) for token in tokens):
            raise RequestError(
                f"expected a name that no valid token has, got {name!r}",
                field="name",
                hint="replace its secret with cytoray tokens rotate, or choose another name",
            )
        text, token = _new(name, scopes, team, now, now + timedelta(days=days))
        tokens[:] = [*(one for one in tokens if one.name != name), token]
    return text, token


def rotate_token(
    path: Path, name: str, *, grace: timedelta, days: int | None = None, now: datetime | None = None
) -> tuple[str, Token]:
    """Give a name a new token with the same scopes and team; the old one stays valid for a while.

    Parameters
    ----------
    grace
        How long the old token stays valid.
    days
        How long the new one is; None for as long as the old one was made for.

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


def _require_scopes(scopes: tuple[str, ...]) -> None:
    known = ", ".join(SCOPES)
    if not scopes:
        raise RequestError(f"expected one or more of the scopes {known}, got none", field="scope")
    for scope in scopes:
        if scope not in SCOPES:
            close = get_close_matches(scope, SCOPES, n=1)
            raise RequestError(
                f"expected the scopes {known}, got {scope!r}",
                field="scope",
                hint=f"did you mean {close[0]!r}?"
                if close
                else "repeat --scope for several: --scope predict --scope submit",
            )


def _new(name: str, scopes: tuple[Scope, ...], team: str | None, now: datetime, expires: datetime) -> tuple[str, Token]:
    number = secrets.token_hex(6)
    text = f"{_PREFIX}_{number}_{secrets.token_urlsafe(32)}"
    ordered = tuple(scope for scope in SCOPES if scope in scopes)
    token = Token(id=number, name=name, scopes=ordered, team=team, digest=_digest(text), created=now, expires=expires)
    return text, token


def _require(path: Path, name: str) -> None:
    """Refuse to change a file of tokens that is not there, before anything is made beside it."""
    if not path.exists():
        raise RequestError(
            f"expected the name of a token, got {name!r}; there are no tokens in {path}, which does not exist",
            field="name",
            hint="name the file with --file, or make a token: cytoray tokens create NAME",
        )


def _newest(tokens: list[Token], name: str) -> Token:
    found = [token for token in tokens if token.name == name]
    if not found:
        names = ", ".join(sorted({token.name for token in tokens})) or "none at all"
        raise RequestError(f"expected the name of a token ({names}), got {name!r}", field="name")
    return max(found, key=lambda token: token.created)


@contextmanager
def _changing(path: Path) -> Iterator[list[Token]]:
    """Give the tokens to be changed in place, and write them when all went well; others wait meanwhile."""
    with _reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_name(f".{path.name}.lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tokens = list(read_tokens(path)) if path.exists() else []
        yield tokens
        with _reported(path):
            _write(path, _Document(tokens=tuple(tokens)).model_dump_json(indent=2) + "\n")
    finally:
        os.close(lock)


def _write(path: Path, content: str) -> None:
    """Replace the file; where the disk is full, over the old content if that is longer: revoking needs no space."""
    try:
        _write_private(path, content)
    except OSError as error:
        whole = content.encode()
        spare = (path.stat().st_size if path.exists() else 0) - len(whole)
        if error.errno not in _FULL or spare < 0:
            raise
        with path.open("r+b") as file:
            file.write(whole + b" " * spare)  # of the same length, so that no block is given back or asked for
            file.flush()
            os.fsync(file.fileno())


def _write_private(path: Path, content: str) -> None:
    """Replace a file at once by one that only its owner may read, at no time anybody else."""
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(
            f"there are no tokens: {path} does not exist",
            field="tokens",
            hint="make one with cytoray tokens create NAME --scope predict",
        ) from error
    except OSError as error:
        raise PlatformError(f"the tokens in {path} cannot be used: {error.strerror}", field="tokens") from error


def _state(path: Path) -> Any:
    """Return what differs after a file was changed or replaced."""
    with _reported(path):
        found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _now() -> datetime:
    return datetime.now(UTC)
