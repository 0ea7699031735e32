from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import (
    CytorayError,
    InputError,
    MissingFileError,
    PlatformError,
    RequestError,
    UnreadableImageError,
)
from cytoray_analysis.kinds import TruthKind
from cytoray_services.free_ports import free_port
from cytoray_services.http.errors import ErrorBody, error_of_response
from cytoray_serving.client import Client, ServedAnswer, parse_server_timing
from cytoray_serving.service.app import example_request
from cytoray_serving.service.application import name_models


def test_seconds_are_read_from_server_timing() -> None:
    header = 'read;dur=1.5, network;desc="a, b";dur=200.25, cache;desc=hit, total;dur=210'
    seconds = parse_server_timing(header)
    assert seconds["read"] == pytest.approx(0.0015)
    assert seconds["total"] == pytest.approx(0.21)
    assert "cache" not in seconds


@pytest.mark.parametrize("header", ["", ",", "a;dur=", "a;dur=fast", ";dur=1", "a;b;c"])
def test_a_malformed_server_timing_is_passed_over(header: str) -> None:
    assert parse_server_timing(header) == {}


def test_errors_come_back_as_what_the_service_raised() -> None:
    raised = UnreadableImageError("expected an image", field="body", hint="send a TIFF")
    found = error_of_response(422, ErrorBody(**raised.describe()).model_dump_json().encode())
    assert type(found) is UnreadableImageError
    assert found.describe() == raised.describe()


@pytest.mark.parametrize(("status", "kind"), [(404, InputError), (499, InputError), (500, PlatformError)])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"error": "OSError", "message": "m"}', b'{"error": "Any", "message": ""}']
)
def test_answers_of_other_servers_become_errors_too(status: int, kind: type[CytorayError], body: bytes) -> None:
    assert isinstance(error_of_response(status, body), kind)


@given(st.integers(400, 599), st.binary(max_size=60))
def test_any_error_response_becomes_an_error(status: int, body: bytes) -> None:
    assert isinstance(error_of_response(status, body), CytorayError)


def test_a_service_that_is_not_there_is_named() -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        assert not client.ready()
        with pytest.raises(PlatformError, match=r"127\.0\.0\.1"):
            client.models()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", ""])
def test_an_address_needs_a_scheme(url: str) -> None:
    with pytest.raises(RequestError, match="http://"):
        Client(url)


def test_files_that_cannot_be_sent_are_refused_before_sending(tmp_path: object) -> None:
    with Client("http://127.0.0.1:9") as client:
        with pytest.raises(MissingFileError):
            client.predict(f"{tmp_path}/nothing.tif", model="nuclei")
        with pytest.raises(MissingFileError, match=r"expected frames in .*found none"):
            client.predict(f"{tmp_path}", model="nuclei")


def test_labels_are_only_read_from_label_images() -> None:
    answer = ServedAnswer(b"{}", "application/json", "nuclei", None, "", "labels", 0, (), {})
    for other in (answer, replace(answer, media_type="image/tiff", kind="image")):
        with pytest.raises(RequestError, match="label image"):
            other.labels()


@pytest.mark.parametrize("media_type", ["image/png", "image/png; content=labels", "application/json"])
def test_pictures_for_the_eye_are_no_images(media_type: str) -> None:
    picture = bytes(imagecodecs.png_encode(np.zeros((4, 4), np.uint8)))
    with pytest.raises(RequestError, match="expected an answer in TIFF"):
        ServedAnswer(picture, media_type, "stain", None, "", "image", 0, (), {}).image()


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({"boxes": [1, 2, 3, 4]}, "boxes"),
        ({"boxes": [[1, 2, float("nan"), 4]]}, "boxes"),
        ({"boxes": "boxes.csv"}, "boxes"),
        ({"image": np.zeros((4, 4))}, "image"),
        ({"image": ""}, "image"),
        ({"masks": np.zeros((4, 4))}, "masks"),
        ({"accept": "image/tïff"}, "accept"),
        ({"channel": {"DNA", "actin"}}, "channel"),
    ],
)
def test_what_python_gives_wrongly_is_refused_before_sending(told: dict[str, Any], field: str) -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(RequestError) as caught:
        client.predict(**{"image": "file:///a.tif", "model": "cells"} | told)
    assert caught.value.field == field


def test_each_model_has_its_own_address_and_the_first_its_bare_name() -> None:
    served = name_models(["nuclei@champion", "nuclei@candidate", "cells/3", "/bundles/x"], {"/bundles/x": "membranes"})
    assert [one.names for one in served] == [
        ("nuclei@champion", "nuclei"),
        ("nuclei@candidate",),
        ("cells@3", "cells"),
        ("membranes",),
    ]


@pytest.mark.parametrize("references", [["nuclei", "nuclei"], ["nuclei/3", "nuclei/3"]])
def test_addresses_are_given_once(references: list[str]) -> None:
    with pytest.raises(RequestError):
        name_models(references)


@pytest.mark.parametrize("kind", ["labels", "image", "class", "lineage"])
def test_the_example_of_every_kind_asks_the_model(kind: TruthKind) -> None:
    words = example_request("http://127.0.0.1:8000", "nuclei", kind, token=False).split()
    assert (words[0], words[-1]) == ("curl", "http://127.0.0.1:8000/models/nuclei/predict")
    with_token = example_request("http://127.0.0.1:8000", "nuclei", kind, token=True)
    assert "-H 'Authorization: Bearer TOKEN'" in with_token
    assert ("masks=@masks.tif" in words) == (kind in ("class", "lineage"))
