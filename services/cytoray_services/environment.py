"""Temporary environment variables, for libraries without another option."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping

_lent: Counter[str] = Counter()
_lending = threading.Lock()


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables inside the context, even if the user has set them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def default_environment(**variables: str) -> Iterator[None]:
    """Set variables inside the context, unless the user has set them.

    Contexts of several threads may overlap: the last one to exit removes a variable.
    """
    with _lending:
        mine = [name for name in variables if _lent[name] or name not in os.environ]
        os.environ.update({name: variables[name] for name in mine if not _lent[name]})
        _lent.update(mine)
    try:
        yield
    finally:
        with _lending:
            _lent.subtract(mine)
            for name in mine:
                if not _lent[name]:
                    os.environ.pop(name, None)
