"""What of an image is asked about: through the client, the Open Inference Protocol, jobs and predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import AxesError, RequestError
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.images.series import SeriesInfo, each_series
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.selection import Selection
from cytoray_services.commands.root import main
from cytoray_services.settings import load_settings
from cytoray_services.storage.allowed import Allowed
from cytoray_serving.client import Client
from cytoray_serving.jobs.plan import plan
from cytoray_serving.jobs.request import JobRequest
from cytoray_serving.jobs.store import Job, now
from cytoray_serving.jobs.work import Task, Worker
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.schema import ModelAnswered
from serving_in_process import config_of, in_process
from serving_samples import noise, tiff_bytes

PIXELS = noise(2, 3, 40, 48)  # C Z Y X
STACK = tiff_bytes(PIXELS, ome=True, metadata={"axes": "CZYX", "Channel": {"Name": ["DAPI", "GFP"]}})


@pytest.fixture(scope="module")
def http(folders: Any, tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    settings = load_settings({"CYTORAY_HOME": str(tmp_path_factory.mktemp("home"))})
    config = config_of([str(folders.nuclei), str(folders.cells)], shared=None)
    return TestClient(in_process(settings, config).api)


@pytest.fixture
def client(http: TestClient) -> Client:
    found = Client("http://testserver")
    found.service._http = http  # type: ignore[assignment] # a client of httpx's fork, which asks the application itself
    return found


def expected(segmenter: Predictor, pixels: Any) -> Any:
    return segmenter.predict(image_from_array(pixels, "YX")).answer


@pytest.mark.slow
def test_the_client_chooses_and_gives_channels_and_warnings(client: Client, segmenter: Predictor) -> None:
    answer = client.predict(STACK, model="nuclei", channel="gfp", plane=2)
    np.testing.assert_array_equal(answer.labels(), expected(segmenter, PIXELS[1, 2]))
    assert [(one.name, one.number) for one in answer.channels] == [("GFP", 1)]
    assert answer.warnings == ()
    masks = np.zeros((3, 40, 48), np.uint8)
    masks[:, 2:9, 2:9], masks[0, 20:30, 20:30] = 1, 2
    objects = tiff_bytes(masks, metadata={"axes": "ZYX"})
    cells = client.predict(STACK, model="cells", masks=objects, channel=["GFP"], plane="each")
    assert [one.code for one in cells.warnings] == ["cells-renumbered"]
    with pytest.raises(RequestError, match="plane"):
        client.predict(STACK, model="nuclei", plane="last")
    with pytest.raises(AxesError, match="Cy5"):
        client.predict(STACK, model="nuclei", channel="Cy5", plane=0)


def test_frames_in_files_of_their_own_are_chosen_of_before_they_are_sent(
    client: Client, segmenter: Predictor, tmp_path: Path
) -> None:
    for index in range(2):
        frame = tiff_bytes(PIXELS[:, index], ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}})
        (tmp_path / f"t00{index}.tif").write_bytes(frame)
    answer = client.predict(tmp_path, model="nuclei", channel="GFP", frame=1)
    np.testing.assert_array_equal(answer.labels(), expected(segmenter, PIXELS[1, 1]))


def infer(http: TestClient, model: str, pixels: Any, parameters: dict[str, Any]) -> Any:
    tensor = {"name": "image", "shape": list(pixels.shape), "datatype": "UINT8", "data": pixels.ravel().tolist()}
    return http.post(f"/v2/models/{model}/infer", json={"inputs": [tensor], "parameters": parameters})


def test_tensors_are_chosen_of_by_parameters(http: TestClient, segmenter: Predictor) -> None:
    for parameters in (
        {"axes": "CZYX", "channel": 1, "plane": "2"},
        {"input_axes": "CZYX", "channel": "1", "plane": 2},
        {"axes": "CZYX", "channel": '["1"]', "plane": "2"},
    ):
        answer = infer(http, "nuclei", PIXELS, parameters)
        assert answer.status_code == 200, answer.text
        labels = next(one for one in answer.json()["outputs"] if one["name"] == "labels")
        np.testing.assert_array_equal(np.reshape(labels["data"], labels["shape"]), expected(segmenter, PIXELS[1, 2]))
        assert json.loads(answer.json()["parameters"]["channels"])[0]["number"] == 1
    moved = infer(http, "nuclei", PIXELS[0].transpose(1, 2, 0), {"input_axes": "YXZ", "plane": "each"})
    labels = next(one for one in moved.json()["outputs"] if one["name"] == "labels")
    assert labels["shape"] == [3, 40, 48]


@pytest.mark.parametrize(
    "parameters",
    [{"plane": "last"}, {"series": "each"}, {"channel": "[1"}, {"input_axes": "CYX"}, {"plane": True}, {"frame": -1}],
)
def test_a_parameter_that_is_no_choice_is_the_callers_mistake(http: TestClient, parameters: dict[str, Any]) -> None:
    answer = infer(http, "nuclei", PIXELS[0, 0], parameters)
    assert answer.status_code == 400
    assert "expected" in answer.json()["error"]


def job_of(folder: Path, model: Path, **fields: Any) -> Job:
    request = JobRequest(input=(folder / "in").as_uri(), output=(folder / "out").as_uri(), **fields)
    return Job(
        id="job-of-a-test",
        steps=(str(model),),
        models=(ModelAnswered(name=model.name, version=None, digest=Bundle.load(model).digest),),
        request=request,
        owner="",
        created=now(),
        allowed=Allowed(roots=(folder,)),
        options=ReplicaOptions(device="cpu"),
        movies=False,
        workers=1,
    )


def test_a_job_answers_what_is_chosen_of_each_image(folders: Any, segmenter: Predictor, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tif").write_bytes(STACK)
    for fields, axes in (
        ({"plane": 1}, "YX"),
        ({"plane": "each"}, "ZYX"),
        ({"plane": "each", "format": "zarr"}, "ZYX"),
    ):
        job = job_of(tmp_path, folders.nuclei, channel="GFP", **fields)
        (item,) = plan(job.request, job.allowed, movies=False).items
        record = Worker(job, load_settings()).work(Task(kind="item", item=item))
        assert record.error is None
        found = read_image(tmp_path / "out" / str(record.output).rpartition("/")[2])
        assert found.axes == axes
        if axes == "YX":
            np.testing.assert_array_equal(found.read(), expected(segmenter, PIXELS[1, 1]))


def test_a_job_keeps_its_choice_when_it_is_written_down(tmp_path: Path, folders: Any) -> None:
    job = job_of(tmp_path, folders.nuclei, channel=["GFP", "0"], plane="max")
    assert Job.model_validate_json(job.model_dump_json()).request == job.request
    assert job.request.selection == Selection(channel=("GFP", "0"), plane="max")


def test_every_series_has_a_choice_and_a_name_of_its_own() -> None:
    def named(*names: str) -> list[tuple[str, str | None]]:
        found = each_series([SeriesInfo(name, "YX", (8, 8)) for name in names], Selection(series="each", plane="max"))
        assert all(chosen.plane == "max" for _, chosen in found)
        return [(name, chosen.series) for name, chosen in found]

    assert named("a", "b") == [("a", "0"), ("b", "1")]
    assert named("a", "a", "") == [("0", "0"), ("1", "1"), ("2", "2")]
    assert named("1", "0") == [("1", "1"), ("0", "0")]
    assert named("only") == [("", None)]


def test_predict_takes_the_options(
    folders: Any, segmenter: Predictor, tmp_path: Path, cytoray_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.tif").write_bytes(STACK)

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            main(["predict", str(folders.nuclei), str(tmp_path / "a.tif"), "--json", *words])
        return int(ended.value.code or 0), json.loads(capsys.readouterr().out)

    status, answer = run("--channel", "GFP", "--plane", "2", "--out", str(tmp_path / "one"))
    assert status == 0, answer
    np.testing.assert_array_equal(read_image(tmp_path / "one" / "a.tif").read(), expected(segmenter, PIXELS[1, 2]))
    status, _ = run("--channel", "0", "--plane", "each", "--out", str(tmp_path / "all"))
    assert (status, read_image(tmp_path / "all" / "a.tif").axes) == (0, "ZYX")
    status, answer = run("--plane", "-3", "--out", str(tmp_path / "none"))
    assert (status, answer["field"]) == (2, "plane")
