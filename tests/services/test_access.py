"""Tokens at the door: who is let in, what the refusal says, and what the OpenAPI document declares."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse

from cytoray_analysis.errors import CytorayError, ForbiddenError, UnauthorizedError
from cytoray_services.http.errors import CHALLENGE
from cytoray_services.tokens.access import Access, Caller
from cytoray_services.tokens.tokens import TokenFile, create_token, revoke_token


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the tokens are kept."""
    return tmp_path / "tokens.json"


@pytest.fixture
def token(path: Path) -> str:
    """Make a token that may ask models."""
    return create_token(path, "lab", ("predict",), days=1)[0]


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic bGFiOmxhYg==", "Bearer cyt_0_1", "cyt_0_1", "Bearer é"]
)
def test_without_a_valid_token_no_one_is_let_in(path: Path, token: str, header: str | None) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        Access(TokenFile(path)).check(header, "predict")
    assert token not in str(caught.value.describe())
    assert "cyt_0_1" not in caught.value.message


def test_a_token_opens_what_its_scopes_say(path: Path, token: str) -> None:
    access = Access(TokenFile(path))
    number = token.split("_")[1]
    assert access.check(f"Bearer {token}", "predict") == Caller("lab", ("predict",), None, number)
    assert access.check(f"bearer   {token} ", "predict").name == "lab"
    for scope in ("submit", "administer"):
        with pytest.raises(ForbiddenError, match=scope):
            access.check(f"Bearer {token}", scope)
    chief, _ = create_token(path, "chief", ("administer",), days=1)
    assert access.check(f"Bearer {chief}", "submit").name == "chief"
    revoke_token(path, "lab")
    with pytest.raises(UnauthorizedError):
        access.check(f"Bearer {token}", "predict")


def test_without_tokens_everybody_is_local() -> None:
    assert Access(None).check(None, "administer").name == "local"


def _api(access: Access) -> FastAPI:
    api = FastAPI()

    @api.exception_handler(CytorayError)
    async def refuse(request: Request, error: CytorayError) -> JSONResponse:
        headers = CHALLENGE if error.status == UnauthorizedError.status else {}
        return JSONResponse(error.describe(), status_code=error.status, headers=headers)

    @api.post("/ask", dependencies=[Depends(access.require("predict"))])
    async def ask(request: Request) -> dict[str, Any]:
        return {"caller": request.state.caller.name, "bytes": len(await request.body())}

    return api


def _post(api: FastAPI, **options: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://service") as client:
            return await client.post("/ask", **options)

    return asyncio.run(send())


def test_a_route_lets_in_who_has_the_scope(path: Path, token: str) -> None:
    api = _api(Access(TokenFile(path)))
    answered = _post(api, headers={"Authorization": f"Bearer {token}"}, content=b"abc")
    assert answered.json() == {"caller": "lab", "bytes": 3}
    refused = _post(api, content=b"abc")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    submitter, _ = create_token(path, "submitter", ("submit",), days=1)
    assert _post(api, headers={"Authorization": f"Bearer {submitter}"}).status_code == 403


def test_the_body_of_a_refused_request_is_not_read(path: Path, token: str) -> None:
    parts = []

    async def body() -> Any:
        for part in (b"one", b"two"):
            parts.append(part)
            yield part

    assert _post(_api(Access(TokenFile(path))), content=body()).status_code == 401
    assert len(parts) <= 1


def test_the_document_declares_tokens_where_they_are_asked_for(path: Path, token: str) -> None:
    document = _api(Access(TokenFile(path))).openapi()
    assert document["paths"]["/ask"]["post"]["security"] == [{"Token": []}]
    assert document["components"]["securitySchemes"]["Token"]["scheme"] == "bearer"
    assert "security" not in _api(Access(None)).openapi()["paths"]["/ask"]["post"]
    assert _post(_api(Access(None))).json()["caller"] == "local"


def caller(*scopes: str, team: str | None = None) -> Caller:
    return Caller("ada", scopes, team)


@pytest.mark.parametrize(
    ("scopes", "asked", "other"),
    [
        (("predict",), True, True),
        (("predict:cells",), True, False),
        (("predict:cells", "predict:nuclei"), True, True),
        (("predict:nuclei", "submit"), False, True),
        (("predict", "predict:nuclei"), True, True),
        (("submit",), True, True),  # jobs of tokens of before
        (("predict:nuclei", "administer"), True, True),
    ],
)
def test_a_scope_that_names_a_model_reaches_that_model_alone(scopes: tuple[str, ...], asked: bool, other: bool) -> None:
    for name in ("cells", "cells@champion", "cells@3", "cells/3"):
        assert caller(*scopes).may_ask(name) is asked
    assert caller(*scopes).may_ask("nuclei@champion") is other
    if caller(*scopes).models is not None:
        assert not any(
            caller(*scopes).may_ask(name) for name in ("", "cell", "cells2", "CELLS", " cells", "/cells", "@cells")
        )


@pytest.mark.parametrize(
    ("scopes", "team", "wanted", "found"),
    [
        (("submit",), None, None, None),
        (("submit",), "lab", None, "lab"),
        (("submit",), "lab", "lab", "lab"),
        (("submit:lab",), None, None, "lab"),
        (("submit:lab", "submit:clinic"), "lab", None, "lab"),
        (("submit:lab", "submit:clinic"), None, "clinic", "clinic"),
        (("submit", "submit:clinic"), None, "clinic", "clinic"),
        (("submit", "submit:clinic"), None, None, None),
        (("administer",), None, "anybody", "anybody"),
    ],
)
def test_a_job_is_for_a_team_that_the_token_submits_for(
    scopes: tuple[str, ...], team: str | None, wanted: str | None, found: str | None
) -> None:
    assert caller(*scopes, team=team).team_for(wanted) == found


@pytest.mark.parametrize(
    ("scopes", "team", "wanted"),
    [
        (("submit",), None, "lab"),
        (("submit",), "lab", "clinic"),
        (("submit:lab",), None, "clinic"),
        (("submit:lab",), "clinic", "clinic"),
        (("submit:lab", "submit:clinic"), None, None),
    ],
)
def test_a_job_for_another_team_is_refused(scopes: tuple[str, ...], team: str | None, wanted: str | None) -> None:
    with pytest.raises(ForbiddenError, match="team"):
        caller(*scopes, team=team).team_for(wanted)


def test_jobs_are_seen_by_their_team_or_by_who_submitted_them() -> None:
    ada, eve = caller("submit", team="lab"), Caller("eve", ("submit",))
    assert ada.sees("bob", "lab")
    assert not ada.sees("ada", "clinic")  # it went to another team
    assert not ada.sees("eve", None)
    assert eve.sees("eve", None)
    assert not eve.sees("", None)
    assert caller("submit:clinic").sees("bob", "clinic")
    assert caller("administer").sees("", None)
