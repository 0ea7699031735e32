"""Cache of the last answers of MLflow, so that a service can start while MLflow is unreachable."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from cytoray_analysis.errors import PlatformError
from cytoray_analysis.files import write_whole

logger = logging.getLogger(__name__)

Said = TypeVar("Said")


class OfflineCache:
    """Cached answers by question, one file each.

    Parameters
    ----------
    folder
        Created if needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, bytes] = {}
        self._unanswered: set[str] = set()

    def ask(self, question: str, form: type[Said], ask: Callable[[], Said]) -> tuple[Said, bool]:
        """Ask, and cache the answer; without an answer, return the cached one.

        Returns
        -------
        answer
            A dataclass of the type `form`.
        stale
            Whether it is the cached one.

        Raises
        ------
        PlatformError
            MLflow does not answer, and no answer is cached.
        """
        adapter, path = TypeAdapter(form), self._path(question)
        try:
            answer = ask()
        except PlatformError as error:
            remembered = _read(path, adapter)
            if remembered is None:
                raise
            if question not in self._unanswered:  # once per outage, because it is asked every second or two
                logger.warning("%s; using the cached answer for %s", error.message, question)
            self._unanswered.add(question)
            return remembered, True
        self._unanswered.discard(question)
        content = adapter.dump_json(answer)
        if self._written.get(question) != content:
            self._written[question] = content
            try:
                write_whole(path, content)
            except OSError as error:  # a full disk is no reason not to answer
                logger.warning("cannot cache the answer for %s: %s", question, error)
        return answer, False

    def remembered(self, question: str, form: type[Said]) -> Said | None:
        """Return the cached answer without asking; None without one."""
        return _read(self._path(question), TypeAdapter(form))

    def _path(self, question: str) -> Path:
        return self._folder / f"{quote(question, safe='@')}.json"


def _read(path: Path, adapter: TypeAdapter[Said]) -> Said | None:
    """Return the content of a file; None if it does not exist or is of another release of Cytoray."""
    try:
        return adapter.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        logger.warning("ignoring %s, which this release cannot read: %s", path, error)
        return None
