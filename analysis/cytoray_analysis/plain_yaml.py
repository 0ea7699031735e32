"""YAML as plain data; a key that is written twice is an error, where PyYAML would silently keep the second value."""

from __future__ import annotations

from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Plain data only, and every key once."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[yaml.Node] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Look at the keys as they are written, before those that are merged (``<<``) are put beside them."""
        if node not in self._checked:
            self._checked.add(node)
            _refuse_twice(node)
        super().flatten_mapping(node)


def load_yaml(text: str) -> Any:
    """Read one document.

    Raises
    ------
    yaml.YAMLError
        It is no YAML, holds more than plain data, or has a key twice; the message names line and column.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - plain data only


def _refuse_twice(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        if (key.tag, key.value) in seen:
            raise yaml.constructor.ConstructorError(
                "while reading a mapping", node.start_mark, f"found the key {key.value!r} twice", key.start_mark
            )
        seen.add((key.tag, key.value))
