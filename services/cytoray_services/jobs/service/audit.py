"""The audit trail: who did what, one JSON line each, on disk before the response is sent.

Each line contains the digest of the previous line and its own, so that no line can be changed, removed, inserted or
moved without rewriting all following lines. A copy of the last digest elsewhere, as in the log of the service, detects
this as well.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from cytoray_analysis.errors import MissingFileError, OverloadedError, PlatformError, RequestError

log = logging.getLogger(__name__)

BEGINNING = "0" * 64
_LONGEST_LINE = 2**20

What = Literal["submit", "stop"]
Outcome = Literal["begun", "done", "refused", "failed"]


class Act(BaseModel):
    """An act, or an attempt.

    Attributes
    ----------
    when
        In UTC.
    who, token
        Name and number of the token; None without a valid token.
    team
        Team of the job.
    address
        Address of the caller.
    what
        ``submit`` or ``stop``.
    job
        ID of the job; None if there is none.
    recipe
        SHA-256 of the recipe as sent.
    outcome
        ``begun`` before the act, then ``done`` or ``failed``; ``refused`` if nothing was done.
    reason
        Why it was refused or failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: AwareDatetime
    who: str | None
    token: str | None = None
    team: str | None = None
    address: str | None
    what: What
    job: str | None = None
    recipe: str | None = None
    outcome: Outcome
    reason: str | None = None


class Line(Act):
    """An act with its position in the trail.

    Attributes
    ----------
    previous
        Digest of the previous line.
    digest
        SHA-256 of the other fields, from :func:`digest_of`.
    """

    previous: str
    digest: str


class Audit:
    """Appends to a trail, also from several processes.

    Parameters
    ----------
    path
        The file; created with the first line, also after it was moved away.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, act: Act) -> Line:
        """Write an act, and return when it is on disk.

        Raises
        ------
        PlatformError
            It cannot be written, or the last line was changed.
        """
        try:
            line = self._append(act)
        except RequestError as error:
            raise PlatformError(error.message, hint=error.hint) from error
        except OSError as error:
            raise PlatformError(
                f"the audit trail {self._path} cannot be written: {error.strerror}",
                hint="nothing was done; report this to the operator of the service",
            ) from error
        log.info("audit: %s %s by %s: %s, digest %s", act.what, act.job, act.who, act.outcome, line.digest)
        return line

    def _append(self, act: Act) -> Line:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            previous = self._last_digest(descriptor, size)
            line = Line(**act.model_dump(), previous=previous, digest=digest_of(act, previous))
            content = line.model_dump_json().encode() + b"\n"
            try:
                if os.write(descriptor, content) != len(content):
                    raise OSError(28, "no space is left on the disk")
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # half a line would count as a changed line
                raise
        finally:
            os.close(descriptor)
        return line

    def _last_digest(self, descriptor: int, size: int) -> str:
        if size == 0:
            return BEGINNING
        start = max(0, size - _LONGEST_LINE)
        lines = os.pread(descriptor, size - start, start).splitlines(keepends=True)
        return _parse(lines[-1], self._path, "the last line").digest


class Refusals:
    """Limits refusals in the trail per minute, for each token, and for all requests without a valid token together.

    Otherwise refused requests could fill the disk. Refusals above the limit are counted, and the next recorded one
    contains their number.
    """

    def __init__(self, a_minute: int = 10) -> None:
        self._most = a_minute
        self._minutes: dict[str | None, tuple[datetime, int, int]] = {}

    def admit(self, act: Act) -> Act | None:
        """Return the act to record; None for a refusal that is only counted."""
        if act.outcome != "refused":
            return act
        began, written, left_out = self._minutes.get(act.token, (act.when, 0, 0))
        if (act.when - began).total_seconds() >= 60:
            began, written = act.when, 0
        if written >= self._most:
            self._minutes[act.token] = (began, written, left_out + 1)
            return None
        self._minutes[act.token] = (began, written + 1, 0)
        if not left_out:
            return act
        return act.model_copy(
            update={"reason": f"{act.reason or ''} (after {left_out} more that were refused)".strip()}
        )


class Beginnings:
    """Limits acts of one caller per minute, because each adds two lines to the trail."""

    def __init__(self, a_minute: int) -> None:
        self._most = a_minute
        self._began: dict[str, deque[float]] = {}

    def admit(self, who: str) -> None:
        """Count an act of a caller.

        Raises
        ------
        OverloadedError
            The limit per minute is reached.
        """
        began, now = self._began.setdefault(who, deque(maxlen=self._most)), time.monotonic()
        if len(began) == self._most and now - began[0] < 60:
            raise OverloadedError(
                f"expected at most {self._most} acts per minute of the caller {who}, got one more",
                hint="wait a minute",
            )
        began.append(now)


def digest_of(act: Act, previous: str) -> str:
    """Return the digest of a line: SHA-256 of the previous digest and of the act as JSON with sorted keys."""
    facts = {name: value for name, value in act.model_dump(mode="json").items() if name in Act.model_fields}
    content = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


def read_audit(path: Path) -> list[Line]:
    """Read a whole trail, and verify that it is unchanged.

    Raises
    ------
    MissingFileError
        The file does not exist.
    RequestError
        A line was changed, removed, inserted or moved; the message names the first wrong line.
    """
    if not path.is_file():
        raise MissingFileError(f"there is no audit trail at {path}", field="FILE", hint="check the path")
    previous, lines = BEGINNING, []
    for number, content in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        line = _parse(content, path, f"line {number}")
        if line.previous != previous:
            raise _changed(path, f"line {number}", "it does not follow the previous line")
        previous = line.digest
        lines.append(line)
    return lines


def now() -> datetime:
    """Return the current time in the form of the trail."""
    return datetime.now(UTC)


def _parse(content: bytes, path: Path, where: str) -> Line:
    try:
        line = Line.model_validate_json(content)
    except ValidationError as error:
        raise _changed(path, where, "it is not a line of a trail") from error
    # Byte by byte, because JSON has several forms of the same data.
    if line.digest != digest_of(line, line.previous) or content != line.model_dump_json().encode() + b"\n":
        raise _changed(path, where, "its content does not match its digest")
    return line


def _changed(path: Path, where: str, why: str) -> RequestError:
    return RequestError(
        f"the audit trail {path} was changed at {where}: {why}",
        field="audit",
        hint="keep the file as evidence and move it away; a new trail begins with the next act",
    )
