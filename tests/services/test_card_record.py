"""What a registry knows of a version goes along in the head of its model card."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_services.registry.card_record import VersionRecord, record_of, with_record, without_record

RECORD = VersionRecord(
    reference="nuclei/3", metrics={"ap": 0.75, "f1: Zelle µ": 0.5}, tags={"data.train": "d1"}, recipe="model:\n  a: 1\n"
)
names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
records = st.builds(
    VersionRecord,
    reference=st.sampled_from(["", "nuclei/3"]),
    metrics=st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    tags=st.dictionaries(names.map(lambda name: f"data.{name}"), names, max_size=4),
    recipe=st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), max_size=60),
)


@pytest.mark.slow
@given(records, st.sampled_from(["# nuclei\n\ntext\n", "", "no heading", "---\nonly a line\n", "a\n---\nb\n---\n"]))
def test_a_record_comes_back_and_leaves_the_card_as_it_was(record: VersionRecord, card: str) -> None:
    written = with_record(card, record)
    assert record_of(written) == record
    assert without_record(written) == card


def test_a_newer_record_replaces_the_older_one_and_other_fields_of_the_head_stay() -> None:
    card = "---\nlicense: mit\n---\n\n# nuclei\n"
    twice = with_record(with_record(card, RECORD), VersionRecord(metrics={"ap": 0.1}))
    assert "license: mit" in twice
    assert record_of(twice) == VersionRecord(metrics={"ap": 0.1})
    assert without_record(twice) == "# nuclei\n"


def test_facts_that_each_registry_must_know_itself_do_not_go_along() -> None:
    tags = {"import.code_allowed_by": "mallory@host", "metric.ap": "1.0", "digest": "0", "task": "x", "recipe": "abc"}
    assert record_of(with_record("", VersionRecord(tags=tags))).tags == {"recipe": "abc"}
    forged = VersionRecord(tags=tags)
    assert forged.carried == {"recipe": "abc"}


@pytest.mark.parametrize(
    "head",
    [
        "cytoray: {metrics: {ap: high}}",
        "cytoray: {metrics: [1]}",
        "cytoray: 1",
        "cytoray: {metrics: {ap: .nan}}",
        "cytoray: {ap: 1}\ncytoray: {ap: 2}",
        "cytoray: [",
        f"cytoray: {{tags: {{a: {'x' * 6000}}}}}",
    ],
)
def test_a_head_that_cannot_be_read_costs_the_record_with_a_warning(
    head: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert record_of(f"---\n{head}\n---\n\n# nuclei\n") == VersionRecord()
    assert "model card" in caplog.text


def test_a_card_without_a_head_has_an_empty_record() -> None:
    assert record_of("# nuclei\n") == VersionRecord()
