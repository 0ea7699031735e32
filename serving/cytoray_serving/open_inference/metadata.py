"""What the server and its models say of themselves: names, versions, and the tensors that go in and come out.

An image goes in as the bytes of a file (``BYTES`` of shape [1]) or as numbers of any type in the model's axes; see
:mod:`cytoray_serving.open_inference.translate`. Lengths of -1 are free.
"""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cytoray_serving.schema import ModelStatus

PLATFORM = "cytoray"
# By the names that Triton has for them; timeouts belong to the schedule policy.
EXTENSIONS = ("binary_tensor_data", "parameters", "schedule_policy", "model_configuration", "model_repository")
_FREE = -1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class ServerMetadata(_Frozen):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(_Frozen):
    """The server runs."""

    live: Literal[True] = True


class ServerReady(_Frozen):
    """Every model answers."""

    ready: Literal[True] = True


class ModelReady(_Frozen):
    """The model answers."""

    name: str
    ready: Literal[True] = True


class TensorMetadata(_Frozen):
    """A tensor that goes in or comes out."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Frozen):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorConfig(_Frozen):
    """A tensor, as a model's configuration has it."""

    name: str
    data_type: str
    dims: list[int]
    optional: bool = False


class ModelConfig(_Frozen):
    """The configuration of a model, as far as programs ask for it; images are batched by the service itself."""

    name: str
    platform: str
    backend: str
    max_batch_size: Literal[0] = 0
    input: list[TensorConfig]
    output: list[TensorConfig]


class ModelIndexed(_Frozen):
    """A model in the list of what is served."""

    name: str
    version: str
    state: Literal["READY"] = "READY"
    reason: str = ""


def server_metadata() -> ServerMetadata:
    """Describe the server."""
    return ServerMetadata(name="cytoray", version=installed_version("cytoray"), extensions=list(EXTENSIONS))


def model_metadata(name: str, status: ModelStatus) -> ModelMetadata:
    """Describe a model under the name that it was asked for by."""
    return ModelMetadata(
        name=name,
        versions=[] if status.version is None else [status.version],
        platform=PLATFORM,
        inputs=model_inputs(status),
        outputs=model_outputs(status),
    )


def model_config(name: str, status: ModelStatus) -> ModelConfig:
    """Describe a model in Triton's terms, under the name that it was asked for by."""
    return ModelConfig(
        name=name,
        platform=PLATFORM,
        backend=PLATFORM,
        input=[_config(tensor, optional=tensor.name != "image") for tensor in model_inputs(status)],
        output=[_config(tensor) for tensor in model_outputs(status)],
    )


def model_index(statuses: list[ModelStatus]) -> list[ModelIndexed]:
    """List what is served."""
    return [ModelIndexed(name=status.name, version=status.version or "") for status in statuses]


def model_inputs(status: ModelStatus) -> list[TensorMetadata]:
    """Return what a model takes; all but the image may be left out, or are told in another way."""
    axes = object_axes(status)
    inputs = [TensorMetadata(name="image", datatype="BYTES", shape=[1])]
    if status.kind in ("class", "lineage"):
        inputs.append(TensorMetadata(name="masks", datatype="INT32", shape=[_FREE] * len(axes)))
    if status.kind == "class":
        inputs.append(TensorMetadata(name="boxes", datatype="FP64", shape=[_FREE, 2 * len(axes)]))
    return inputs


def model_outputs(status: ModelStatus) -> list[TensorMetadata]:
    """Return what a model gives; :mod:`cytoray_serving.answers.arrays` says what the tensors are."""
    axes = len(object_axes(status))
    outputs: dict[str, tuple[str, list[int]]] = {
        "labels": {"labels": ("INT32", [_FREE] * axes), "confidence": ("FP32", [_FREE])},
        "image": {"image": ("FP32", [_FREE] * (1 + axes))},
        "class": {
            "probabilities": ("FP32", [_FREE, _FREE]),
            "boxes": ("FP64", [_FREE, 2, axes]),
            "numbers": ("INT64", [_FREE]),
            "labels": ("BYTES", [_FREE]),
            "classes": ("BYTES", [_FREE]),
        },
        "lineage": {
            "masks": ("INT32", [_FREE] * axes),
            "tracks": ("INT64", [_FREE, 4]),
            "confidence": ("FP32", [_FREE]),
        },
    }[status.kind]
    return [TensorMetadata(name=name, datatype=datatype, shape=shape) for name, (datatype, shape) in outputs.items()]


def object_axes(status: ModelStatus) -> str:
    """Return the axes of a model's masks, such as ``YX``, or ``TYX`` for movies."""
    return status.axes.replace("C", "")


def _config(tensor: TensorMetadata, *, optional: bool = False) -> TensorConfig:
    datatype = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return TensorConfig(name=tensor.name, data_type=f"TYPE_{datatype}", dims=tensor.shape, optional=optional)
