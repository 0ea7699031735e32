"""Metadata of the server and its models: names, versions, and input and output tensors.

An image is sent as the bytes of a file (``BYTES`` of shape [1]) or as numbers of any type in the axes of the model; see
:mod:`cytoray_serving.open_inference.translate`. Lengths of -1 are variable.
"""

from __future__ import annotations

from importlib.metadata import version as installed_version
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cytoray_serving.answers.kind import FREE, answer_kind
from cytoray_serving.schema import ModelStatus

PLATFORM = "cytoray"
# By their names in Triton; timeouts belong to the schedule policy.
EXTENSIONS = ("binary_tensor_data", "parameters", "schedule_policy", "model_configuration", "model_repository")


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
    """An input or output tensor."""

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
    """A tensor in the configuration of a model."""

    name: str
    data_type: str
    dims: list[int]
    optional: bool = False


class ModelConfig(_Frozen):
    """The configuration of a model, as far as clients use it; the service batches images itself."""

    name: str
    platform: str
    backend: str
    max_batch_size: Literal[0] = 0
    input: list[TensorConfig]
    output: list[TensorConfig]


class ModelIndexed(_Frozen):
    """A model in the list of served models."""

    name: str
    version: str
    state: Literal["READY"] = "READY"
    reason: str = ""


def server_metadata() -> ServerMetadata:
    """Describe the server."""
    return ServerMetadata(name="cytoray", version=installed_version("cytoray"), extensions=list(EXTENSIONS))


def model_metadata(name: str, status: ModelStatus) -> ModelMetadata:
    """Describe a model under the requested name."""
    return ModelMetadata(
        name=name,
        versions=[] if status.version is None else [status.version],
        platform=PLATFORM,
        inputs=model_inputs(status),
        outputs=model_outputs(status),
    )


def model_config(name: str, status: ModelStatus) -> ModelConfig:
    """Describe a model in Triton's terms, under the requested name."""
    return ModelConfig(
        name=name,
        platform=PLATFORM,
        backend=PLATFORM,
        input=[_config(tensor, optional=tensor.name != "image") for tensor in model_inputs(status)],
        output=[_config(tensor) for tensor in model_outputs(status)],
    )


def model_index(statuses: list[ModelStatus]) -> list[ModelIndexed]:
    """List the served models."""
    return [ModelIndexed(name=status.name, version=status.version or "") for status in statuses]


def model_inputs(status: ModelStatus) -> list[TensorMetadata]:
    """Return the inputs of a model; all except the image are optional."""
    axes = object_axes(status)
    inputs = [TensorMetadata(name="image", datatype="BYTES", shape=[1])]
    further = {"masks": ("INT32", [FREE] * len(axes)), "boxes": ("FP64", [FREE, 2 * len(axes)])}
    for name in answer_kind(status.kind).takes:
        datatype, shape = further[name]
        inputs.append(TensorMetadata(name=name, datatype=datatype, shape=shape))
    return inputs


def model_outputs(status: ModelStatus) -> list[TensorMetadata]:
    """Return the outputs of a model; :mod:`cytoray_serving.answers.arrays` describes the tensors."""
    axes = len(object_axes(status))
    outputs = answer_kind(status.kind).tensors(axes)
    return [TensorMetadata(name=name, datatype=datatype, shape=shape) for name, (datatype, shape) in outputs.items()]


def object_axes(status: ModelStatus) -> str:
    """Return the axes of the masks of a model, such as ``YX``, or ``TYX`` for movies."""
    return status.axes.replace("C", "")


def _config(tensor: TensorMetadata, *, optional: bool = False) -> TensorConfig:
    datatype = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    return TensorConfig(name=tensor.name, data_type=f"TYPE_{datatype}", dims=tensor.shape, optional=optional)
