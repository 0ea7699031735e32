"""YAML as plain data, within limits.

A key that is written twice is an error, where PyYAML would silently keep the second value. A few hundred bytes with
anchors (``&a``, ``*a``) can stand for billions of values, and deep nesting takes the parser seconds: both are refused.
"""

from __future__ import annotations

from typing import Any

import yaml

_MERGE = "tag:yaml.org,2002:merge"
_DEEPEST = 60
_MOST_VALUES = 100_000  # with what anchors stand for written out


class _Loader(yaml.SafeLoader):
    """Plain data only, and every key once."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[yaml.Node] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Check the keys as written, before merged keys (``<<``) are added."""
        if node not in self._checked:
            self._checked.add(node)
            _refuse_twice(node)
        super().flatten_mapping(node)


def load_yaml(text: str) -> Any:
    """Read one document.

    Raises
    ------
    yaml.YAMLError
        It is not YAML, contains more than plain data, has a key twice, or is nested or expands too much; the message
        names line and column where there is one.
    """
    _refuse_deep(text)
    loader = _Loader(text)
    try:
        content = loader.get_single_data()
    except ValueError as error:  # a date that there is none of, a number of thousands of digits
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error
    except RecursionError as error:
        raise yaml.YAMLError(f"expected at most {_DEEPEST} nested levels, got more") from error
    finally:
        loader.dispose()
    _values_in(content, {})
    return content


def _refuse_deep(text: str) -> None:
    depth = 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}" and depth > 0)
        if depth > _DEEPEST:
            raise yaml.YAMLError(f"expected at most {_DEEPEST} nested brackets, got more")


def _values_in(content: Any, known: dict[int, int | None], level: int = 0) -> int:
    """Count the values of a document as if each anchor was written out."""
    if not isinstance(content, (dict, list)):
        return 1
    if id(content) not in known:
        known[id(content)] = None  # it is being counted
        parts = content.values() if isinstance(content, dict) else content
        if level > _DEEPEST:
            raise yaml.YAMLError(f"expected at most {_DEEPEST} nested levels, got more")
        known[id(content)] = 1 + sum(_values_in(part, known, level + 1) for part in parts)
    values = known[id(content)]
    if values is None or values > _MOST_VALUES:
        raise yaml.YAMLError(f"expected at most {_MOST_VALUES} values, got more once the anchors are written out")
    return values


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
