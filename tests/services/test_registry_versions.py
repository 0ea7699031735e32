from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import RequestError
from cytoray_services.registry import parse_reference
from cytoray_services.registry.versions import AliasMove, flatten, moves_from_tags, version_before


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nuclei", ("nuclei", None, None)),
        ("nuclei@champion", ("nuclei", "champion", None)),
        ("nuclei/12", ("nuclei", None, "12")),
        ("nuclei/012", ("nuclei", None, "12")),
        ("a-b_2@shadow-1", ("a-b_2", "shadow-1", None)),
    ],
)
def test_references_are_parsed(text: str, parts: tuple[str, str | None, str | None]) -> None:
    reference = parse_reference(text)
    assert (reference.name, reference.alias, reference.version) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "a@",
        "a/",
        "a/b",
        "a@b/1",
        "a/1@b",
        "../x",
        "A",
        "a b",
        "a'; drop",
        "a\n",
        "a/9999999999",
        f"a/{'9' * 5000}",
    ],
)
def test_other_texts_are_no_references(text: str) -> None:
    with pytest.raises(RequestError, match="reference") as caught:
        parse_reference(text)
    assert len(caught.value.message) < 500


@given(st.lists(st.sampled_from(["1", "2", "3", "back"]), max_size=12))
def test_rolling_back_undoes_promotions_like_a_stack(actions: list[str]) -> None:
    moves: list[AliasMove] = []
    stack: list[str] = []
    for second, action in enumerate(actions):
        current = stack[-1] if stack else None
        before = version_before(moves, "champion", current)
        assert before == (stack[-2] if len(stack) > 1 else None)
        now = datetime.fromtimestamp(second, UTC)
        if action == "back":
            if before is not None:
                moves.append(AliasMove("champion", "rollback", current, before, "me@here", now))
                stack.pop()
        elif action != current:
            moves.append(AliasMove("champion", "promote", current, action, "me@here", now))
            stack.append(action)


def test_history_survives_the_way_through_tags_in_order() -> None:
    times = [datetime(2026, 1, 1, 0, 0, second, 5, tzinfo=UTC) for second in (3, 1, 2)]
    moves = [AliasMove("champion", "promote", None, "1", "me@here", when, "why") for when in times]
    tags = dict(move.to_tag() for move in moves) | {"other": "tag"}
    assert moves_from_tags(tags) == tuple(sorted(moves, key=lambda move: move.when))


def test_two_moves_at_the_same_moment_are_both_kept() -> None:
    move = AliasMove("champion", "promote", None, "1", "me@here", datetime.now(UTC))
    assert len(dict(move.to_tag() for _ in range(8))) > 1


def test_nested_facts_become_dotted_tags() -> None:
    facts = {"a": {"b": 1, "c": {"d": "x"}}, "e": None, "f": [1, 2], "g": True}
    assert flatten(facts) == {"a.b": "1", "a.c.d": "x", "f": "[1, 2]", "g": "true"}


def test_names_of_parameters_have_only_characters_that_mlflow_accepts() -> None:
    assert flatten({"shares": {"fluo_*": 4, "H&E": 1.5}}) == {"shares.fluo__": "4", "shares.H_E": "1.5"}
