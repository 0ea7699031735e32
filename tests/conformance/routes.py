"""The ways in which an image comes to the project, each given a file and asked for the pixels that arrive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import numpy as np
import tifffile
from numpy.typing import NDArray

from conformance.echo_models import echo_input
from conformance.stores import zipped
from cytoray_analysis.bundle import Bundle, ModelInput, TaskChoice
from cytoray_analysis.errors import CytorayError
from cytoray_analysis.images import Image, read_image
from cytoray_analysis.selection import Selection
from cytoray_services.datasets import Dataset, open_dataset
from cytoray_services.datasets.check.files import hash_pixels
from cytoray_services.datasets.check.images import examine_image
from cytoray_services.settings import Settings
from cytoray_services.storage.allowed import Allowed
from cytoray_serving.answers.arrays import FORM, read_arrays
from cytoray_serving.jobs.request import JobRequest
from cytoray_serving.jobs.store import Item, Job
from cytoray_serving.jobs.work import Task, Worker
from cytoray_serving.open_inference.protocol import open_inference_pb2 as messages
from cytoray_serving.open_inference.protocol import open_inference_pb2_grpc as protocol
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.schema import ModelAnswered
from cytoray_serving.service.assembly import Assembled
from cytoray_training.data.cache import open_cache
from serving_in_process import Ask


class RefusedError(Exception):
    """A route did not take the file, and said why."""


@dataclass(frozen=True, eq=False)
class Arrived:
    """What a route made of a file.

    Attributes
    ----------
    pixels
        Channels first, also of one channel.
    channels, pixel_size
        None where the route does not give them.
    """

    pixels: NDArray[Any]
    channels: tuple[str, ...] | None = None
    pixel_size: Mapping[str, float] | None = None


@dataclass(frozen=True, eq=False)
class Sent:
    """A file on its way.

    Attributes
    ----------
    path
        The file or the folder.
    selection
        What of it is asked about.
    image
        What arrives by the path.
    model
        Name of the model that answers what it is given.
    channels, axes
        That the model takes.
    folder
        An empty folder for what the route writes.
    """

    path: Path
    selection: Selection
    image: Image
    model: str
    channels: tuple[str, ...]
    axes: str
    folder: Path

    @property
    def body(self) -> bytes:
        """The bytes of the file, of a folder those of its archive."""
        return (zipped(self.path, self.folder / "sent.zip") if self.path.is_dir() else self.path).read_bytes()

    @property
    def choice(self) -> dict[str, Any]:
        """What is chosen, as requests have it."""
        return self.selection.model_dump(exclude_defaults=True)


@dataclass(frozen=True, eq=False)
class Service:
    """A service in this process, and the same behind gRPC."""

    assembled: Assembled
    ask: Ask
    settings: Settings
    bundles: Mapping[str, Path]
    grpc_address: str
    allowed: Allowed


Route = Callable[[Sent, Service], Arrived]


def _first_channel(image: Image, pixels: NDArray[Any]) -> NDArray[Any]:
    return pixels if "C" in image.axes else pixels[None]


def _arrived(image: Image) -> Arrived:
    return Arrived(_first_channel(image, image.read()), image.channels, image.pixel_size or {})


def by_path(sent: Sent, service: Service) -> Arrived:
    """Read a file that is trusted."""
    return _arrived(read_image(sent.path, selection=sent.selection))


def by_bytes(sent: Sent, service: Service) -> Arrived:
    """Read the bytes of a file."""
    return _arrived(read_image(sent.body, selection=sent.selection))


def _answered(answer: httpx.Response) -> NDArray[Any]:
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500, answer.text
        raise RefusedError(answer.text)
    return read_arrays(answer.content).arrays["image"]


def by_upload(sent: Sent, service: Service) -> Arrived:
    """Send a file as the body of a request."""
    headers = {"Accept": FORM.media_type, "Content-Type": "application/octet-stream"}
    place = f"/models/{sent.model}/predict"
    return Arrived(_answered(service.ask("POST", place, content=sent.body, headers=headers, params=sent.choice)))


def by_form(sent: Sent, service: Service) -> Arrived:
    """Send a file in a form."""
    answer = service.ask(
        "POST",
        f"/models/{sent.model}/predict",
        files={"image": (sent.path.name, sent.body)},
        data=sent.choice,
        headers={"Accept": FORM.media_type},
    )
    return Arrived(_answered(answer))


def by_uri(sent: Sent, service: Service) -> Arrived:
    """Name a file that the service reads itself, and read its answer as a picture with names and pixel size."""
    body = {"image": sent.path.as_uri(), **sent.choice}
    answer = service.ask("POST", f"/models/{sent.model}/predict", json=body, headers={"Accept": "image/tiff"})
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500, answer.text
        raise RefusedError(answer.text)
    return _arrived(read_image(answer.content))


def by_grpc(sent: Sent, service: Service) -> Arrived:
    """Send a file over the Open Inference Protocol by gRPC."""
    body = sent.body
    request = messages.ModelInferRequest(
        model_name=sent.model,
        inputs=[messages.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[1])],
        raw_input_contents=[len(body).to_bytes(4, "little") + body],
    )
    for name, value in sent.choice.items():
        request.parameters[name].string_param = value if isinstance(value, str) else json.dumps(value)
    with grpc.insecure_channel(service.grpc_address) as channel:
        try:
            answer = protocol.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=120)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                raise
            raise RefusedError(error.details()) from error
    output = answer.outputs[0]
    return Arrived(np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(tuple(output.shape)))


def by_rest(sent: Sent, service: Service) -> Arrived:
    """Send a file over the Open Inference Protocol by HTTP."""
    body = sent.body
    size = len(body) + 4
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
    choice = {name: value if isinstance(value, str) else json.dumps(value) for name, value in sent.choice.items()}
    head = json.dumps({"inputs": [image], "parameters": choice}).encode()
    answer = service.ask(
        "POST",
        f"/v2/models/{sent.model}/infer",
        content=head + len(body).to_bytes(4, "little") + body,
        headers={"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"},
    )
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500, answer.text
        raise RefusedError(answer.text)
    output = answer.json()["outputs"][0]
    return Arrived(np.array(output["data"], np.float32).reshape(output["shape"]))


def by_job(sent: Sent, service: Service) -> Arrived:
    """Let a worker of a job answer a file."""
    bundle = service.bundles[sent.model]
    request = JobRequest(
        input=sent.path.as_uri(), output=(sent.folder / "answers").as_uri(), format="tif", **sent.choice
    )
    job = Job(
        id="conformance",
        steps=(str(bundle),),
        models=(ModelAnswered(name=sent.model, version=None, digest=Bundle.load(bundle).digest),),
        request=request,
        owner="tests",
        created=datetime(2026, 1, 1, tzinfo=UTC),
        allowed=service.allowed,
        options=ReplicaOptions(threads=1),
        movies=False,
        workers=1,
    )
    item = Item(index=0, uri=request.input, name="answer", alone=True, **_series_of(sent.selection))
    record = Worker(job, service.settings).work(Task(kind="item", item=item))
    if record.error is not None:
        raise RefusedError(record.error.message)
    return _arrived(read_image(sent.folder / "answers" / "answer.ome.tif"))


def _series_of(selection: Selection) -> dict[str, Any]:
    return {} if selection.series is None else {"series": selection.series}


def _data_set(sent: Sent) -> Dataset:
    """Make a data set of one image and its label image."""
    root = sent.folder / "data"
    root.mkdir()
    spatial = [sent.image.size(axis) for axis in sent.axes if axis != "C"]
    tifffile.imwrite(root / "mask.tif", np.ones(spatial, np.uint16), photometric="minisblack", metadata=None)
    rows = ["image,mask,split", f"{sent.path.name},mask.tif,train"]
    (root / sent.path.name).symlink_to(sent.path, target_is_directory=sent.path.is_dir())
    for other in sent.path.parent.iterdir():  # those that belong to it
        if not (root / other.name).exists():
            (root / other.name).symlink_to(other)
    (root / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return open_dataset(root).choosing(sent.selection)


def by_check(sent: Sent, service: Service) -> Arrived:
    """Look at what the check of a data set finds out; the pixels are those with the digest that it gives."""
    dataset = _data_set(sent)
    facts = examine_image(dataset.items[0], dataset)
    if not facts.digest:
        raise RefusedError(facts.findings[0].problem)
    assert facts.axes == sent.image.axes
    assert facts.channels == sent.image.size("C")
    assert facts.shape == sent.image.spatial_shape
    pixels = sent.image.read()
    assert facts.digest == hash_pixels(sent.image.axes, [pixels])
    return Arrived(_first_channel(sent.image, pixels))


def by_training(sent: Sent, service: Service) -> Arrived:
    """Decode a data set as training does."""
    expected: ModelInput = echo_input(sent.channels, sent.axes)
    task = TaskChoice(name="segmentation", arguments={"dimensions": len(sent.axes) - 1})
    try:
        cache = open_cache(sent.folder / "caches", _data_set(sent), "digest", expected, task)
    except CytorayError as error:
        raise RefusedError(str(error)) from error
    return Arrived(np.array(cache.pixels(0).pixels))


ROUTES: dict[str, Route] = {
    "path": by_path,
    "bytes": by_bytes,
    "upload": by_upload,
    "form": by_form,
    "URI": by_uri,
    "gRPC": by_grpc,
    "REST": by_rest,
    "job": by_job,
    "data check": by_check,
    "training": by_training,
}
# Those on which bytes are sent: OME-Zarr goes as an archive.
SENDING = frozenset({"bytes", "upload", "form", "gRPC", "REST"})
# Those on which the file is trusted, so that it may name other files beside it.
TRUSTED = frozenset({"path", "data check", "training"})


def run_grpc(service: Any, loop: asyncio.AbstractEventLoop) -> tuple[Any, int]:
    """Start a server of the protocol in a running loop; gives it and its port."""
    from cytoray_serving.open_inference.grpc import InferenceMethods

    async def start() -> tuple[Any, int]:
        server = grpc.aio.server(options=[("grpc.max_receive_message_length", 2**26)])
        protocol.add_GRPCInferenceServiceServicer_to_server(
            InferenceMethods(lambda _: service, require_ready=service.statuses), server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    found: tuple[Any, int] = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    return found
