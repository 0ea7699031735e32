import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import NotAcceptableError, RequestError
from cytoray_analysis.kinds import TruthKind
from cytoray_serving.answers import choose_form, form_named, forms_of, media_types

KINDS: tuple[TruthKind, ...] = ("labels", "image", "class", "lineage")


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        (None, "tif"),
        ("", "tif"),
        ("*/*", "tif"),
        ("image/*", "tif"),
        ("image/tiff", "tif"),
        ("IMAGE/TIFF", "tif"),
        ("application/json", "json"),
        ("application/*", "json"),
        ("application/geo+json", "geojson"),
        ("image/png", "overlay"),
        ("image/png;content=labels", "png"),
        ('image/png; content="labels"', "png"),
        ("application/json;q=0.5, application/geo+json", "geojson"),
        ("application/json;q=0.5, application/geo+json;q=0.4", "json"),
        ("text/html, application/xhtml+xml, image/avif, image/png;q=0.9, */*;q=0.1", "overlay"),
        ("*/*, image/tiff;q=0", "json"),
        ("image/*;q=0.8, image/png;q=0.1", "tif"),
        ("text/html, */*;q=0.01", "tif"),
    ],
)
def test_accept_chooses_the_form_that_is_liked_best(accept: str | None, name: str) -> None:
    assert choose_form(accept, "labels").name == name


@pytest.mark.parametrize("accept", ["text/html", "image/tiff;q=0", "*/*;q=0", "image/png;content=scores"])
def test_accept_without_a_form_that_is_written_here_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="image/tiff"):
        choose_form(accept, "labels")


@pytest.mark.parametrize(
    ("accept", "name"),
    [
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", "tif"),  # what Java's HttpURLConnection sends
        ("application/json; charset=utf-8", "json"),
        ('application/json;charset="UTF-8";q=0.9, image/tiff;q=0.1', "json"),
        ("nonsense, application/json", "json"),
        ("application/json;q=high, image/tiff;q=0.5", "tif"),
    ],
)
def test_accept_is_read_as_clients_write_it(accept: str, name: str) -> None:
    assert choose_form(accept, "labels").name == name


@pytest.mark.parametrize("accept", ["image", "*/png", "image/"])
def test_malformed_ranges_accept_nothing(accept: str) -> None:
    with pytest.raises(NotAcceptableError):
        choose_form(accept, "labels")


@given(st.text(max_size=40), st.sampled_from(KINDS))
def test_any_accept_header_is_answered_or_refused(accept: str, kind: TruthKind) -> None:
    with contextlib.suppress(NotAcceptableError, RequestError):
        assert choose_form(accept, kind) in forms_of(kind).values()


@pytest.mark.parametrize(
    ("kind", "accept", "name"),
    [
        ("image", "*/*", "tif"),
        ("image", "image/png", "png"),
        ("class", "*/*", "json"),
        ("class", "image/*", "overlay"),
        ("class", "image/png; content=heatmap", "heatmap"),
        ("lineage", None, "zip"),
        ("lineage", "application/zip", "zip"),
        ("lineage", "application/zip; content=geff", "geff"),
        ("lineage", "application/json, */*;q=0.1", "json"),
    ],
)
def test_each_kind_of_answer_has_forms_of_its_own(kind: TruthKind, accept: str | None, name: str) -> None:
    assert choose_form(accept, kind).name == name


@pytest.mark.parametrize(("kind", "accept"), [("class", "image/tiff"), ("lineage", "image/*"), ("image", "text/csv")])
def test_a_form_of_another_kind_is_refused(kind: TruthKind, accept: str) -> None:
    with pytest.raises(NotAcceptableError, match=next(iter(forms_of(kind).values())).media_type):
        choose_form(accept, kind)


def test_forms_are_found_by_name() -> None:
    assert form_named("geojson", "labels").media_type == "application/geo+json"
    assert form_named(None, "lineage").name == "zip"
    with pytest.raises(RequestError, match="tif, json"):
        form_named("bmp", "labels")
    with pytest.raises(RequestError, match="zip, csv"):
        form_named("tif", "lineage")


@pytest.mark.parametrize("kind", KINDS)
def test_media_types_tell_the_forms_of_a_kind_apart(kind: TruthKind) -> None:
    own = [form.media_type for form in forms_of(kind).values()]
    assert len(set(own)) == len(own)
    assert set(own) <= set(media_types())
    assert [choose_form(media_type, kind).media_type for media_type in own] == own
