"""What MLflow said the last time, kept in files, so that a service can start while MLflow is away."""

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


class Known:
    """Answers by question, one file each.

    Parameters
    ----------
    folder
        Made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, bytes] = {}
        self._unanswered: set[str] = set()

    def ask(self, question: str, form: type[Said], ask: Callable[[], Said]) -> tuple[Said, bool]:
        """Ask, and remember the answer; where nobody answers, take what was remembered.

        Returns
        -------
        answer
            A dataclass of the type `form`.
        stale
            Whether it was remembered.

        Raises
        ------
        PlatformError
            Nobody answers, and nothing is remembered.
        """
        adapter, path = TypeAdapter(form), self._path(question)
        try:
            answer = ask()
        except PlatformError as error:
            remembered = _read(path, adapter)
            if remembered is None:
                raise
            if question not in self._unanswered:  # once per outage, for it is asked every second or two
                logger.warning("%s; going on with what was known of %s", error.message, question)
            self._unanswered.add(question)
            return remembered, True
        self._unanswered.discard(question)
        content = adapter.dump_json(answer)
        if self._written.get(question) != content:
            self._written[question] = content
            try:
                write_whole(path, content)
            except OSError as error:  # a full disk is no reason not to answer
                logger.warning("cannot keep what is known of %s: %s", question, error)
        return answer, False

    def remembered(self, question: str, form: type[Said]) -> Said | None:
        """Return the last answer without asking; None where there is none."""
        return _read(self._path(question), TypeAdapter(form))

    def _path(self, question: str) -> Path:
        return self._folder / f"{quote(question, safe='@')}.json"


def _read(path: Path, adapter: TypeAdapter[Said]) -> Said | None:
    """Return what a file holds; None where there is none, or one that another release of Cytoray wrote."""
    try:
        return adapter.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        logger.warning("%s holds nothing that this release understands: %s", path, error)
        return None
