"""Who may reach what at every HTTP door of a service: models by scopes, jobs by owner and team, places by team."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import pytest

from cytoray_services.registry import Registry
from cytoray_services.settings import Settings, load_settings
from cytoray_services.tokens.tokens import create_token, rotate_token, tokens_path
from cytoray_serving.gateway.teams import TeamConfig
from cytoray_serving.open_inference.grpc import InferenceMethods
from cytoray_serving.open_inference.protocol import open_inference_pb2 as messages
from cytoray_serving.open_inference.protocol import open_inference_pb2_grpc as service_pb
from cytoray_serving.service.assembly import Assembled
from cytoray_serving.service.config import JobsConfig
from job_samples import write_images
from serving_in_process import Ask, asker, config_of, in_process
from serving_samples import GOOD, write_small_bundle

PIPELINE = "stain-then-cells"


@pytest.fixture(scope="module")
def settings(registry_without_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Make a registry with the models nuclei and cells, each a champion."""
    home = shutil.copytree(registry_without_models, tmp_path_factory.mktemp("owners") / "home")
    settings = load_settings({"CYTORAY_HOME": str(home)})
    for name in ("nuclei", "cells"):
        bundle = write_small_bundle(settings.home / "made" / name, name=name)
        Registry.open(settings).register(bundle, name, alias="champion")
    return settings


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give folders for all, of two teams, and one of a team that lies in the folder for all."""
    root = tmp_path_factory.mktemp("places")
    folders = {name: root / place for name, place in {"all": "all", "lab": "lab", "clinic": "all/clinic"}.items()}
    for folder in folders.values():
        write_images(folder / "in", 2)
    return folders


@pytest.fixture(scope="module")
def service(settings: Settings, places: dict[str, Path]) -> Assembled:
    create_token(tokens_path(settings), "chief", ("administer",), days=1)
    return in_process(
        settings,
        config_of(
            ["nuclei@champion"],
            insecure_local=False,
            tokens=tokens_path(settings),
            allowed={"roots": [places["all"]], "hosts": ["images.example.org"]},
            teams={"lab": TeamConfig(roots=(places["lab"],)), "clinic": TeamConfig(roots=(places["clinic"],), jobs=2)},
            pipelines={PIPELINE: ("nuclei@champion", "cells@champion")},
            jobs=JobsConfig(per_caller=3),
        ),
    )


@pytest.fixture
def token(service: Assembled, settings: Settings) -> Callable[..., dict[str, str]]:
    """Give the function that makes a token and returns its header; there are no others, and no jobs."""
    shutil.rmtree(settings.home / "jobs", ignore_errors=True)
    tokens_path(settings).unlink()
    create_token(tokens_path(settings), "chief", ("administer",), days=1)

    def make(name: str, *scopes: str, team: str | None = None) -> dict[str, str]:
        text, _ = create_token(tokens_path(settings), name, scopes, days=1, team=team)
        return {"Authorization": f"Bearer {text}"}

    return make


@pytest.fixture
def ask(service: Assembled) -> Ask:
    return asker(service)


TENSORS = {"inputs": [{"name": "image", "shape": [32, 32], "datatype": "UINT8", "data": [1] * 1024}]}


def doors(model: str) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Return every request that names a model in its address."""
    uri = {"image": "file:///nowhere/a.tif"}
    job = {"input": "file:///nowhere/in", "output": "file:///nowhere/out"}
    return {
        "predict": ("POST", f"/models/{model}/predict", {"content": GOOD}),
        "version": ("POST", f"/models/{model}/versions/1/predict", {"content": GOOD}),
        "form": ("POST", f"/models/{model}/predict", {"files": {"image": ("a.tif", GOOD)}}),
        "uri": ("POST", f"/models/{model}/predict", {"json": uri}),
        "to a job": ("POST", f"/models/{model}/predict", {"json": uri | {"output": "file:///nowhere/out"}}),
        "alias": ("POST", f"/models/{model}@champion/predict", {"content": GOOD}),
        "candidate": ("POST", f"/models/{model}@candidate/predict", {"content": GOOD}),
        "number": ("POST", f"/models/{model}@1/predict", {"content": GOOD}),
        "status": ("GET", f"/models/{model}", {}),
        "status of a version": ("GET", f"/models/{model}/versions/1", {}),
        "job": ("POST", f"/models/{model}/jobs", {"json": job}),
        "job of a version": ("POST", f"/models/{model}/versions/1/jobs", {"json": job}),
        "v2 infer": ("POST", f"/v2/models/{model}/infer", {"json": TENSORS}),
        "v2 infer with a version": ("POST", f"/v2/models/{model}/versions/1/infer", {"json": TENSORS}),
        "v2 metadata": ("GET", f"/v2/models/{model}", {}),
        "v2 ready": ("GET", f"/v2/models/{model}/ready", {}),
        "v2 config": ("GET", f"/v2/models/{model}/config", {}),
    }


@pytest.mark.slow
@pytest.mark.parametrize("door", doors("x"))
def test_a_token_for_one_model_reaches_no_other_at_any_door(ask: Ask, token: Any, door: str) -> None:
    header = token("ada", "predict:cells", "submit")
    answers = {}
    for model in ("cells", "nuclei", "nowhere", PIPELINE):
        method, path, options = doors(model)[door]
        answers[model] = ask(method, path, headers=header, **options)
    foreign = {model: (answer.status_code, answer.text.replace(model, "X")) for model, answer in answers.items()}
    assert foreign["nuclei"][0] == 404
    assert foreign["nuclei"] == foreign["nowhere"]  # whether it exists is not shown
    assert foreign[PIPELINE][0] == 404
    # The model itself is asked; what fails then is the place, or an alias that does not exist.
    assert answers["cells"].status_code in ((404,) if door == "candidate" else (200, 403))


@pytest.mark.slow
def test_a_token_for_one_model_reaches_no_other_over_grpc(service: Assembled, token: Any) -> None:
    header = token("ada", "predict:cells")

    async def call(stub: Any, name: str, /, **fields: Any) -> str:
        request = getattr(messages, f"{name}Request")(**fields)
        try:
            await getattr(stub, name)(request, metadata=(("authorization", header["Authorization"]),))
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"

    async def calls() -> dict[str, list[str]]:
        server = grpc.aio.server()
        methods = InferenceMethods(service.answering, require_ready=service.dispatch.require_ready)
        service_pb.add_GRPCInferenceServiceServicer_to_server(methods, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        found: dict[str, list[str]] = {}
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = service_pb.GRPCInferenceServiceStub(channel)
            for model in ("cells", "nuclei", "nuclei@champion", "nuclei/1", "nowhere", PIPELINE):
                found[model] = [
                    await call(stub, "ModelReady", name=model),
                    await call(stub, "ModelMetadata", name=model),
                    await call(stub, "ModelReady", name=model, version="1"),
                    await call(stub, "ModelInfer", model_name=model),
                ]
        await server.stop(None)
        return found

    found = asyncio.run(calls())
    assert found.pop("cells") == ["OK", "OK", "OK", "INVALID_ARGUMENT"]  # there is no image in it
    assert set(map(tuple, found.values())) == {("NOT_FOUND",) * 4}


def test_a_model_that_finds_objects_must_be_allowed_as_well(ask: Ask, token: Any, places: dict[str, Path]) -> None:
    header = token("ada", "predict:cells", "submit")
    form = {"files": {"image": ("a.tif", GOOD)}, "data": {"segmentation": "nuclei@champion"}}
    job = {"input": (places["all"] / "in").as_uri(), "output": (places["all"] / "out").as_uri()}
    refused = [
        ask("POST", "/models/cells/predict", headers=header, **form),
        ask("POST", "/models/cells/jobs", headers=header, json=job | {"segmentation": "nuclei@1"}),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]) == (404, "ModelNotFoundError")
        assert "nuclei" in answer.json()["message"]


def test_lists_hold_what_a_token_may_ask(ask: Ask, token: Any) -> None:
    one, several = token("ada", "predict:cells"), token("bob", f"predict:{PIPELINE}", "predict:nuclei")
    every = token("eve", "predict")
    assert ask("GET", "/models/cells", headers=every).status_code == 200  # now it is known, and listed

    def listed(header: dict[str, str]) -> tuple[list[str], list[str]]:
        models = ask("GET", "/models", headers=header).json()["models"]
        index = ask("POST", "/v2/repository/index", headers=header).json()
        return [model["reference"] for model in models], [model["name"] for model in index]

    references, names = listed(one)
    assert {"cells"} <= set(references) <= {"cells", "cells/1", "cells@champion"}
    assert set(names) == {"cells"}
    assert {"nuclei@champion", PIPELINE} <= set(listed(several)[0])
    assert not set(references) & set(listed(several)[0])
    assert set(listed(every)[0]) >= {"nuclei@champion", PIPELINE, "cells"}


def test_a_token_for_a_pipeline_reaches_its_models_through_it_alone(ask: Ask, token: Any) -> None:
    header = token("ada", f"predict:{PIPELINE}")
    assert ask("GET", f"/models/{PIPELINE}", headers=header).status_code == 200
    assert ask("GET", "/models/cells", headers=header).status_code == 404


def submitted(ask: Ask, header: dict[str, str], source: Path, output: Path, **fields: Any) -> httpx.Response:
    body = {"input": source.as_uri(), "output": output.as_uri()} | fields
    return ask("POST", "/models/nuclei/jobs", headers=header, json=body)


def test_a_job_is_seen_and_stopped_by_its_team_alone(ask: Ask, token: Any, places: dict[str, Path]) -> None:
    ada, bob = token("ada", "submit", team="lab"), token("bob", "submit:lab")
    eve, chief = token("eve", "submit", team="clinic"), token("boss", "administer")
    job = submitted(ask, ada, places["lab"] / "in", places["lab"] / "out").json()
    assert (job["owner"], job["team"]) == ("ada", "lab")
    for header, seen in ((ada, True), (bob, True), (chief, True), (eve, False)):
        assert [one["id"] for one in ask("GET", "/jobs", headers=header).json()["jobs"]] == [job["id"]] * seen
        for path in ("", "/log", "/events") if not seen else ("", "/log"):
            assert (ask("GET", f"/jobs/{job['id']}{path}", headers=header).status_code == 200) is seen
    for method, path in (("GET", ""), ("GET", "/log"), ("GET", "/events"), ("DELETE", "")):
        foreign, none = (ask(method, f"/jobs/{name}{path}", headers=eve) for name in (job["id"], "job-" + "0" * 24))
        assert (foreign.status_code, none.status_code) == (404, 404)
        assert foreign.text.replace(job["id"], "X") == none.text.replace("job-" + "0" * 24, "X")
    assert ask("GET", f"/jobs/{job['id']}", headers=ada).json()["state"] == "queued"
    assert ask("DELETE", f"/jobs/{job['id']}", headers=bob).json()["state"] == "cancelled"


def test_a_job_of_no_team_is_its_owner_s(ask: Ask, token: Any, settings: Settings, places: dict[str, Path]) -> None:
    ada, eve = token("ada", "submit"), token("eve", "submit")
    job = submitted(ask, ada, places["all"] / "in", places["all"] / "out").json()
    assert (job["owner"], job["team"]) == ("ada", None)
    assert ask("GET", f"/jobs/{job['id']}", headers=eve).status_code == 404
    assert ask("GET", "/jobs", headers=eve).json()["jobs"] == []
    text, _ = rotate_token(tokens_path(settings), "ada", grace=timedelta(0))
    assert ask("GET", f"/jobs/{job['id']}", headers={"Authorization": f"Bearer {text}"}).status_code == 200


def test_a_job_is_for_the_team_that_is_named(ask: Ask, token: Any, places: dict[str, Path]) -> None:
    header = token("ada", "submit:lab", "submit:clinic")
    source, output = places["lab"] / "in", places["lab"] / "out"
    refused = submitted(ask, header, source, output)
    assert (refused.status_code, refused.json()["field"]) == (403, "team")
    assert submitted(ask, header, source, output, team="other").status_code == 403
    assert submitted(ask, header, source, output, team="lab").json()["team"] == "lab"


@pytest.mark.slow
@pytest.mark.parametrize("team", ["lab", "clinic"])
def test_what_belongs_to_a_team_is_named_by_it_alone(ask: Ask, token: Any, places: dict[str, Path], team: str) -> None:
    own = token("ada", "predict", "submit", team=team)
    strangers = [token("eve", "predict", "submit", team="other"), token("bob", "predict", "submit")]
    chief = token("boss", "administer")
    folder, everybody = places[team] / "in", places["all"] / "in"
    image = {"image": next(folder.iterdir()).as_uri()}

    def predicted(header: dict[str, str]) -> int:
        return ask("POST", "/models/nuclei/predict", headers=header, json=image).status_code

    assert predicted(own) == predicted(chief) == 200
    assert submitted(ask, own, folder, places[team] / "out").status_code == 202
    for header in strangers:
        assert predicted(header) == 403
        assert submitted(ask, header, folder, places["all"] / "out").status_code == 403
        assert submitted(ask, header, everybody, places[team] / "out2").status_code == 403
        asked = image | {"output": (places["all"] / "out").as_uri()}
        assert ask("POST", "/models/nuclei/predict", headers=header, json=asked).status_code == 403
        assert submitted(ask, header, everybody, places["all"] / f"out-{strangers.index(header)}").status_code == 202


@pytest.mark.slow
def test_one_caller_has_so_many_jobs_at_a_time(
    ask: Ask, token: Any, settings: Settings, places: dict[str, Path]
) -> None:
    ada, bob, chief = token("ada", "submit"), token("bob", "submit"), token("boss", "administer")
    source = places["all"] / "in"
    jobs = [submitted(ask, ada, source, places["all"] / f"out{number}") for number in range(4)]
    assert [job.status_code for job in jobs] == [202, 202, 202, 429]
    assert "at most 3 unfinished jobs of the caller ada" in jobs[3].json()["message"]
    assert int(jobs[3].headers["Retry-After"]) >= 1
    text, _ = rotate_token(tokens_path(settings), "ada", grace=timedelta(hours=1))
    rotated = {"Authorization": f"Bearer {text}"}
    assert submitted(ask, rotated, source, places["all"] / "out4").status_code == 429  # a new secret, no new caller
    assert submitted(ask, bob, source, places["all"] / "out5").status_code == 202
    ask("DELETE", f"/jobs/{jobs[0].json()['id']}", headers=ada)
    assert submitted(ask, rotated, source, places["all"] / "out6").status_code == 202
    for number in range(4):
        assert submitted(ask, chief, source, places["all"] / f"chief{number}").status_code == 202


@pytest.mark.slow
def test_the_signature_of_a_presigned_address_is_reported_nowhere(
    token: Any, settings: Settings, places: dict[str, Path]
) -> None:
    header, stranger = token("ada", "predict", "submit"), "sig-c2VjcmV0"

    class Images(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path.startswith("/a.tif?")
            self.send_response(200 if there else 404)
            self.send_header("Content-Length", str(len(GOOD) if there else 0))
            self.end_headers()
            if there and self.command == "GET":
                self.wfile.write(GOOD)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Images) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        config = config_of(
            ["nuclei@champion"],
            insecure_local=False,
            tokens=tokens_path(settings),
            allowed={"roots": [places["all"]], "hosts": [host]},
        )
        ask = asker(in_process(settings, config))
        signed, output = f"?X-Amz-Signature={stranger}", (places["all"] / "signed").as_uri()
        here, away = f"http://{host}/a.tif{signed}", f"http://{host}/none.tif{signed}"
        answers = [
            ask("POST", "/models/nuclei/predict", headers=header, json={"image": here}),
            ask("POST", "/models/nuclei/predict", headers=header, json={"image": here, "output": output}),
            ask("POST", "/models/nuclei/jobs", headers=header, json={"input": here, "output": f"{output}2"}),
        ]
        assert [answer.status_code for answer in answers] == [200, 303, 202]
        refused = [
            ask("POST", "/models/nuclei/predict", headers=header, json={"image": address})
            for address in (away, away.replace(host, "elsewhere.example.org"), f"ftp://u:{stranger}@host/{signed}")
        ]
        refused += [
            ask("POST", "/models/nuclei/jobs", headers=header, json={"input": away, "output": output}),
            ask("POST", "/models/nuclei/jobs", headers=header, json={"input": here, "output": f"s3://x/{signed}"}),
            ask("POST", "/models/nuclei/jobs", headers=header, json={"input": here, "output": here}),
            ask("POST", "/models/nuclei/jobs", headers=header, json={"input": here, "output": output, "x": here}),
        ]
        assert all(400 <= answer.status_code < 500 for answer in refused)
        job = answers[2].json()["id"]
        answers += [ask("GET", path, headers=header) for path in ("/jobs", f"/jobs/{job}", f"/jobs/{job}/log")]
        answers += [ask("DELETE", f"/jobs/{job}", headers=header), ask("GET", f"/jobs/{job}/events", headers=header)]
        server.shutdown()
    for answer in (*answers, *refused):
        assert stranger not in answer.text
        assert stranger not in str(answer.headers)


def test_one_team_has_so_many_jobs_at_a_time(ask: Ask, token: Any, places: dict[str, Path]) -> None:
    folder = places["clinic"]
    callers = [token(name, "submit", team="clinic") for name in ("ada", "bob", "eve")]
    answers = [submitted(ask, header, folder / "in", folder / f"out{number}") for number, header in enumerate(callers)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert "at most 2 unfinished jobs of the team clinic" in answers[2].json()["message"]
