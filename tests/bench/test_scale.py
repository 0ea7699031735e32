"""docs/scale.md says what follows from its inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scale import PAGE, PARTS, Inputs, bottlenecks, fleets, gateways, read_inputs, table, written


@pytest.fixture
def inputs() -> Inputs:
    return read_inputs()


@pytest.mark.parametrize("part", PARTS)
def test_the_page_is_what_its_inputs_give(part: str, inputs: Inputs) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert written(text, part, PARTS[part](inputs)) == text, "run python tests/bench/scale.py"


def test_a_fleet_keeps_up_and_a_replica_fewer_does_not(inputs: Inputs) -> None:
    for fleet in fleets(inputs):
        assert fleet.replicas * fleet.rate * inputs.busy_share >= inputs.rate
        assert (fleet.replicas - 1) * fleet.rate * inputs.busy_share < inputs.rate


def test_twice_the_images_cost_about_twice(inputs: Inputs) -> None:
    for one, twice in zip(fleets(inputs), fleets(replace(inputs, images=2 * inputs.images)), strict=True):
        assert 1.5 * one.dollars <= twice.dollars <= 2 * one.dollars
    assert gateways(replace(inputs, images=2 * inputs.images)) <= 2 * gateways(inputs)


def test_the_first_bottleneck_comes_first(inputs: Inputs) -> None:
    limits = [int(line.split("|")[2].replace(",", "")) for line in bottlenecks(inputs).splitlines()[2:]]
    assert limits == sorted(limits)


@pytest.mark.parametrize("change", [("| `hours` |", "| `minutes` |"), ("| `hours` |", "| `images` |")])
def test_a_table_that_lacks_an_input_is_refused(change: tuple[str, str]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"differs from Inputs.*hours"):
        read_inputs(text.replace(*change))


def test_numbers_may_have_commas() -> None:
    assert read_inputs().images == 1_000_000


def test_a_part_is_replaced_and_nothing_else() -> None:
    page = "a\n<!-- x: start -->\nold\n<!-- x: end -->\nb\n"
    assert written(page, "x", table(["k", "v"], [["1", "2"]])) == (
        "a\n<!-- x: start -->\n| k | v |\n|---|---:|\n| 1 | 2 |\n<!-- x: end -->\nb\n"
    )
