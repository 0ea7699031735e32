"""What a service answers to pages of other origins, and which headers every response has."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers

from cytoray_analysis.errors import ForbiddenError
from cytoray_services.settings import load_settings
from cytoray_services.storage.allowed import Allowed
from cytoray_services.tokens.tokens import create_token, tokens_path
from cytoray_serving.front.browsers import added_headers, require_own_page
from serving_in_process import asker, config_of, in_process
from serving_samples import GOOD

LAB = "https://lab.example.org"


@pytest.mark.parametrize(
    ("method", "host", "origin", "fine"),
    [
        ("POST", "hub.example", None, True),
        ("POST", "hub.example:8000", "http://hub.example:8000", True),
        ("POST", "hub.example", "https://hub.example:443", True),
        ("POST", "HUB.example", "https://hub.example", True),
        ("POST", "hub.example:8000", "http://hub.example", False),
        ("DELETE", "hub.example", "https://evil.example", False),
        ("PUT", "hub.example", "null", False),
        ("POST", None, "https://hub.example", False),
        ("POST", "hub.example:x", "https://hub.example", False),
        ("POST", "hub.example", "http://[", False),
        ("POST", "hub.example", "http://hub.example:99999999", False),
        ("POST", "[", "http://hub.example", False),
        ("POST", "", "http://", False),
        ("POST", "hub.example", LAB, True),
        ("POST", "hub.example", "https://lab.example.org.evil.example", False),
        ("GET", "hub.example", "https://evil.example", True),
    ],
)
def test_only_pages_of_the_service_and_allowed_ones_change_something(
    method: str, host: str | None, origin: str | None, fine: bool
) -> None:
    with nullcontext() if fine else pytest.raises(ForbiddenError, match="from a page of this service"):
        require_own_page(method, host, origin, frozenset((LAB,)))


def test_only_allowed_pages_read_responses() -> None:
    allowed = frozenset((LAB,))
    assert added_headers(Headers({"origin": LAB}), allowed)["Access-Control-Allow-Origin"] == LAB
    for headers, origins in (
        ({"origin": "https://evil.example"}, allowed),
        ({}, allowed),
        ({"origin": LAB}, frozenset()),
    ):
        assert "Access-Control-Allow-Origin" not in added_headers(Headers(headers), origins)


def test_a_page_that_is_allowed_asks_first_and_then_sends_its_token(folders: Any, tmp_path: Path) -> None:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path)})
    text, _ = create_token(tokens_path(settings), "ada", ("predict",), days=1)
    config = config_of([str(folders.nuclei)], insecure_local=False, allowed=Allowed(origins=(LAB,)))
    ask = asker(in_process(settings, config))
    path = "/models/nuclei/predict"
    question = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    first = ask("OPTIONS", path, headers={"Origin": LAB, **question})
    assert (first.status_code, first.content) == (204, b"")
    assert first.headers["access-control-allow-headers"] == "authorization"
    assert "POST" in first.headers["access-control-allow-methods"]
    assert ask("OPTIONS", path, headers={"Origin": "https://evil.example", **question}).status_code == 401
    token = {"Authorization": f"Bearer {text}"}
    good = ask("POST", path, headers={"Origin": LAB, **token}, content=GOOD)
    assert (good.status_code, good.headers["access-control-allow-origin"]) == (200, LAB)
    late = ask("POST", path, headers={"Origin": LAB}, content=GOOD)
    assert (late.status_code, late.headers["access-control-allow-origin"]) == (401, LAB)
    foreign = ask("POST", path, headers={"Origin": "https://evil.example", **token}, content=GOOD)
    assert foreign.status_code == 403
    assert "allowed.origins" in foreign.json()["hint"]


def test_every_response_says_that_it_is_no_page(folders: Any, tmp_path: Path) -> None:
    ask = asker(in_process(load_settings({"CYTORAY_HOME": str(tmp_path)}), config_of([str(folders.nuclei)])))
    for method, path, body in (
        ("GET", "/models", b""),
        ("GET", "/nowhere", b""),
        ("GET", "/metrics", b""),
        ("POST", "/models/nuclei/predict", GOOD),
        ("POST", "/models/nuclei/predict", b"<html>"),
    ):
        headers = ask(method, path, content=body).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert "access-control-allow-origin" not in headers, path


def test_the_page_of_the_interface_asks_no_other_host(folders: Any, tmp_path: Path) -> None:
    ask = asker(in_process(load_settings({"CYTORAY_HOME": str(tmp_path)}), config_of([str(folders.nuclei)])))
    page = ask("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "//" not in page.text.replace("<!doctype", "")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f'"docs/{name}"' in page.text
        assert ask("GET", f"/docs/{name}").status_code == 200
    assert ask("GET", "/docs/../secret").status_code == 404
