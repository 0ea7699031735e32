"""Requests that the OpenAPI document of the jobs service allows: no fault, and answers as the document says."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cytoray_services.jobs.service.audit import read_audit
from services.jobs.jobs_service import Service

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
EXAMPLES = int(os.environ.get("CYTORAY_EXAMPLES", "5"))


@pytest.mark.slow
def test_every_answer_is_as_the_document_says(make: Callable[..., Service], subtests: pytest.Subtests) -> None:
    service = make(teams={"lab": {}})
    headers = {"Authorization": f"Bearer {service.token('ada', 'lab')}"}
    document: Any = schemathesis.openapi.from_asgi("/openapi.json", service.api)
    operations = [found.ok() for found in document.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/jobs", "/jobs/check", "/jobs/{job_id}", "/metrics"}
    for operation in operations:
        for mode in GenerationMode if operation.body else (GenerationMode.POSITIVE,):
            _check(operation, mode, headers, subtests)
    read_audit(service.audit)


def test_the_document_says_what_a_request_needs(make: Callable[..., Service]) -> None:
    document = make().api.openapi()
    assert document["paths"]["/jobs"]["post"]["security"] == [{"Token": []}]
    assert document["components"]["schemas"]["JobRequest"]["required"] == ["recipe"]
    assert set(document["components"]["schemas"]["JobRequest"]["properties"]) == {"recipe", "set", "command", "team"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["description"], (path, method)
            assert path.startswith(("/health", "/metrics")) or operation["security"]


def _check(operation: Any, mode: GenerationMode, headers: dict[str, str], subtests: pytest.Subtests) -> None:
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
            checks = [check for check in CHECKS if operation.path != "/health/ready" or check is not not_a_server_error]
            case.call_and_validate(checks=checks, headers=headers)

        conforms()
