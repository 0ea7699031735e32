"""YAML is plain data, and no key of it is silently dropped."""

import time

import pytest
import yaml

from cytoray_analysis.plain_yaml import load_yaml


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n",
        "x: {b: 1, 'b': 1}",
        "- {a: 1}\n- a: {c: 1, d: 2, c: 3}",
        "base: &base {a: 1, a: 2}\nx: {<<: *base}",
    ],
)
def test_a_key_that_is_written_twice_is_named_with_its_line(text: str) -> None:
    with pytest.raises(yaml.YAMLError, match=r"(?s)twice.*line"):
        load_yaml(text)


@pytest.mark.parametrize(
    "text",
    [
        "a: {x: 1}\nb: {x: 2}\n",
        "base: &base {a: 1, b: 1}\nx: {<<: *base, a: 2}\ny: {a: 3, <<: *base}\nz: {<<: [*base, {c: 1}]}\n",
        "1: a\n'1': b\n",
        "a: [1, 2]\n",
        "",
        "- 1\n- text\n",
    ],
)
def test_everything_else_is_read_as_before(text: str) -> None:
    assert load_yaml(text) == yaml.safe_load(text)


def test_nothing_but_data_is_built() -> None:
    with pytest.raises(yaml.YAMLError):
        load_yaml("!!python/object/apply:os.getcwd []")


def bomb(levels: int = 9) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 10)}]" for at in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (bomb(), "values"),
        ("&a [*a]", "values"),
        ("a: &a {b: *a}", "values"),
        ("[" * 2000, "brackets"),
        ("{a: " * 500 + "}" * 500, "brackets"),
        ("".join(" " * at + "a:\n" for at in range(400)), "levels"),
        ("a: 2026-13-45", "read"),
        ("a: " + "9" * 5000, "read"),
        ("a: 2026-01-01 25:61:61", "read"),
    ],
)
def test_what_unfolds_beyond_all_use_is_refused_at_once(text: str, says: str) -> None:
    began = time.perf_counter()
    with pytest.raises(yaml.YAMLError, match=says) as caught:
        load_yaml(text)
    assert time.perf_counter() - began < 2
    assert len(str(caught.value)) < 1000


def test_anchors_within_limits_are_read() -> None:
    assert load_yaml(bomb(4))["a3"][9][9][9] == ["x"] * 10
