"""Requests that the OpenAPI document allows, made up by schemathesis: no fault, and answers as the document says.

Against a running service, with as many requests as you like:

    CYTORAY_URL=http://127.0.0.1:8000 CYTORAY_TOKEN=cyt_… CYTORAY_EXAMPLES=200 pytest tests/serving/test_openapi.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cytoray_services.settings import load_settings
from image_mutations import mutated, valid_images
from serving_in_process import config_of, in_process

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
# Beside /openapi.json itself, which describes nothing of itself.
EXAMPLES = int(os.environ.get("CYTORAY_EXAMPLES", "4"))
HEADERS = {"Authorization": f"Bearer {os.environ['CYTORAY_TOKEN']}"} if "CYTORAY_TOKEN" in os.environ else {}


@pytest.fixture(scope="module")
def document(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give the document of a service in this process, or of the one at CYTORAY_URL."""
    url = os.environ.get("CYTORAY_URL")
    if url:
        yield schemathesis.openapi.from_url(f"{url.rstrip('/')}/openapi.json", headers=HEADERS)
        return
    home: Path = request.getfixturevalue("registered")
    service = in_process(load_settings({"CYTORAY_HOME": str(home)}), config_of(["nuclei@champion"]))
    yield schemathesis.openapi.from_asgi("/openapi.json", service.api)


@pytest.fixture(scope="module", autouse=True)
def _bodies_are_often_images() -> None:
    """Let bodies that are files be images, whole and damaged; arbitrary bytes never get past the decoder."""
    images = valid_images()
    seeds = st.integers(0, 2**32)
    bodies = st.sampled_from(sorted(images.values())) | seeds.map(lambda seed: mutated(images, seed).data or b"x")
    for media_type in ("application/octet-stream", "image/*"):
        schemathesis.openapi.media_type(media_type, bodies)


@pytest.mark.slow
def test_every_answer_is_as_the_document_says(document: Any, subtests: pytest.Subtests) -> None:
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) > 5
    for operation in operations:
        # Without a body there is nothing to get wrong but the path.
        for mode in GenerationMode if operation.body else (GenerationMode.POSITIVE,):
            _check(operation, mode, subtests)


def _check(operation: Any, mode: GenerationMode, subtests: pytest.Subtests) -> None:
    with subtests.test(f"{operation.label}, {mode.value}"):

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def conforms(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, headers=HEADERS)

        conforms()
