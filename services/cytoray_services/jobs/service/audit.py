"""The audit trail: who did what, one JSON line each, on the disk before anybody is answered.

Each line carries the digest of the one before and its own, so that no line can be changed, taken out, put in or moved
unless all that follow are written anew. Whoever notes the last digest somewhere else, as the service's own log does,
notices that too.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from cytoray_analysis.errors import MissingFileError, PlatformError, RequestError

log = logging.getLogger(__name__)

BEGINNING = "0" * 64
_LONGEST_LINE = 2**20

What = Literal["submit", "stop"]
Outcome = Literal["begun", "done", "refused", "failed"]


class Act(BaseModel):
    """What somebody did, or wanted to do.

    Attributes
    ----------
    when
        In UTC.
    who, token
        Name and number of the token; None for somebody without a valid one.
    team
        Whose job it is.
    address
        Where the request came from.
    what
        ``submit`` or ``stop``.
    job
        None where it came to none.
    recipe
        SHA-256 of the recipe, as it was sent.
    outcome
        ``begun`` before anything is done, then ``done`` or ``failed``; ``refused`` where nothing was done.
    reason
        Why it was refused, or failed.
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
    """An act in its place in the trail.

    Attributes
    ----------
    previous
        Digest of the line before.
    digest
        SHA-256 of all the others, as :func:`digest_of` writes them.
    """

    previous: str
    digest: str


class Audit:
    """Appends to a trail; several processes may.

    Parameters
    ----------
    path
        The file; it is made with the first line. One that was moved away is begun anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, act: Act) -> Line:
        """Write an act, and return when it lies on the disk.

        Raises
        ------
        PlatformError
            It cannot be written, or somebody has changed the last line.
        """
        try:
            line = self._append(act)
        except RequestError as error:
            raise PlatformError(error.message, hint=error.hint) from error
        except OSError as error:
            raise PlatformError(
                f"the audit trail {self._path} cannot be written: {error.strerror}",
                hint="nothing was done; tell the operator of the service",
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
                os.ftruncate(descriptor, size)  # half a line would be taken for a changed one
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
    """Lets so many refusals of one token a minute into the trail, and of all without a valid one together.

    Refused requests could otherwise fill the disk. The others are counted, and the next that is written
    down says how many there were.
    """

    def __init__(self, a_minute: int = 10) -> None:
        self._most = a_minute
        self._minutes: dict[str | None, tuple[datetime, int, int]] = {}

    def admit(self, act: Act) -> Act | None:
        """Return what is written of an act; None for a refusal that is only counted."""
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


def digest_of(act: Act, previous: str) -> str:
    """Return the digest of a line: SHA-256 of the digest before it and of the act as JSON, keys in order."""
    told = {name: value for name, value in act.model_dump(mode="json").items() if name in Act.model_fields}
    content = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(f"{previous}\n{content}".encode()).hexdigest()


def read_audit(path: Path) -> list[Line]:
    """Read a whole trail, and make sure that nobody has changed it.

    Raises
    ------
    MissingFileError
        There is no such file.
    RequestError
        A line was changed, taken out, put in or moved; the message names the first that does not fit.
    """
    if not path.is_file():
        raise MissingFileError(f"there is no audit trail at {path}", field="FILE", hint="check the path")
    previous, lines = BEGINNING, []
    for number, content in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        line = _parse(content, path, f"line {number}")
        if line.previous != previous:
            raise _changed(path, f"line {number}", "it does not follow the one before")
        previous = line.digest
        lines.append(line)
    return lines


def now() -> datetime:
    """Return the time, as the trail has it."""
    return datetime.now(UTC)


def _parse(content: bytes, path: Path, where: str) -> Line:
    try:
        line = Line.model_validate_json(content)
    except ValidationError as error:
        raise _changed(path, where, "it is no line of a trail") from error
    # Byte by byte, since JSON can say the same in several ways.
    if line.digest != digest_of(line, line.previous) or content != line.model_dump_json().encode() + b"\n":
        raise _changed(path, where, "it is not what was written")
    return line


def _changed(path: Path, where: str, why: str) -> RequestError:
    return RequestError(
        f"the audit trail {path} was changed at {where}: {why}",
        field="audit",
        hint="keep the file as evidence and move it away; a new trail begins with the next act",
    )
